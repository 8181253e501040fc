"""``fold-affine``: per-channel scales and shifts behind a layer become part of its weights and one bias.

What is left, ``layer -> BiasAdd -> activation``, is what Grappler fuses into one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import CONSTANT_BYTES_LIMIT, Draft, named
from graphlens.tf.rewrite.identities import clear_identities
from graphlens.tf.rewrite.values import Values

# Layers -> axis of the weights (input 1) along which the output's channels lie; `None`: see `_scaled`.
_CHANNEL_AXIS: Mapping[str, int | None] = {
    "Conv2D": -1,
    "Conv3D": -1,
    "DepthwiseConv2dNative": None,
    "Conv2DBackpropInput": -2,
    "Conv3DBackpropInputV2": -2,
    "MatMul": None,
}
_SUMS = frozenset({"Add", "AddV2"})
_QUOTIENTS = frozenset({"RealDiv", "Div"})
_BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
# Ops that leave the last axis as it is, so that a scale of it may as well come before.
_PASSED = frozenset({"Identity", "StopGradient", "Squeeze", "Reshape"})
_CHANNELS_FIRST = frozenset({"NCHW", "NCDHW"})
_DEFAULT_EPSILON = 1e-4  # of FusedBatchNorm's definition
# Weights that have to be constants: oneDNN brings constant weights into its layout once, variable ones in every call,
# and picks slower kernels for them (MobileNetV2 folded into variables ran at 0.56 times its original speed, into
# constants at 1.59 times).  Without oneDNN it makes no difference.
_CONSTANT_WEIGHTS = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv3D"})


@dataclass(frozen=True)
class _Step:
    """An op that multiplies channels by ``scale`` and adds ``shift``."""

    name: str
    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class _Chain:
    """A layer and the affine steps behind it, first to last; ``filter`` are its weights as they are now."""

    base: str
    filter: np.ndarray
    channels: int
    steps: tuple[_Step, ...]

    @property
    def scale(self) -> np.ndarray:
        """The product of all scales, per channel."""
        return np.prod([step.scale for step in self.steps], axis=0)

    @property
    def shift(self) -> np.ndarray:
        """What is added in the end, per channel."""
        total = np.zeros(self.channels)
        for step in self.steps:
            total = total * step.scale + step.shift
        return total

    @property
    def pays(self) -> bool:
        """Whether folding leaves less than there is: a lone bias is as good as it gets."""
        return len(self.steps) > 1 or bool(np.any(self.steps[0].scale != 1))


def fold_affine(draft: Draft, edit: Mapping[str, Any]) -> None:
    """Fold the chains that ``edit`` names, or every one that there is."""
    values = Values(draft)
    wanted = named(edit)
    found = [_named_chain(draft, values, wanted)] if wanted else [one for one in _chains(draft, values) if one.pays]
    if not found:
        raise RewriteError("no layer is followed by a scale and shift per channel whose numbers never change")
    for chain in found:
        _fold(draft, chain, edit)
    clear_identities(draft)  # or the activation behind would not be fused all the same


def _chains(draft: Draft, values: Values) -> Iterator[_Chain]:
    for name in draft:
        if draft.node(name).op in _CHANNEL_AXIS and values.is_frozen(nodes.data_inputs(draft.node(name))[1]):
            chain = _chain(draft, values, name)
            if chain is not None:
                yield chain


def _named_chain(draft: Draft, values: Values, wanted: Sequence[str]) -> _Chain:
    bases = [name for name in wanted if name in draft and draft.node(name).op in _CHANNEL_AXIS]
    if len(bases) != 1:
        kinds = ", ".join(sorted(_CHANNEL_AXIS))
        raise RewriteError(f"{len(bases)} of the ops named are layers ({kinds}); a chain starts at exactly one")
    base = bases[0]
    if not values.is_frozen(nodes.data_inputs(draft.node(base))[1]):
        raise RewriteError(f"the weights of '{base}' are computed in the call, or may be written")
    chain = _chain(draft, values, base)
    folded = {step.name for step in chain.steps} if chain else set()
    missing = [name for name in wanted if name in draft and name not in folded and _is_step(draft, values, name)]
    if chain is None or missing:
        raise RewriteError(_obstacle(draft, values, base, [step.name for step in chain.steps] if chain else []))
    return chain


def _is_step(draft: Draft, values: Values, name: str) -> bool:
    """Whether a named op is on the path of the data (an edit also names what computes the factors, and activations)."""
    node = draft.node(name)
    kinds = {"Mul", "Sub", "BiasAdd", *_SUMS, *_QUOTIENTS, *_BATCH_NORMS}
    return node.op in kinds and not values.is_frozen(nodes.tensor(name))


def _obstacle(draft: Draft, values: Values, base: str, folded: Sequence[str]) -> str:
    last = folded[-1] if folded else base
    while draft.only_reader(last) is not None and draft.node(draft.only_reader(last) or "").op in _PASSED:
        last = draft.only_reader(last) or ""
    if draft.is_fetched(last):
        return f"the function returns '{last}', which folding would change"
    readers = draft.readers(last)
    if len(readers) != 1:
        return f"{len(readers)} ops read '{last}' ({', '.join(readers[:3])}), and folding would change it for all"
    node = draft.node(readers[0])
    if node.op in _BATCH_NORMS and nodes.flag(node, "is_training"):
        return f"'{node.name}' computes its statistics from the batch (is_training=True)"
    dynamic = [ref for ref in nodes.data_inputs(node) if nodes.source(ref) != last and not values.is_frozen(ref)]
    if dynamic:
        return f"'{node.name}' scales or shifts by '{nodes.source(dynamic[0])}', which is computed in the call"
    return f"'{node.name}' ({node.op}) behind '{last}' is no scale or shift per channel"


# -- reading a chain ------------------------------------------------------------------------------------------------


def _chain(draft: Draft, values: Values, base: str) -> _Chain | None:
    """Return the affine ops behind a layer, or ``None`` when there are none."""
    node = draft.node(base)
    weights = values.of([nodes.data_inputs(node)[1]])[0]
    channels = _channels(node, weights)
    steps: list[_Step] = []
    last, reader = base, draft.only_reader(base)
    while reader is not None:
        step = _step(draft, values, reader, last, node, channels)
        if step is not None:
            steps.append(step)
        elif not _passes(draft, reader, node, channels):
            break
        last, reader = reader, draft.only_reader(reader)
    return _Chain(base, weights, channels, tuple(steps)) if steps else None


def _channels(node: Any, weights: np.ndarray) -> int:
    if node.op == "DepthwiseConv2dNative":
        return int(weights.shape[-1] * weights.shape[-2])
    if node.op == "MatMul":
        return int(weights.shape[0 if nodes.flag(node, "transpose_b") else 1])
    return int(weights.shape[_CHANNEL_AXIS[node.op] or 0])


def _channels_first(base: Any) -> bool:
    return nodes.text(base, "data_format", "NHWC") in _CHANNELS_FIRST


def _passes(draft: Draft, name: str, base: Any, channels: int) -> bool:
    """Whether an op hands on the channels in the last axis, so that factors behind it may go before it."""
    node = draft.node(name)
    if node.op in {"Identity", "StopGradient"}:
        return True
    if node.op not in _PASSED or _channels_first(base):
        return False
    before, after = draft.shape(nodes.data_inputs(node)[0]), draft.shape(nodes.tensor(name))
    known = before.rank is not None and after.rank is not None and after.rank >= 2
    return known and before[-1] == channels and after[-1] == channels


def _step(draft: Draft, values: Values, name: str, last: str, base: Any, channels: int) -> _Step | None:
    """Return ``name`` as an affine step of the tensor that ``last`` gives, or ``None`` when it is none."""
    node = draft.node(name)
    refs = nodes.data_inputs(node)
    mine = [index for index, ref in enumerate(refs) if ref == nodes.tensor(last)]
    others = [ref for index, ref in enumerate(refs) if index not in mine]
    if len(mine) != 1 or not others or not all(values.is_frozen(ref) for ref in others):
        return None
    if node.op in _BATCH_NORMS:
        return _batch_norm(draft, node, values.of(others), base, channels) if mine == [0] else None
    if node.op == "BiasAdd" and mine == [0]:
        same = (nodes.text(node, "data_format", "NHWC") in _CHANNELS_FIRST) == _channels_first(base)
        return _Step(name, np.ones(channels), values.of(others)[0].astype(np.float64)) if same else None
    if len(others) != 1:
        return None
    rank = draft.shape(nodes.tensor(last)).rank or draft.shape(nodes.tensor(base.name)).rank or _rank(base)
    factor = _per_channel(values.of(others)[0], channels, rank, _channels_first(base))
    return None if factor is None else _arithmetic(node, factor, mine[0])


def _arithmetic(node: Any, operand: np.ndarray, position: int) -> _Step | None:
    one, zero = np.ones_like(operand), np.zeros_like(operand)
    if node.op == "Mul":
        return _Step(node.name, operand, zero)
    if node.op in _SUMS:
        return _Step(node.name, one, operand)
    if node.op == "Sub":
        return _Step(node.name, one, -operand) if position == 0 else _Step(node.name, -one, operand)
    if node.op in _QUOTIENTS and position == 0 and np.all(operand != 0):
        return _Step(node.name, 1 / operand, zero)
    return None


def _batch_norm(draft: Draft, node: Any, operands: Sequence[np.ndarray], base: Any, channels: int) -> _Step | None:
    trains = "is_training" not in node.attr or node.attr["is_training"].b
    same_format = (nodes.text(node, "data_format", "NHWC") in _CHANNELS_FIRST) == _channels_first(base)
    others_read = any(draft.reads(nodes.tensor(node.name, index)) for index in range(1, 6))
    if trains or not same_format or others_read or any(operand.shape != (channels,) for operand in operands):
        return None
    gamma, beta, mean, variance = (operand.astype(np.float64) for operand in operands)
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else _DEFAULT_EPSILON
    scale = gamma / np.sqrt(variance + epsilon)
    return _Step(node.name, scale, beta - mean * scale)


def _rank(base: Any) -> int:
    return {"MatMul": 2, "Conv3D": 5, "Conv3DBackpropInputV2": 5}.get(base.op, 4)


def _per_channel(operand: np.ndarray, channels: int, rank: int, channels_first: bool) -> np.ndarray | None:
    """Return an operand as one number per channel, ``None`` when it differs along another axis or adds one."""
    if operand.dtype.kind not in "f" and operand.dtype.name != "bfloat16":
        return None
    full = operand.astype(np.float64)
    if full.ndim > rank:
        return None
    full = full.reshape((1,) * (rank - full.ndim) + full.shape)
    axis = 1 if channels_first else rank - 1
    wide = [index for index, size in enumerate(full.shape) if size != 1 and index != axis]
    if wide or full.shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(full.reshape(-1), (channels,)).copy()


# -- folding --------------------------------------------------------------------------------------------------------


def _fold(draft: Draft, chain: _Chain, edit: Mapping[str, Any]) -> None:
    base = draft.node(chain.base)
    filter_ref = nodes.data_inputs(base)[1]
    variable_name = _variable_name(draft, filter_ref, chain.base)
    if np.any(chain.scale != 1):
        scaled = _scaled(base, chain.filter, chain.scale).astype(chain.filter.dtype)
        draft.set_input(chain.base, 1, _stored(draft, base, scaled, variable_name, edit))
    *inner, last = chain.steps
    for step in inner:
        draft.bypass(step.name)
    _put_bias(draft, chain, last.name, f"{variable_name.rpartition('/')[0] or chain.base}/folded_bias")


def _stored(draft: Draft, base: Any, weights: np.ndarray, variable_name: str, edit: Mapping[str, Any]) -> str:
    """Keep the new weights: as constants where the kernels want that and the graph has room, else in a variable."""
    name = f"{base.name}/folded_weights"
    wanted = edit.get("weights", "constant" if base.op in _CONSTANT_WEIGHTS else "variable")
    if wanted == "constant" and draft.constant_bytes() + weights.nbytes <= CONSTANT_BYTES_LIMIT:
        return draft.constant(name, weights, base)
    return draft.weight(name, weights, variable_name, base)


def _put_bias(draft: Draft, chain: _Chain, name: str, variable_name: str) -> None:
    """Put one bias in place of the chain's last op, whose name stays, so that reports can still say what it was."""
    base, node = draft.node(chain.base), draft.node(name)
    channel_of = [ref for ref in nodes.data_inputs(node) if _leads_to(draft, ref, chain.base)]
    bias = draft.weight(f"{chain.base}/folded_bias", chain.shift.astype(chain.filter.dtype), variable_name, base)
    layout = "NCHW" if _channels_first(base) else "NHWC"
    inputs = [channel_of[0], bias, *nodes.control_inputs(node)]
    draft.add(nodes.make("BiasAdd", name, inputs, node, T=draft.dtype(bias), data_format=layout))


def _leads_to(draft: Draft, ref: str, base: str) -> bool:
    name = nodes.source(ref)
    while name != base:
        node = draft.node(name)
        if node.op not in _PASSED:
            return False
        name = nodes.source(nodes.data_inputs(node)[0])
    return True


def _scaled(base: Any, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the weights of a layer whose output is to be multiplied by ``scale``, in double precision."""
    full = weights.astype(np.float64)
    if base.op == "DepthwiseConv2dNative":
        return full * scale.reshape(weights.shape[-2:])
    if base.op == "MatMul":
        return full * (scale[:, None] if nodes.flag(base, "transpose_b") else scale)
    axis = _CHANNEL_AXIS[base.op]
    return full * (scale[:, None] if axis == -2 else scale)


def _variable_name(draft: Draft, filter_ref: str, base: str) -> str:
    """Name the folded weights after the variable that they were made from."""
    node = draft.producer(filter_ref)
    inputs = nodes.data_inputs(node)
    binding = draft.bindings.get(nodes.source(inputs[0])) if inputs else None
    return f"{binding.name}_folded" if binding is not None else f"{base}/folded_weights"
