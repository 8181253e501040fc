"""Find the per-channel scales and shifts behind a layer, as numbers in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphlens.ir.layouts import CHANNELS_FIRST
from graphlens.ir.ops import BATCH_NORMS, QUOTIENTS, SUMS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft
from graphlens.tf.rewrite.values import Values

# Layers -> rank of their output.  Their weights are input 1.
LAYERS: Mapping[str, int] = {
    "Conv2D": 4,
    "Conv3D": 5,
    "DepthwiseConv2dNative": 4,
    "Conv2DBackpropInput": 4,
    "Conv3DBackpropInputV2": 5,
    "MatMul": 2,
}
_TRANSPOSED = frozenset({"Conv2DBackpropInput", "Conv3DBackpropInputV2"})
AFFINE = frozenset({"Mul", "Sub", "BiasAdd", *SUMS, *QUOTIENTS, *BATCH_NORMS})
# Ops that may leave the last axis as it is, so that a scale of it may as well come before.
PASSED = frozenset({"Identity", "StopGradient", "Squeeze", "Reshape"})
_DEFAULT_EPSILON = 1e-4  # of FusedBatchNorm's definition


@dataclass(frozen=True)
class Channels:
    """How many channels a tensor has, and whether they come before its other axes."""

    count: int
    first: bool


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product whose weights never change."""

    name: str
    op: str
    weights: np.ndarray
    channels: int
    channels_first: bool
    transposed: bool  # whether the output's channels are the weights' last axis but one

    @property
    def results(self) -> Channels:
        """The channels of the layer's output."""
        return Channels(self.channels, self.channels_first)

    def scaled_weights(self, scale: np.ndarray) -> np.ndarray:
        """Return the weights that give the output times ``scale``, in the weights' type."""
        if self.op == "DepthwiseConv2dNative":
            factors = scale.reshape(self.weights.shape[-2:])
        else:
            factors = scale[:, None] if self.transposed else scale
        scaled: np.ndarray = np.multiply(self.weights.astype(np.float64), factors).astype(self.weights.dtype)
        return scaled


@dataclass(frozen=True)
class Step:
    """An op that multiplies channels by ``scale`` and then adds ``shift``."""

    name: str
    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Chain:
    """A layer and the affine steps behind it, first to last."""

    layer: Layer
    steps: tuple[Step, ...]

    @property
    def scale(self) -> np.ndarray:
        """The product of all scales, per channel."""
        return combined(self.steps, self.layer.channels)[0]

    @property
    def shift(self) -> np.ndarray:
        """What is added in the end, per channel."""
        return combined(self.steps, self.layer.channels)[1]

    @property
    def pays(self) -> bool:
        """Whether folding leaves less than there is: a lone bias is as good as it gets."""
        return len(self.steps) > 1 or bool(np.any(self.steps[0].scale != 1))


def combined(steps: Sequence[Step], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the one scale and the shift after it, per channel, that do what ``steps`` do one after the other."""
    scale, shift = np.ones(channels), np.zeros(channels)
    for step in steps:
        scale, shift = scale * step.scale, shift * step.scale + step.shift
    return scale, shift


def chains(draft: Draft, values: Values) -> Iterator[Chain]:
    """Yield every layer that has affine steps behind it."""
    for name in draft:
        if draft.node(name).op in LAYERS and not why_not_a_layer(draft, values, name):
            chain = chain_of(draft, values, name)
            if chain is not None:
                yield chain


def why_not_a_layer(draft: Draft, values: Values, name: str) -> str | None:
    """Return why nothing can be folded into the convolution or matrix product ``name``, if nothing can."""
    node = draft.node(name)
    if not values.is_frozen(nodes.data_inputs(node)[1]):
        return f"the weights of '{name}' are computed in the call, or may be written"
    if not (dtype := nodes.dtype_of(node)).is_floating:
        return f"'{name}' computes in {dtype.name}, and factors are folded as real numbers"
    if node.op == "DepthwiseConv2dNative" and nodes.text(node, "padding") == "EXPLICIT":
        # TensorFlow 2.21 with oneDNN does not survive a bias fused into it.
        return f"'{name}' has explicit padding, with which TensorFlow fuses no bias without failing"
    return None


def chain_of(draft: Draft, values: Values, name: str) -> Chain | None:
    """Return the affine steps behind the layer ``name``, whose weights are frozen; ``None`` when there are none."""
    layer = layer_of(draft.node(name), values)
    steps: list[Step] = []
    last, reader = name, draft.only_reader(name)
    while reader is not None:
        rank = draft.shape(nodes.tensor(last)).rank or LAYERS[layer.op]
        step = step_of(draft, values, layer.results, reader, nodes.tensor(last), rank=rank)
        if step is not None:
            steps.append(step)
        elif not _passes(draft, layer, reader):
            break
        last, reader = reader, draft.only_reader(reader)
    return Chain(layer, tuple(steps)) if steps else None


def layer_of(node: Any, values: Values) -> Layer:
    """Read a layer whose weights are frozen."""
    weights = values.of([nodes.data_inputs(node)[1]])[0]
    transposed = node.op in _TRANSPOSED or nodes.flag(node, "transpose_b")
    channels = int(weights.shape[-2 if transposed else -1])
    if node.op == "DepthwiseConv2dNative":
        channels *= int(weights.shape[-2])
    return Layer(node.name, node.op, weights, channels, _is_channels_first(node), transposed)


def _is_channels_first(node: Any) -> bool:
    return nodes.text(node, "data_format", "NHWC") in CHANNELS_FIRST


def _passes(draft: Draft, layer: Layer, name: str) -> bool:
    """Whether an op hands on the channels in the last axis, so that factors behind it may go before it."""
    node = draft.node(name)
    if node.op in {"Identity", "StopGradient"}:
        return True
    if node.op not in PASSED or layer.channels_first:
        return False
    before, after = draft.shape(nodes.data_inputs(node)[0]), draft.shape(nodes.tensor(name))
    known = before.rank is not None and after.rank is not None and after.rank >= 2
    return bool(known and before[-1] == layer.channels and after[-1] == layer.channels)


def step_of(draft: Draft, values: Values, channels: Channels, name: str, ref: str, *, rank: int) -> Step | None:
    """Return ``name`` as an affine step of the tensor ``ref`` of so many axes, or ``None`` when it is none."""
    node = draft.node(name)
    refs = nodes.data_inputs(node)
    mine = [index for index, other in enumerate(refs) if other == ref]
    others = [other for index, other in enumerate(refs) if index not in mine]
    if node.op not in AFFINE or len(mine) != 1 or not all(values.is_frozen(other) for other in others):
        return None
    if node.op in BATCH_NORMS or node.op == "BiasAdd":
        same_format = mine == [0] and _is_channels_first(node) == channels.first
        given = values.of(others) if same_format else []
        return _fused_step(draft, node, given, channels.count)
    factor = per_channel(values.of(others)[0], channels, rank)
    return None if factor is None else _arithmetic(node, factor, mine[0])


def _fused_step(draft: Draft, node: Any, operands: Sequence[np.ndarray], channels: int) -> Step | None:
    if not operands or any(operand.shape != (channels,) for operand in operands):
        return None
    numbers = [operand.astype(np.float64) for operand in operands]
    if node.op == "BiasAdd":
        return Step(node.name, np.ones(channels), numbers[0])
    trains = "is_training" not in node.attr or node.attr["is_training"].b
    if trains or any(draft.reads(nodes.tensor(node.name, index)) for index in range(1, 6)):
        return None
    gamma, beta, mean, variance = numbers
    scale = gamma / np.sqrt(variance + (node.attr["epsilon"].f if "epsilon" in node.attr else _DEFAULT_EPSILON))
    return Step(node.name, scale, beta - mean * scale)


def _arithmetic(node: Any, operand: np.ndarray, position: int) -> Step | None:
    """Return an arithmetic op, whose input ``position`` is the layer's result, as a step."""
    one, zero = np.ones_like(operand), np.zeros_like(operand)
    if node.op == "Mul":
        return Step(node.name, operand, zero)
    if node.op in SUMS:
        return Step(node.name, one, operand)
    if node.op == "Sub":
        return Step(node.name, one, -operand) if position == 0 else Step(node.name, -one, operand)
    if node.op in QUOTIENTS and position == 0 and np.all(operand != 0):
        return Step(node.name, 1 / operand, zero)
    return None


def per_channel(operand: np.ndarray, channels: Channels, rank: int) -> np.ndarray | None:
    """Return an operand as one number per channel, ``None`` when it differs along another axis or adds one."""
    is_float = operand.dtype.kind == "f" or operand.dtype.name == "bfloat16"
    if not is_float or operand.ndim > rank:
        return None
    full = operand.astype(np.float64).reshape((1,) * (rank - operand.ndim) + operand.shape)
    axis = 1 if channels.first else rank - 1
    if any(full.shape[index] != 1 for index in range(rank) if index != axis):
        return None
    if full.shape[axis] not in (1, channels.count):
        return None
    return np.array(np.broadcast_to(full.reshape(-1), (channels.count,)))


# -- why not --------------------------------------------------------------------------------------------------------


def obstacle(draft: Draft, values: Values, chain: Chain | None, base: str) -> str:
    """Return what ends the chain behind a layer."""
    last = chain.steps[-1].name if chain else base
    while (reader := draft.only_reader(last)) is not None and draft.node(reader).op in PASSED:
        last = reader
    if draft.is_fetched(last):
        return f"the function returns '{last}', which folding would change"
    readers = draft.readers(last)
    if len(readers) != 1:
        return f"{len(readers)} ops read '{last}' ({', '.join(readers[:3])}), and folding would change it for all"
    node = draft.node(readers[0])
    if node.op in BATCH_NORMS and ("is_training" not in node.attr or node.attr["is_training"].b):
        return f"'{node.name}' computes its statistics from the batch (is_training=True)"
    changing = [ref for ref in nodes.data_inputs(node) if nodes.source(ref) != last and not values.is_frozen(ref)]
    if changing:
        what = nodes.source(changing[0])
        return f"'{node.name}' scales or shifts by '{what}', which is computed in the call or may be written"
    return f"'{node.name}' ({node.op}) behind '{last}' is no scale or shift per channel"
