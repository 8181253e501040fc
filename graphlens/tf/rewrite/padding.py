"""``fold-padding``: zeros around an image become the padding of the convolution that reads it, instead of a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.ir.edits import FoldPadding
from graphlens.ir.layouts import spatial_axes
from graphlens.ir.ops import CONVOLUTIONS, PADS
from graphlens.ir.padding import Axis, Form, form_of, pads_only
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

Zeros = np.ndarray  # integers [rank, 2]: how many before and after, along every axis


class _NoWay(Exception):
    """The padding has to stay; the message says why."""


@rewrite
def fold_padding(draft: Draft, edit: FoldPadding) -> None:
    """Fold the pads named, or every one that only convolutions without padding of their own read."""
    values = Values(draft)
    wanted = [_named_pad(draft, name) for name in named(edit)]
    pads = wanted or [name for name in draft if draft.node(name).op in PADS]
    refused = [reason for name in pads if (reason := _fold(draft, values, name))]
    if (wanted and refused) or len(refused) == len(pads):
        raise RewriteError(refused[0] if refused else "nothing is padded")


def _named_pad(draft: Draft, name: str) -> str:
    if draft.node(name).op not in PADS:
        raise RewriteError(f"'{name}' ({draft.node(name).op}) is no padding")
    return name


def _fold(draft: Draft, values: Values, name: str) -> str | None:
    """Fold one pad; returns why not, if so."""
    try:
        readers = _convolutions_behind(draft, name)
        zeros = _zeros(draft, values, name)
        forms = {reader: _form(draft, values, name, reader, zeros) for reader in readers}
    except _NoWay as reason:
        return str(reason)
    for reader, form in forms.items():
        _pad_inside(draft.node(reader), form, zeros)
    draft.bypass(name)
    return None


def _convolutions_behind(draft: Draft, name: str) -> Sequence[str]:
    readers = draft.readers(name)
    if not readers or any(draft.is_fetched(op) for op in (name, *_identities(draft, readers))):
        raise _NoWay(f"the function returns the padded tensor '{name}'")
    for reader in readers:
        node = draft.node(reader)
        if node.op not in CONVOLUTIONS:
            raise _NoWay(f"'{reader}' ({node.op}) needs the padded tensor '{name}' as well, and is no convolution")
        if [nodes.source(ref) == name for ref in node.input] != [True, *[False] * (len(node.input) - 1)]:
            raise _NoWay(f"'{reader}' does not read '{name}' as its image alone")
        if nodes.text(node, "padding") not in ("VALID", "EXPLICIT"):
            raise _NoWay(f"'{reader}' pads what it reads itself, to as much as it needs for '{name}'")
    return readers


def _identities(draft: Draft, names: Sequence[str]) -> Sequence[str]:
    return [name for name in names if draft.node(name).op == "Identity"]


def _zeros(draft: Draft, values: Values, name: str) -> Zeros:
    refs = nodes.data_inputs(draft.node(name))
    if not all(values.is_frozen(ref) for ref in refs[1:]):
        raise _NoWay(f"how much '{name}' pads is computed in the call")
    amounts, *filled = values.of(refs[1:])
    if any(np.any(value) for value in filled):
        raise _NoWay(f"'{name}' pads with another number than 0")
    return amounts


def _form(draft: Draft, values: Values, pad: str, reader: str, zeros: Zeros) -> Form:
    node = draft.node(reader)
    spatial = spatial_axes(nodes.text(node, "data_format", "NDHWC" if node.op == "Conv3D" else "NHWC"))
    if spatial is None or zeros.shape != (len(spatial) + 2, 2):
        raise _NoWay(f"'{reader}' reads its image in a layout that is not known here")
    if not pads_only(zeros.tolist(), spatial):
        raise _NoWay(f"'{pad}' pads the batch or the channels")
    window = _window(draft, values, nodes.data_inputs(node)[1], len(spatial))
    axes = _axes(node, zeros, _sizes(draft, pad, zeros), dict(zip(spatial, window, strict=True)))
    form = form_of(node.op, axes)
    if form is None and any(axis.size is None and axis.stride > 1 for axis in axes):
        raise _NoWay(f"the size of the image that '{pad}' pads is not known before the call, and SAME depends on it")
    if form is None:
        raise _NoWay(f"'{pad}' adds other zeros than '{reader}' ({node.op}) can add itself: not those of SAME")
    return form


def _axes(node: Any, zeros: Zeros, sizes: Sequence[int | None], window: Mapping[int, int]) -> Sequence[Axis]:
    strides, dilations = _integers(node, "strides"), _integers(node, "dilations") or [1] * len(zeros)
    total = (zeros + _own_zeros(node, len(zeros))).tolist()
    return [
        Axis(sizes[axis], total[axis][0], total[axis][1], length, strides[axis], dilations[axis])
        for axis, length in window.items()
    ]


def _sizes(draft: Draft, pad: str, zeros: Zeros) -> Sequence[int | None]:
    """Return the image's lengths without zeros; the pad's own shape is known whatever an edit has put before it."""
    padded = draft.shape(nodes.tensor(pad))
    if padded.rank != len(zeros):
        return [None] * len(zeros)
    pairs = zip(padded.as_list(), zeros.sum(axis=1).tolist(), strict=True)
    return [None if length is None else length - added for length, added in pairs]


def _window(draft: Draft, values: Values, weights: str, axes: int) -> Sequence[int]:
    """Return the window's lengths; weights that an edit has made have no traced shape, but a value."""
    shape = draft.shape(weights)
    if shape.rank is None and values.is_frozen(weights):
        return values.of([weights])[0].shape[:axes]
    lengths = [length for length in shape.as_list()[:axes] if length is not None] if shape.rank is not None else []
    if len(lengths) != axes:
        raise _NoWay(f"the size of the weights '{nodes.source(weights)}' is not known before the call")
    return lengths


def _integers(node: Any, key: str) -> list[int]:
    return list(node.attr[key].list.i) if key in node.attr else []


def _own_zeros(node: Any, rank: int) -> Zeros:
    explicit = _integers(node, "explicit_paddings") if nodes.text(node, "padding") == "EXPLICIT" else []
    return np.array(explicit or [0] * 2 * rank).reshape(rank, 2)


def _pad_inside(node: Any, form: Form, zeros: Zeros) -> None:
    total = zeros + _own_zeros(node, len(zeros))
    nodes.set_attribute(node, "padding", form)
    node.attr.pop("explicit_paddings", None)
    if form == "EXPLICIT":
        node.attr["explicit_paddings"].list.i.extend(int(amount) for amount in total.reshape(-1))
