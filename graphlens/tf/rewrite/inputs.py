"""``fold-input-affine``: per-channel scales and shifts in front of a layer become part of its weights.

The scale always does: zeros around an image stay zeros when they are scaled.  The shift becomes a bias where the layer
sees no such zeros; elsewhere ``x * a + b`` becomes ``x + b / a`` before weights scaled by ``a``, one op for many.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.ir.edits import FoldInputAffine
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.affine import bias_name, put_bias, stored, variable_name
from graphlens.tf.rewrite.chains import AFFINE, LAYERS, Step, chain_of, combined
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.fronts import Front, front_of, fronts, why_not_a_layer
from graphlens.tf.rewrite.values import Values

# What a normalization gives is about 1, and its shift says how many times larger the numbers before it are.  A sum of
# products over those numbers has their rounding errors: each factor of 10 costs a digit.  Images have shifts up to 2.2.
_LARGEST_SHIFT_IN_BIAS = 16.0
# The floats of one vector register.  With fewer channels than this, TensorFlow 2.21 adds a vector along the last axis
# float by float: 350 us for [1,224,224,3], and 130 us where the vector is repeated along the width.
_VECTOR_FLOATS = 16
_REPEATED_BYTES = 64 << 10


@rewrite
def fold_input_affine(draft: Draft, edit: FoldInputAffine) -> None:
    """Fold the chain before the layer that ``edit`` names, or every one whose folding leaves fewer ops.

    ``edit.weights`` keeps the new weights as ``constant`` or as ``variable``, whatever the kind of layer.
    """
    values = Values(draft)
    wanted = [name for name in named(edit) if name in draft and draft.node(name).op in LAYERS]
    if named(edit) and len(wanted) != 1:
        kinds = ", ".join(sorted(LAYERS))
        raise RewriteError(f"{len(wanted)} of the ops named are layers ({kinds}); a chain ends at exactly one")
    if wanted:
        _fold(draft, values, _named_front(draft, values, wanted[0]), edit)
        return
    folded = [front for front in fronts(draft, values) if _fold_if_it_pays(draft, values, front, edit)]
    if not folded:
        raise RewriteError("no scale and shift per channel in front of a layer would be fewer ops folded")


def _fold_if_it_pays(draft: Draft, values: Values, front: Front, edit: FoldInputAffine) -> bool:
    pays = _why_not(draft, values, front) is None
    if pays:
        _fold(draft, values, front, edit)
    return pays


def _named_front(draft: Draft, values: Values, name: str) -> Front:
    reason = why_not_a_layer(draft, values, name)
    if reason:
        raise RewriteError(reason)
    front = front_of(draft, values, name)
    reason = _why_not(draft, values, front) if front.steps else front.end
    if reason:
        raise RewriteError(reason)
    return front


def _why_not(draft: Draft, values: Values, front: Front) -> str | None:
    """Return why folding would not pay, or would cost digits."""
    name, rounded = front.layer.name, _weights(front)
    wrong_by = np.abs(rounded.astype(np.float64) - front.scaled_weights())
    if not np.all(np.isfinite(rounded)) or wrong_by.max() > _epsilon(rounded) * np.abs(rounded).max():
        return f"the scaled weights of '{name}' would be too small or too large for {rounded.dtype}"
    if not _shift_goes_into_bias(draft, values, front):
        if len(front.steps) == 1:
            return f"the shift before '{name}' has to stay, and it is a single op already ({front.end})"
        if not np.all(np.isfinite(_remaining_shift(front)[1].astype(rounded.dtype))):
            return f"the shift before '{name}', divided by its scale, is too large for {rounded.dtype}"
    return None


def _weights(front: Front) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded: np.ndarray = front.scaled_weights().astype(front.layer.weights.dtype)
    return rounded


def _epsilon(weights: np.ndarray) -> float:
    """Return the relative rounding error of a float type (bfloat16 keeps 8 bits, and numpy does not know it)."""
    return 2.0**-7 if weights.dtype.name == "bfloat16" else float(np.finfo(weights.dtype).eps)


def _fold(draft: Draft, values: Values, front: Front, edit: FoldInputAffine) -> None:
    layer = front.layer
    in_bias = _shift_goes_into_bias(draft, values, front)
    weights_name = variable_name(draft, layer.name)
    if in_bias and np.any(front.shift):
        _add_bias(draft, values, front, bias_name(weights_name, layer))
    draft.set_input(layer.name, 1, stored(draft, layer.name, _weights(front), weights_name, edit.weights))
    kept = None if in_bias else _remaining_shift(front)
    for step in front.steps:
        if kept is None or step is not kept[0]:
            draft.bypass(step.name, _read_by(draft, values, step.name))
    if kept is not None:
        _put_shift(draft, values, front, kept[0].name, kept[1])


# -- the shift ------------------------------------------------------------------------------------------------------


def _shift_goes_into_bias(draft: Draft, values: Values, front: Front) -> bool:
    """Whether no shift has to stay in front: there is none, or a bias behind the layer does the same."""
    if not np.any(front.shift):
        return True
    if front.padded or np.abs(front.shift).max() > _LARGEST_SHIFT_IN_BIAS:
        return False
    return _bias_behind(draft, values, front) is not None or (len(front.steps) > 1 and _bias_fits(draft, front))


def _bias_behind(draft: Draft, values: Values, front: Front) -> Step | None:
    """Return the op that adds a bias right behind the layer."""
    chain = chain_of(draft, values, front.layer.name)
    return chain.steps[0] if chain and np.all(chain.steps[0].scale == 1) else None


def _bias_fits(draft: Draft, front: Front) -> bool:
    """Whether a bias behind the layer keeps nothing from being fused or folded with it."""
    return not any(draft.node(reader).op in AFFINE for reader in draft.readers(front.layer.name))


def _add_bias(draft: Draft, values: Values, front: Front, called: str) -> None:
    behind, layer = _bias_behind(draft, values, front), front.layer
    if behind is not None:
        put_bias(draft, layer, behind.shift + front.bias(), behind.name, called)
        return
    result = nodes.tensor(layer.name)
    name = draft.unused(f"{layer.name}/folded_input")
    place = nodes.make("Identity", name, [result], draft.node(layer.name), T=draft.dtype(result))
    draft.redirect(result, nodes.tensor(name))
    draft.set_shape(draft.add(place), draft.shape(result))
    put_bias(draft, layer, front.bias(), name, called)


def _remaining_shift(front: Front) -> tuple[Step, np.ndarray]:
    """Return the last op that shifts, and what it adds when nothing before it scales any more."""
    last = max(index for index, step in enumerate(front.steps) if np.any(step.shift))
    scale, shift = combined(front.steps[: last + 1], front.channels.count)
    return front.steps[last], shift / scale


def _put_shift(draft: Draft, values: Values, front: Front, name: str, shift: np.ndarray) -> None:
    """Put one sum in place of a step, whose name stays."""
    node = draft.node(name)
    read = _read_by(draft, values, name)
    operand = _as_operand(front, draft.shape(read), shift).astype(front.layer.weights.dtype)
    constant = draft.constant(f"{name}/folded_shift", operand, node)
    draft.add(nodes.make("AddV2", name, [read, constant], node, T=draft.dtype(constant)))


def _as_operand(front: Front, shape: Any, shift: np.ndarray) -> np.ndarray:
    """Return a shift per channel in the shape in which a sum is quickest."""
    if np.all(shift == shift[0]):
        return np.asarray(shift[0])
    if front.channels.first:
        return shift.reshape(-1, *[1] * (shape.rank - 2))
    width = shape[-2] if shape.rank == 4 else None
    if width is not None and shift.size < _VECTOR_FLOATS and width * shift.itemsize * shift.size <= _REPEATED_BYTES:
        return np.tile(shift, (width, 1))
    return shift


def _read_by(draft: Draft, values: Values, name: str) -> str:
    return next(ref for ref in nodes.data_inputs(draft.node(name)) if not values.is_frozen(ref))
