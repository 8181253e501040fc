"""``sum-by-add-n``: add two branches by ``AddN``, the only sum that Grappler takes into a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.edits import SumByAddN
from graphlens.ir.ops import BINARY, PADS, PER_ELEMENT, SUMS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

# Ops whose result has as many rows (the first axis) as their first input.
_ROW_BY_ROW = PER_ELEMENT | frozenset(
    """Conv2D Conv3D DepthwiseConv2dNative MaxPool MaxPoolV2 AvgPool MaxPool3D AvgPool3D BiasAdd BiasAddV1
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN Softmax LogSoftmax ResizeBilinear ResizeNearestNeighbor
    PreventGradient""".split()
)
_REDUCTIONS = frozenset({"Mean", "Sum", "Max", "Min", "Prod"})
_PADS = PADS | {"MirrorPad"}
_ELEMENTWISE = BINARY | frozenset({"AddN", "FloorDiv", "FloorMod"})

# Where the rows of a tensor come from, and how many of them there are for each one there.
_Rows = tuple[str, Fraction]


@rewrite
def sum_by_add_n(draft: Draft, edit: SumByAddN) -> None:
    """Replace the sums named, or every one whose two terms surely have one shape."""
    wanted = named(edit)
    rows = _RowsOf(draft)
    if not wanted and not sum(_replaced(draft, rows, name) for name in draft if _is_sum(draft, name)):
        raise RewriteError("no sum of two tensors of one shape")
    for name in wanted:
        if not _is_sum(draft, name):
            raise RewriteError(f"'{name}' ({draft.node(name).op}) is no sum of two tensors of floating-point numbers")
        if not _replaced(draft, rows, name):
            raise RewriteError(f"the terms of '{name}' may differ in shape, and AddN does not broadcast")


def _is_sum(draft: Draft, name: str) -> bool:
    node = draft.node(name)
    return node.op in SUMS and bool(nodes.dtype_of(node).is_floating)


def _replaced(draft: Draft, rows: _RowsOf, name: str) -> bool:
    node = draft.node(name)
    terms = nodes.data_inputs(node)
    if not _have_one_shape(draft, rows, terms):
        return False
    draft.add(
        nodes.make("AddN", name, [*terms, *nodes.control_inputs(node)], node, N=len(terms), T=nodes.dtype_of(node))
    )
    return True


def _have_one_shape(draft: Draft, rows: _RowsOf, terms: Sequence[str]) -> bool:
    """Whether no length differs; an open batch is the same where both terms come from it row by row."""
    one, other = (draft.shape(term) for term in terms)
    if not one.rank or one.rank != other.rank:
        return False
    lengths = list(zip(one.as_list(), other.as_list(), strict=True))
    if any(first != second or first is None for first, second in lengths[1:]):
        return False
    first, second = lengths[0]
    return first == second and (first is not None or len({rows.of(term) for term in terms}) == 1)


class _RowsOf:
    """Where the rows of tensors come from, following the ops that neither add nor leave out any."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._values = Values(draft)
        self._known: dict[str, _Rows] = {}

    def of(self, ref: str) -> _Rows:
        """Return the tensor that the rows come from, and their share of its rows."""
        if ref not in self._known:
            end, share = ref, Fraction(1)
            while (step := self._one_back(end)) is not None:
                end, share = step[0], share * step[1]
            self._known[ref] = end, share
        return self._known[ref]

    def _one_back(self, ref: str) -> _Rows | None:
        node = self._draft.producer(ref)
        inputs = nodes.data_inputs(node)
        if node.op in _ELEMENTWISE:
            return self._operand(ref, inputs)
        if node.op == "Reshape":
            return self._before_reshape(inputs[0], ref)
        if node.op == "IdentityN":
            return inputs[nodes.port(ref)], Fraction(1)
        return (inputs[0], Fraction(1)) if nodes.port(ref) == 0 and self._keeps_rows(node) else None

    def _keeps_rows(self, node: Any) -> bool:
        if node.op == "MatMul":
            return not nodes.flag(node, "transpose_a")
        if node.op in _REDUCTIONS:
            return self._leaves_rows(*nodes.data_inputs(node))
        return node.op in _ROW_BY_ROW or (node.op in _PADS and self._pads_no_rows(nodes.data_inputs(node)[1]))

    def _leaves_rows(self, reduced: str, axes: str) -> bool:
        rank = self._draft.shape(reduced).rank
        if not rank or not self._values.is_frozen(axes):
            return False
        return all(int(axis) % rank != 0 for axis in self._values.of([axes])[0].flat)

    def _pads_no_rows(self, paddings: str) -> bool:
        return self._values.is_frozen(paddings) and not self._values.of([paddings])[0][0].any()

    def _operand(self, ref: str, inputs: Sequence[str]) -> _Rows | None:
        """Return the operand that has the rows, if the others have a single one, fewer axes, or the very same rows."""
        rank = self._draft.shape(ref).rank
        shapes = [self._draft.shape(one) for one in inputs]
        if not rank or any(shape.rank is None for shape in shapes):
            return None
        whole = [one for one, shape in zip(inputs, shapes, strict=True) if shape.rank == rank and shape[0] != 1]
        same = len(whole) == 1 or (whole and len({self.of(one) for one in whole}) == 1)
        return (whole[0], Fraction(1)) if same else None

    def _before_reshape(self, before: str, after: str) -> _Rows | None:
        """Follow a reshape whose only open length, on both sides, is that of the rows."""
        old, new = (self._row_size(one) for one in (before, after))
        return (before, Fraction(old, new)) if old and new else None

    def _row_size(self, ref: str) -> int | None:
        shape = self._draft.shape(ref)
        return int(size) if shape.rank and (size := shape[1:].num_elements()) is not None else None
