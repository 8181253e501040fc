"""Per-channel scales and shifts behind a layer that can be folded into its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import constant_ops, frozen_ops, judged_graph, origins, traced_graph
from graphlens.facts.patterns.exclusive import exclusive_inputs
from graphlens.ir.graph import data_consumers, data_inputs, input_specs
from graphlens.ir.layouts import CHANNELS_FIRST
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import (
    BATCH_NORMS_AS_RUN,
    QUOTIENTS,
    SCALINGS,
    SUMS,
    TRANSPOSED_CONVOLUTIONS,
    runtime_type,
)
from graphlens.ir.table import Table

_DEPTHWISE: Final = frozenset({"DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative"})
_MATMULS: Final = frozenset({"MatMul", "_FusedMatMul"})

# What a fused layer may hold and still be linear in its weights: after an activation, scaling the weights is wrong.
_LINEAR_FUSED_OPS: Final = frozenset({"BiasAdd", "FusedBatchNorm"})

_SHIFTS: Final = SUMS | {"Sub"}
_SUMS: Final = SUMS | {"AddN"}
_PLAIN: Final = frozenset({"Conv2D", "_FusedConv2D", "PadWithConv2D", "PadWithFusedConv2D", "Conv2DWithBias"})
# Layers whose weights a per-channel scale and shift can be folded into; the weights are always input 1.
_BASES: Final = _PLAIN | _DEPTHWISE | _MATMULS | TRANSPOSED_CONVOLUTIONS | {"Conv3D", "_FusedConv3D"}
# Activations that Grappler takes into a kernel behind its bias (TensorFlow 2.21 on CPU), and those that only kernels of
# oneDNN take.  Depthwise and 3-D convolutions take the former with oneDNN, and of the latter none.
_TAKEN: Final = frozenset({"Relu", "Relu6", "Elu", "LeakyRelu"})
_TAKEN_BY_ONEDNN: Final = frozenset({"_MklSwish", "_MklFusedMish"})


@dataclass(frozen=True, slots=True)
class AffineChain:
    """A layer followed by per-channel scales and shifts whose factors never change.

    Attributes
    ----------
    base
        The convolution or matrix product.
    steps
        The ops that scale or shift its result, in order.
    scale
        The first of them that scales: the normalization; what shifts before it is the layer's own bias.
    operands
        The producers of their unchanging operands.
    folded
        The ops that vanish when the chain is folded: its steps, and the per-channel ops that only feed them.  A bias
        before the first scale stays, as the bias that the folded layer needs.
    activation
        What follows the chain, where a folded layer's kernel takes it in.
    depthwise, has_bias, is_constant
        Whether the layer is depthwise, already adds a bias of its own, and depends on constants alone (no variable).
    """

    base: str
    steps: tuple[str, ...]
    scale: str
    operands: tuple[str, ...]
    folded: tuple[str, ...]
    activation: str | None
    depthwise: bool
    has_bias: bool
    is_constant: bool


@fact
def affine_chains(facts: Facts) -> tuple[AffineChain, ...]:
    """Return the chains of the judged graph that hold at least one scale, in topological order of their layers.

    A chain ends where a value is read by more than one op (or fetched), where an operand is not frozen or not one
    number per output channel, and before anything that is not a scale or a shift.  It passes through a sum with another
    branch when only shifts follow: Grappler's arithmetic stage moves the shift behind the sum.
    """
    graph = facts(judged_graph)
    walks = (
        _Walk(facts, name, _channel_count(graph, name, op), _channels_first(op))
        for name in graph.where(lambda kind: runtime_type(kind) in _BASES)
        if _is_linear(op := graph.op(name))
    )
    found = (walk.run() for walk in walks if _has_frozen_weights(facts, walk.base))
    return tuple(chain for chain in found if chain is not None)


def _is_linear(op: Op) -> bool:
    fused = op.attrs.get("fused_ops") or ()
    is_known = isinstance(fused, (tuple, list)) and set(map(str, fused)) <= _LINEAR_FUSED_OPS
    return is_known and not op.attrs.get("num_side_inputs")


def _has_frozen_weights(facts: Facts, name: str) -> bool:
    inputs = data_inputs(facts(judged_graph), name)
    frozen = facts(frozen_ops)
    return len(inputs) > 1 and inputs[1] in frozen and name not in frozen


def _channels_first(op: Op) -> bool:
    return op.attrs.get("data_format") in CHANNELS_FIRST


def _channel_count(graph: Table, name: str, op: Op) -> int | None:
    """Return the number of output channels of a layer, from its weights or else from its output."""
    weights = input_specs(graph, name)[1:2]
    shape = weights[0].shape if weights and weights[0] else None
    if shape and len(shape) > 1:
        return _channels_of_weights(runtime_type(op.type), op, shape)
    output = op.outputs[0].shape if op.outputs else None
    if not output or len(output) < 2:
        return None
    return output[1] if _channels_first(op) else output[-1]


def _channels_of_weights(op_type: str, op: Op, shape: tuple[int | None, ...]) -> int | None:
    if op_type in TRANSPOSED_CONVOLUTIONS:
        return shape[-2]
    if op_type in _DEPTHWISE:
        return None if shape[-2] is None or shape[-1] is None else shape[-2] * shape[-1]
    if op_type in _MATMULS and op.attrs.get("transpose_b"):
        return shape[-2]
    return shape[-1]


class _Walk:
    """One walk from a layer along its only consumers, collecting what can be folded into the layer."""

    def __init__(self, facts: Facts, base: str, channels: int | None, channels_first: bool) -> None:
        self.facts = facts
        self.graph = facts(judged_graph)
        self.base = base
        self.channels = channels
        self.channels_first = channels_first
        self.steps: list[str] = []
        self.operands: list[str] = []
        self.scale: str | None = None
        self.in_sum = False

    def run(self) -> AffineChain | None:
        current: str | None = self.base
        while current is not None:
            current = self._step(current)
        return self._chain(self.scale) if self.scale is not None else None

    def _chain(self, scale: str) -> AffineChain:
        op = self.graph.op(self.base)
        bias_types = [self.graph.op(step).type for step in self.steps]
        parts = (data_inputs(self.graph, self.base)[1], *self.operands)
        return AffineChain(
            self.base,
            tuple(self.steps),
            scale,
            tuple(dict.fromkeys(self.operands)),
            self._folded(scale),
            self._activation(op),
            runtime_type(op.type) in _DEPTHWISE,
            bool(op.attrs.get("fused_ops")) or op.type.endswith("WithBias") or bias_types[:1] == ["BiasAdd"],
            all(part in self.facts(constant_ops) for part in parts),
        )

    def _folded(self, scale: str) -> tuple[str, ...]:
        steps = self.steps[self.steps.index(scale) :]
        return (*steps, *exclusive_inputs(self.graph, steps, self.facts(frozen_ops)))

    def _activation(self, base: Op) -> str | None:
        readers = data_consumers(self.graph, self.steps[-1])
        if self.in_sum or len(readers) != 1:
            return None
        return readers[0] if _takes(base, self.graph.op(readers[0])) else None

    def _step(self, current: str) -> str | None:
        """Take the only consumer of ``current`` into the chain; return it, or ``None`` at the end of the chain."""
        edges = [(dst, edge) for dst, edge in self.graph.out_edges(current) if edge.kind != "control"]
        if len(edges) != 1:
            return None
        following, edge = edges[0]
        op = self.graph.op(following)
        if op.type == "Identity":
            return following
        if op.type in ("Squeeze", "Reshape"):
            return following if self._keeps_channels(current, following) else None
        if edge.src_port not in (0, None):
            return None
        others = [src for src, other in self.graph.in_edges(following) if src != current]
        return self._take(op, edge.dst_port, others)

    def _take(self, op: Op, port: int | None, others: list[str]) -> str | None:
        op_type = runtime_type(op.type)
        if op_type in BATCH_NORMS_AS_RUN and port == 0:
            return (
                self._add(op, others[:4], scale=True) if _is_inference_norm(op) and self._frozen(others[:4]) else None
            )
        if op_type == "BiasAdd" and port == 0:
            return self._add(op, others, scale=False) if self._frozen(others) else None
        if len(others) == 1 and self._is_factor(op, others[0]):
            is_divisor_or_minuend = op_type in QUOTIENTS | {"Sub"} and port != 0
            if op_type in SCALINGS | _SHIFTS and not is_divisor_or_minuend:
                return self._add(op, others, scale=op_type in SCALINGS)
        if op_type in _SUMS and not self._frozen(others):
            self.in_sum = True
            return op.name
        return None

    def _add(self, op: Op, operands: list[str], *, scale: bool) -> str | None:
        if scale and self.in_sum:
            return None  # the other branch of the sum would have to be scaled too
        self.steps.append(op.name)
        self.operands += operands
        if scale and self.scale is None:
            self.scale = op.name
        return op.name

    def _frozen(self, names: Iterable[str]) -> bool:
        names = list(names)
        return bool(names) and all(name in self.facts(frozen_ops) for name in names)

    def _is_factor(self, op: Op, operand: str) -> bool:
        """Tell whether ``operand`` is frozen and holds one number per output channel."""
        if operand not in self.facts(frozen_ops):
            return False
        spec = next(
            (
                spec
                for (src, _), spec in zip(self.graph.in_edges(op.name), input_specs(self.graph, op.name), strict=True)
                if src == operand
            ),
            None,
        )
        if spec is None or spec.shape is None:
            return _has_rsqrt(self.graph, operand, self.facts(frozen_ops))
        return self._is_per_channel(spec)

    def _is_per_channel(self, spec: TensorSpec) -> bool:
        shape = spec.shape or ()
        axis = self._channel_position(len(shape))
        if axis is None or any(size != 1 for position, size in enumerate(shape) if position != axis):
            return False
        # A single number is a scaling of the whole layer, no normalization of its channels.
        return shape[axis] == self.channels if self.channels is not None else shape[axis] != 1

    def _channel_position(self, rank: int) -> int | None:
        """Return where the channels are in an operand of this rank that is broadcast to the layer's output."""
        if not self.channels_first:
            return rank - 1 if rank else None
        output = self.graph.op(self.base).outputs
        full = len(output[0].shape) if output and output[0].shape else 4
        position = rank - (full - 1)
        return position if position >= 0 else None

    def _keeps_channels(self, current: str, following: str) -> bool:
        """Tell whether a reshape leaves the channels where they are: as the last axis."""
        if self.channels_first:
            return False
        shapes = [outputs[0].shape for name in (current, following) if (outputs := self.graph.op(name).outputs)]
        return len(shapes) == 2 and all(shapes) and shapes[0][-1:] == shapes[1][-1:] != (None,)  # type: ignore[index]


def _takes(base: Op, activation: Op) -> bool:
    """Tell whether the kernel of a layer computes an activation as well."""
    by_onednn, base_type = base.type.startswith("_Mkl"), runtime_type(base.type)
    if activation.type in _TAKEN_BY_ONEDNN:
        return by_onednn and base_type in _PLAIN
    if activation.type not in _TAKEN or base_type in TRANSPOSED_CONVOLUTIONS:
        return False
    return by_onednn or base_type in _PLAIN | _MATMULS


def _is_inference_norm(op: Op) -> bool:
    # TensorFlow's default is training; exporters leave attributes out that have their default value.
    return op.attrs.get("is_training", True) is False and not op.attrs.get("num_side_inputs")


def _has_rsqrt(graph: Table, name: str, frozen: Collection[str]) -> bool:
    """Tell whether a frozen value is computed with an inverse square root: the scale of a batch normalization."""
    pending, seen = [name], {name}
    while pending:
        current = pending.pop()
        if graph.op(current).type == "Rsqrt":
            return True
        fresh = [src for src in data_inputs(graph, current) if src in frozen and src not in seen]
        seen.update(fresh)
        pending += fresh
    return False


def is_normalization(facts: Facts, chain: AffineChain) -> bool:
    """Tell whether a chain's scale is that of a batch normalization, judged by the graph as written where known."""
    graph = facts(judged_graph)
    if any(runtime_type(graph.op(step).type) in BATCH_NORMS_AS_RUN for step in chain.steps):
        return True
    frozen = facts(frozen_ops)
    if any(_has_rsqrt(graph, operand, frozen) for operand in chain.operands):
        return True
    sources = facts(origins)
    written = [origin for name in (*chain.steps, *chain.operands) for origin in sources.get(name, ())]
    traced = facts(traced_graph)
    return traced is not None and any(
        traced.op(src).type == "Rsqrt" for name in written for src in (name, *data_inputs(traced, name))
    )
