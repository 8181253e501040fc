"""Find the per-channel scales and shifts in front of a layer, and what they do to its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphlens.ir.ops import PADS, RESHAPES
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.chains import AFFINE, LAYERS, Channels, Layer, Step, combined, layer_of, step_of
from graphlens.tf.rewrite.draft import Draft
from graphlens.tf.rewrite.values import Values

_BACKWARDS = frozenset({"Conv2DBackpropInput", "Conv3DBackpropInputV2"})  # transposed convolutions
_HANDS_ON = frozenset({"Identity", "StopGradient"})


@dataclass(frozen=True)
class Front:
    """A layer and the affine steps in front of it, first to last.

    Attributes
    ----------
    channels
        Of the layer's input.
    padded
        Whether zeros are put around what the steps give, before the layer or by it.
    end
        Why there are no more steps.
    """

    layer: Layer
    channels: Channels
    steps: tuple[Step, ...]
    padded: bool
    end: str

    @property
    def scale(self) -> np.ndarray:
        """The product of all scales, per channel of the input."""
        return combined(self.steps, self.channels.count)[0]

    @property
    def shift(self) -> np.ndarray:
        """What is added in the end, per channel of the input."""
        return combined(self.steps, self.channels.count)[1]

    def scaled_weights(self) -> np.ndarray:
        """Return the weights that give from the input what they gave from the scaled one, in double precision."""
        product: np.ndarray = self.layer.weights.astype(np.float64) * self._along_the_input(self.scale)
        return product

    def bias(self) -> np.ndarray:
        """Return what the shift adds to the layer's result, per channel, where the layer sees no zeros."""
        weighted = self.layer.weights.astype(np.float64) * self._along_the_input(self.shift)
        if self.layer.op == "MatMul":
            total = weighted.sum(axis=1 if self.layer.transposed else 0)
        elif self.layer.op == "DepthwiseConv2dNative":
            total = weighted.sum(axis=(0, 1)).reshape(-1)
        else:
            total = weighted.sum(axis=tuple(range(weighted.ndim - 1)))
        return np.asarray(total)

    def _along_the_input(self, factors: np.ndarray) -> np.ndarray:
        """Return one factor per input channel in a form that multiplies the weights' last two axes.

        In a grouped convolution the weights of an output channel start at the first input channel of its group.
        """
        if self.layer.op == "DepthwiseConv2dNative":
            return factors[:, None]
        if self.layer.transposed:
            return factors
        inputs, outputs = self.layer.weights.shape[-2:]
        groups = factors.size // inputs
        return np.asarray(np.repeat(factors.reshape(groups, inputs), outputs // groups, axis=0).T)


def fronts(draft: Draft, values: Values) -> Iterator[Front]:
    """Yield every layer that has affine steps in front of it."""
    for name in draft:
        if draft.node(name).op in LAYERS and not why_not_a_layer(draft, values, name):
            front = front_of(draft, values, name)
            if front.steps:
                yield front


def why_not_a_layer(draft: Draft, values: Values, name: str) -> str | None:
    """Return why nothing can be folded into the weights of the convolution or matrix product ``name``, if so."""
    node = draft.node(name)
    if not values.is_frozen(nodes.data_inputs(node)[1]):
        return f"the weights of '{name}' are computed in the call, or may be written"
    if nodes.flag(node, "transpose_a"):
        return f"'{name}' turns its input over, so that the channels are its rows"
    layer = layer_of(node, values)
    channels, inputs = _channels(draft, layer).count, _inputs_of_weights(layer)
    outputs = layer.weights.shape[-1]
    if channels != inputs and (channels % inputs or outputs % (channels // inputs)):
        return f"'{name}' has weights for {inputs} channels, but {channels} come in"
    return None


def front_of(draft: Draft, values: Values, name: str) -> Front:
    """Return the affine steps in front of the layer ``name``, whose weights are frozen."""
    node = draft.node(name)
    layer = layer_of(node, values)
    walk = _Walk(draft, values, layer, _channels(draft, layer))
    walk.run(name, _image(node))
    return Front(layer, walk.channels, tuple(walk.steps), walk.padded or _sees_zeros(node, layer), walk.end)


def _image(node: Any) -> str:
    """Return the tensor that a layer reads besides its weights."""
    return nodes.data_inputs(node)[2 if node.op in _BACKWARDS else 0]


def _channels(draft: Draft, layer: Layer) -> Channels:
    shape = draft.shape(_image(draft.node(layer.name)))
    known = None if shape.rank is None else shape[1 if layer.channels_first else -1]
    return Channels(_inputs_of_weights(layer) if known is None else known, layer.channels_first)


def _inputs_of_weights(layer: Layer) -> int:
    return int(layer.weights.shape[-1 if layer.transposed else -2])


def _sees_zeros(node: Any, layer: Layer) -> bool:
    """Whether some results of a layer are made from fewer pixels than its window has."""
    if node.op == "MatMul":
        return False
    is_point = all(size == 1 for size in layer.weights.shape[:-2])
    padding = nodes.text(node, "padding")
    return node.op in _BACKWARDS or not (padding == "VALID" or (padding == "SAME" and is_point))


class _Walk:
    """One walk from a layer towards the inputs, along ops that nothing but the layer needs."""

    def __init__(self, draft: Draft, values: Values, layer: Layer, channels: Channels) -> None:
        self.draft, self.values, self.layer, self.channels = draft, values, layer, channels
        self.steps: list[Step] = []
        self.padded = False
        self.uniform = False  # from here on, channels are no longer in their place: only one number for all can pass
        self.end = ""

    def run(self, reader: str, ref: str) -> None:
        """Collect steps until something ends the chain, and say what."""
        while not self.end:
            name = nodes.source(ref)
            self.end = self._obstacle(name, ref, reader)
            if not self.end:
                reader, ref = name, self._take(name, ref)

    def _obstacle(self, name: str, ref: str, reader: str) -> str:
        """Return why the chain ends before the op ``name``, if what it is tells; empty if it may go on."""
        node = self.draft.node(name)
        if self.values.is_frozen(ref):
            return f"'{name}' never changes"
        if node.op in LAYERS and self.values.is_frozen(nodes.data_inputs(node)[1]):
            self.steps.clear()
            return f"'{name}' before it is a layer, whose own weights take what is behind it"
        if node.op not in AFFINE | _HANDS_ON | RESHAPES | PADS or nodes.port(ref):
            return f"'{name}' ({node.op}) in front of '{reader}' is no scale or shift"
        return self._other_need(name, reader)

    def _other_need(self, name: str, reader: str) -> str:
        """Return what else than ``reader`` needs the op ``name``, if anything does."""
        if self.draft.is_fetched(name):
            return f"the function returns '{name}', which folding would change"
        readers = self.draft.readers(name)
        if readers != [reader]:
            return f"{len(readers)} ops read '{name}' ({', '.join(readers[:3])}), and folding would change it for all"
        if name in self.draft.effects or nodes.control_inputs(self.draft.node(name)):
            return f"'{name}' takes part in the order of effects"
        return ""

    def _take(self, name: str, ref: str) -> str:
        """Take an op into the chain, and return what it reads; or say why it ends here."""
        node = self.draft.node(name)
        if node.op in _HANDS_ON:
            return nodes.data_inputs(node)[0]
        if node.op in RESHAPES:
            return self._through_reshape(node)
        if node.op in PADS:
            return self._through_pad(node)
        read = [other for other in nodes.data_inputs(node) if not self.values.is_frozen(other)]
        step = self._step(name, read[0]) if len(read) == 1 else None
        if step is None:
            self.end = f"'{name}' ({node.op}) scales or shifts by what is computed in the call, or not per channel"
            return ref
        self.steps.insert(0, step)
        return read[0]

    def _step(self, name: str, read: str) -> Step | None:
        shape = self.draft.shape(read)
        others = self.values.of([ref for ref in nodes.data_inputs(self.draft.node(name)) if ref != read])
        if any(self._grows(shape, other) for other in others):
            return None
        channels = Channels(self.channels.count, self.channels.first and not self.uniform)
        step = step_of(self.draft, self.values, channels, name, read, rank=shape.rank or LAYERS[self.layer.op])
        is_sound = step is not None and bool(np.all(np.isfinite(step.scale)) and np.all(step.scale != 0))
        return step if is_sound and step is not None and np.all(np.isfinite(step.shift)) else None

    def _grows(self, shape: Any, operand: np.ndarray) -> bool:
        """Whether an operand might make a tensor larger, or differs between channels that are out of place."""
        if operand.ndim == 0:
            return False
        if shape.rank is None or operand.ndim > shape.rank:
            return True
        axis = 1 if self.channels.first else -1
        return operand.size != 1 and (self.uniform or shape.rank < 2 or shape[axis] != self.channels.count)

    def _through_reshape(self, node: Any) -> str:
        read = nodes.data_inputs(node)[0]
        before, after = self.draft.shape(read), self.draft.shape(nodes.tensor(node.name))
        known = before.rank is not None and after.rank is not None and min(before.rank, after.rank) >= 2
        in_place = known and not self.channels.first and before[-1] == after[-1] == self.channels.count
        self.uniform = self.uniform or not in_place
        return read

    def _through_pad(self, node: Any) -> str:
        read, *others = nodes.data_inputs(node)
        if not all(self.values.is_frozen(other) for other in others):
            self.end = f"how much '{node.name}' pads is computed in the call"
            return read
        amounts, *filled = self.values.of(others)
        axis = 1 if self.channels.first else -1
        if any(np.any(value) for value in filled) or self.uniform or np.any(amounts[axis]):
            self.end = f"'{node.name}' pads with another number than 0, or pads the channels"
        elif any(np.any(step.shift) for step in self.steps):
            self.end = f"'{node.name}' puts zeros around the image, and what is behind it shifts these as well"
        self.padded = self.padded or (not self.end and bool(np.any(amounts)))
        return read
