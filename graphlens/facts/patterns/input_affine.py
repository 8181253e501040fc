"""Scales and shifts in front of a layer that can be folded into its weights and its bias: a normalized input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import frozen_ops, judged_graph
from graphlens.facts.patterns.exclusive import exclusive_inputs
from graphlens.ir.graph import data_consumers, data_inputs, input_specs
from graphlens.ir.layouts import CHANNELS_FIRST
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import (
    BATCH_NORMS,
    PADS,
    QUOTIENTS,
    RESHAPES,
    SCALINGS,
    SUMS,
    TRANSPOSED_CONVOLUTIONS,
    runtime_type,
)

_MATMULS: Final = frozenset({"MatMul", "_FusedMatMul"})
_DEPTHWISE: Final = frozenset({"DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative"})
_LAYERS: Final = _MATMULS | _DEPTHWISE | TRANSPOSED_CONVOLUTIONS | {"Conv2D", "_FusedConv2D", "Conv3D", "_FusedConv3D"}
# The layer's own weights take what is behind it, so that a chain in front of the next layer ends there.
_ENDS: Final = _LAYERS | {"PadWithConv2D", "PadWithFusedConv2D", "Conv2DWithBias"}
_SHIFTS: Final = SUMS | {"Sub", "BiasAdd"}
_HANDS_ON: Final = frozenset({"Identity", "StopGradient"})
_FOLLOWED: Final = _ENDS | _HANDS_ON | RESHAPES | PADS | SCALINGS | _SHIFTS | BATCH_NORMS
# A shift of so many times the numbers' size would cost the layer's sums a digit (see the rewrite): images have 2.2.
_LARGEST_SHIFT_IN_BIAS: Final = 16.0


@dataclass(frozen=True, slots=True)
class InputChain:
    """A layer behind per-channel scales and shifts whose factors never change.

    Attributes
    ----------
    layer
        The convolution or matrix product.
    steps
        The ops that scale or shift what it reads, first to last.
    folded
        The ops that vanish when the chain is folded, and the per-channel ops that only feed them.
    shift_stays
        Whether one sum remains, since the layer puts zeros around what is shifted.
    """

    layer: str
    steps: tuple[str, ...]
    folded: tuple[str, ...]
    shift_stays: bool


@fact
def input_chains(facts: Facts) -> tuple[InputChain, ...]:
    """Return the layers of the judged graph behind scales and shifts that are fewer ops once they are folded."""
    graph = facts(judged_graph)
    layers = graph.where(lambda kind: runtime_type(kind) in _LAYERS)
    walks = (_Walk(facts, name) for name in layers if _has_frozen_weights(facts, name))
    return tuple(chain for walk in walks if (chain := walk.chain()) is not None)


def _has_frozen_weights(facts: Facts, name: str) -> bool:
    inputs, frozen = data_inputs(facts(judged_graph), name), facts(frozen_ops)
    return len(inputs) > 1 and inputs[1] in frozen and name not in frozen


class _Walk:
    """One walk from a layer towards the inputs, along ops that nothing but the layer needs."""

    def __init__(self, facts: Facts, layer: str) -> None:
        self.frozen, self.graph, self.layer = facts(frozen_ops), facts(judged_graph), layer
        self.op = self._body(layer)
        self.type = runtime_type(self.op.type)
        self.first = self.op.attrs.get("data_format") in CHANNELS_FIRST
        self.steps: list[str] = []  # last to first
        self.padded = self._sees_zeros()
        self.in_place = True  # whether the channels are still where the layer has them; else only one number can pass
        self.channels: int | None = None

    def _body(self, name: str) -> Op:
        """Return an op for all but its name: most layers have no chain, and making named ops costs time."""
        return self.graph.bodies[self.graph.position(name)]

    def chain(self) -> InputChain | None:
        """Return what can be folded, ``None`` where that would leave no fewer ops."""
        if self.op.attrs.get("transpose_a"):
            return None
        self._run()
        shifts = [name for name in self.steps if self._shifts(name)]
        stays = bool(shifts) and (self.padded or self._needs_a_bias(shifts))
        if not self.steps or (stays and len(self.steps) == 1):
            return None
        steps = tuple(reversed(self.steps))
        gone = [name for name in steps if not (stays and name == shifts[0])]
        return InputChain(self.layer, steps, (*gone, *exclusive_inputs(self.graph, gone, self.frozen)), stays)

    def _run(self) -> None:
        port = 2 if self.type in TRANSPOSED_CONVOLUTIONS else 0
        edges = self.graph.in_edges(self.layer)
        if len(edges) <= port:
            return
        reader, (name, edge) = self.layer, edges[port]
        outputs = self._body(name).outputs
        self.channels = self._channel_count(
            outputs[edge.src_port or 0] if len(outputs) > (edge.src_port or 0) else None
        )
        while (following := self._taken(name, reader)) is not None:
            reader, name = name, following

    def _channel_count(self, spec: TensorSpec | None) -> int | None:
        shape = spec.shape if spec else None
        return None if not shape or len(shape) < 2 else shape[1 if self.first else -1]

    def _taken(self, name: str, reader: str) -> str | None:
        """Take an op into the chain and return what it reads; ``None`` where the chain ends."""
        kind = runtime_type(self._body(name).type)
        if kind not in _FOLLOWED or name in self.frozen or self._is_needed_elsewhere(name, reader):
            return None
        read = data_inputs(self.graph, name)
        if kind in _ENDS and len(read) > 1 and read[1] in self.frozen:
            self.steps.clear()
            return None
        if kind in _HANDS_ON:
            return read[0]
        if kind in RESHAPES:
            self.in_place = self.in_place and self._keeps_channels(name)
            return read[0]
        if kind in PADS:
            return self._through_pad(read)
        return self._step(name, kind, read)

    def _is_needed_elsewhere(self, name: str, reader: str) -> bool:
        readers = {dst for dst, _ in self.graph.out_edges(name)}
        return readers != {reader} or bool(self.graph.control_inputs(name))

    def _through_pad(self, read: Sequence[str]) -> str | None:
        """Zeros stay zeros when they are scaled; what is shifted behind them is not to be moved before them."""
        zeros = len(read) == 2 or not any(self._values(read[2]) or (1,))
        is_known = all(source in self.frozen for source in read[1:])
        if not (zeros and is_known and self.in_place) or any(map(self._shifts, self.steps)):
            return None
        self.padded = True
        return read[0]

    def _step(self, name: str, kind: str, read: Sequence[str]) -> str | None:
        changing = [port for port, source in enumerate(read) if source not in self.frozen]
        if len(changing) != 1 or not self._is_affine(self._body(name), kind, changing[0]):
            return None
        specs = input_specs(self.graph, name)
        image = specs[changing[0]]
        if not all(self._is_factor(spec, image) for port, spec in enumerate(specs) if port != changing[0]):
            return None
        self.steps.append(name)
        return read[changing[0]]

    def _is_affine(self, op: Op, kind: str, port: int) -> bool:
        if kind in BATCH_NORMS:
            return port == 0 and op.attrs.get("is_training", True) is False and self.in_place
        if kind in QUOTIENTS | {"BiasAdd"}:
            return port == 0
        return kind in SCALINGS | _SHIFTS

    def _is_factor(self, factor: TensorSpec | None, image: TensorSpec | None) -> bool:
        """Tell whether an operand holds one number, or one for each channel where the channels are in their place."""
        if factor is None or factor.shape is None or not factor.dtype.startswith(("float", "bfloat")):
            return False
        if factor.elements == 1:
            return not factor.shape or (
                image is not None and image.shape is not None and len(factor.shape) <= len(image.shape)
            )
        if not self.in_place or image is None or not image.shape or len(factor.shape) > len(image.shape):
            return False
        rank = len(image.shape)
        axis = (1 if self.first else rank - 1) - (rank - len(factor.shape))
        alone = all(size == 1 for place, size in enumerate(factor.shape) if place != axis)
        return axis >= 0 and alone and factor.shape[axis] == self.channels == image.shape[1 if self.first else -1]

    def _keeps_channels(self, name: str) -> bool:
        outputs = self._body(name).outputs
        before, after = input_specs(self.graph, name)[0], outputs[0] if outputs else None
        known = before is not None and after is not None and before.shape and after.shape
        if not known or self.first or before is None or after is None or not before.shape or not after.shape:
            return False
        return min(len(before.shape), len(after.shape)) >= 2 and before.shape[-1] == after.shape[-1] == self.channels

    # -- shifts ---------------------------------------------------------------------------------------------------

    def _shifts(self, name: str) -> bool:
        """Tell whether a step adds something, other than zeros for all we know."""
        kind = runtime_type(self._body(name).type)
        if kind not in _SHIFTS | BATCH_NORMS:
            return False
        values = self._factors(name)
        return kind in BATCH_NORMS or values is None or any(values)

    def _factors(self, name: str) -> tuple[float, ...] | None:
        """Return the numbers that a sum adds, ``None`` where they are not known."""
        operands = [source for source in data_inputs(self.graph, name) if source in self.frozen]
        return self._values(operands[0]) if len(operands) == 1 else None

    def _values(self, name: str) -> tuple[float, ...] | None:
        constant = self._body(name).constant
        return None if constant is None else constant.values

    def _needs_a_bias(self, shifts: Sequence[str]) -> bool:
        """Tell whether a shift may have to stay, since it is all there is and no small one before a bias."""
        if len(self.steps) > 1:
            return False
        values = self._factors(shifts[0])
        is_small = values is not None and max(map(abs, values), default=0.0) <= _LARGEST_SHIFT_IN_BIAS
        return not (is_small and self._has_bias())

    def _has_bias(self) -> bool:
        fused = self.op.attrs.get("fused_ops") or ()
        if isinstance(fused, (tuple, list)) and "BiasAdd" in fused:
            return True
        readers = data_consumers(self.graph, self.layer)
        return len(readers) == 1 and self._body(readers[0]).type == "BiasAdd"

    def _sees_zeros(self) -> bool:
        """Tell whether some results of the layer are made from fewer pixels than its window has."""
        if self.type in _MATMULS:
            return False
        weights = input_specs(self.graph, self.layer)[1:2]
        shape = weights[0].shape if weights and weights[0] else None
        is_point = shape is not None and all(size == 1 for size in shape[:-2])
        padding = self.op.attrs.get("padding")
        return self.type in TRANSPOSED_CONVOLUTIONS or not (padding == "VALID" or (padding == "SAME" and is_point))
