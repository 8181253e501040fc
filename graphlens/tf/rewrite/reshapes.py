"""``flatten-product`` and ``sink-reshape``: bring a bias and an activation next to the matrix product before them.

A dense layer on a tensor of rank 3 is written as a batch of products, or as product, reshape, bias and activation;
Grappler fuses a product of two-dimensional tensors, with what reads it directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import FlattenProduct, SinkReshape
from graphlens.ir.ops import BINARY, PER_ELEMENT
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named

_BATCHED = frozenset({"BatchMatMul", "BatchMatMulV2"})
_HANDS_ON = frozenset({"Identity", "StopGradient"})
_IN_PLACE = PER_ELEMENT | BINARY | {"BiasAdd"}


@rewrite
def sink_reshape(draft: Draft, edit: SinkReshape) -> None:
    """Sink the reshapes named, or every one between a matrix product and elementwise ops."""
    _each(draft, edit, frozenset({"Reshape"}), _sink)


@rewrite
def flatten_product(draft: Draft, edit: FlattenProduct) -> None:
    """Compute the products named, or every one of a tensor with one matrix, with all rows in one matrix."""
    _each(draft, edit, _BATCHED, _flatten)


def _each(
    draft: Draft, edit: SinkReshape | FlattenProduct, ops: frozenset[str], change: Callable[[Draft, str], str | None]
) -> None:
    """Change the ops named, each of which must allow it, or all of those types that do."""
    wanted = [name for name in named(edit) if name in draft and draft.node(name).op in ops]
    if named(edit) and not wanted:
        raise RewriteError(f"'{named(edit)[0]}' is no {' or '.join(sorted(ops))} of the traced graph")
    reasons = [change(draft, name) for name in wanted or draft if draft.node(name).op in ops]
    refused = [reason for reason in reasons if reason]
    if (wanted and refused) or len(refused) == len(reasons):
        raise RewriteError(refused[0] if refused else f"there is no {' or '.join(sorted(ops))}")


# -- reshapes -------------------------------------------------------------------------------------------------------


def _sink(draft: Draft, name: str) -> str | None:
    """Sink one reshape; returns why not, if so."""
    product, _ = nodes.data_inputs(draft.node(name))
    columns = _kept_columns(draft, name)
    if draft.producer(product).op != "MatMul" or columns is None:
        return f"'{name}' does not reshape the rows of a matrix product alone"
    region = _elementwise_behind(draft, name, columns)
    if nodes.control_inputs(draft.node(name)) or not _is_all_read_by(draft, name, region):
        return f"'{name}' is read by more than a bias and an activation along its last axis"
    _move(draft, name, region)
    return None


def _kept_columns(draft: Draft, reshape: str) -> int | None:
    """Return the length of the last axis, where a reshape of a matrix surely leaves it as it is."""
    before, after = draft.shape(nodes.data_inputs(draft.node(reshape))[0]), draft.shape(nodes.tensor(reshape))
    known = before.rank == 2 and after.rank is not None and after.rank > 2
    return int(before[-1]) if known and before[-1] is not None and before[-1] == after[-1] else None


def _elementwise_behind(draft: Draft, start: str, columns: int) -> Mapping[str, None]:
    """Return the ops that compute each number from those in its place and at most one other number per column.

    An op with two inputs from the region joins it when the last of them has.
    """
    region: dict[str, None] = {}
    todo = draft.reads(nodes.tensor(start))
    while todo:
        name = todo.pop()
        if name not in region and _stays_in_place(draft, name, {start, *region}, columns):
            region[name] = None
            todo += draft.reads(nodes.tensor(name))
    return region


def _stays_in_place(draft: Draft, name: str, inside: set[str], columns: int) -> bool:
    node = draft.node(name)
    if node.op not in _IN_PLACE or nodes.text(node, "data_format", "NHWC") != "NHWC":
        return False
    shapes = [draft.shape(ref) for ref in nodes.data_inputs(node) if nodes.source(ref) not in inside]
    return all(shape.rank is not None and shape.as_list() in ([], [1], [columns]) for shape in shapes)


def _is_all_read_by(draft: Draft, name: str, region: Mapping[str, None]) -> bool:
    """Whether only ``region`` reads the op, and computes anything at all."""
    computes = any(draft.node(other).op not in _HANDS_ON for other in region)
    return computes and not draft.is_fetched(name) and not set(draft.readers(name)) - region.keys()


def _move(draft: Draft, reshape: str, region: Mapping[str, None]) -> None:
    product, shape = nodes.data_inputs(draft.node(reshape))
    for name in region:
        outside = set(draft.reads(nodes.tensor(name))) - region.keys()
        if outside or draft.is_fetched(name):
            end = _reshape(draft, f"{name}/reshaped", nodes.tensor(name), shape)
            draft.set_shape(nodes.source(end), draft.shape(nodes.tensor(reshape)))
            draft.redirect(nodes.tensor(name), end, outside)
            draft.outputs = [end if ref == nodes.tensor(name) else ref for ref in draft.outputs]
        draft.set_shape(name, draft.shape(product))
    draft.bypass(reshape, product)


def _reshape(draft: Draft, wanted: str, tensor: str, shape: str) -> str:
    """Add a reshape, and return its tensor."""
    kinds = {"T": draft.dtype(tensor), "Tshape": draft.dtype(shape)}
    made = nodes.make("Reshape", draft.unused(wanted), [tensor, shape], draft.producer(tensor), **kinds)
    return nodes.tensor(draft.add(made))


# -- products -------------------------------------------------------------------------------------------------------


def _flatten(draft: Draft, name: str) -> str | None:
    """Flatten one batch of products, and sink the reshape behind it; returns why not, if so."""
    node = draft.node(name)
    tensor, matrix = (draft.shape(ref) for ref in nodes.data_inputs(node))
    if matrix.rank != 2 or tensor.rank is None or tensor.rank < 3 or nodes.flag(node, "adj_x"):
        return f"'{name}' does not multiply the last axis of a tensor by one matrix"
    if not matrix.is_fully_defined() or draft.dtype(nodes.tensor(name)).is_complex:
        return f"'{name}' multiplies by a matrix of unknown size, or of complex numbers"
    inner, outer = matrix.as_list()[:: -1 if nodes.flag(node, "adj_y") else 1]
    if not _is_all_read_by(draft, name, _elementwise_behind(draft, name, outer)):
        return f"'{name}' is read by more than a bias and an activation along its last axis"
    _multiply_rows(draft, node, inner, outer)
    return _sink(draft, name)


def _multiply_rows(draft: Draft, node: Any, inner: int, outer: int) -> None:
    """Put one product of matrices before ``node``, which becomes the reshape of its result."""
    tensor, matrix = nodes.data_inputs(node)
    leading, kind = draft.shape(tensor)[:-1], draft.dtype(tensor)
    rows = _reshape(draft, f"{node.name}/rows", tensor, _numbers(draft, node, "rows/shape", [-1, inner]))
    draft.set_shape(nodes.source(rows), tf.TensorShape([leading.num_elements(), inner]))
    product = nodes.make("MatMul", draft.unused(f"{node.name}/product"), [rows, matrix], node, T=kind)
    nodes.set_attribute(product, "transpose_b", nodes.flag(node, "adj_y"))
    draft.set_shape(draft.add(product), tf.TensorShape([leading.num_elements(), outer]))
    inputs = [nodes.tensor(product.name), _shape_of_result(draft, node, tensor, outer), *nodes.control_inputs(node)]
    draft.set_shape(node.name, leading.concatenate(outer))
    draft.add(nodes.make("Reshape", node.name, inputs, node, T=kind, Tshape=tf.int32))


def _shape_of_result(draft: Draft, node: Any, tensor: str, outer: int) -> str:
    """Return the tensor of the shape: a constant where at most one axis is open, else computed in the call."""
    leading = draft.shape(tensor).as_list()[:-1]
    if leading.count(None) <= 1:
        return _numbers(draft, node, "shape", [*(-1 if size is None else size for size in leading), outer])
    whole = _add(draft, node, "Shape", "input_shape", [tensor], T=draft.dtype(tensor), out_type=tf.int32)
    bounds = [_numbers(draft, node, key, [value]) for key, value in (("begin", 0), ("end", -1), ("strides", 1))]
    kept = _add(draft, node, "StridedSlice", "leading", [whole, *bounds], T=tf.int32, Index=tf.int32, begin_mask=1)
    joined = [kept, _numbers(draft, node, "last", [outer]), _numbers(draft, node, "axis", 0)]
    return _add(draft, node, "ConcatV2", "shape", joined, N=2, T=tf.int32, Tidx=tf.int32)


def _numbers(draft: Draft, node: Any, name: str, values: int | Sequence[int]) -> str:
    return draft.constant(f"{node.name}/{name}", np.asarray(values, np.int32), node)


def _add(draft: Draft, like: Any, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
    """Add an op, and return its tensor."""
    made = nodes.make(op, draft.unused(f"{like.name}/{name}"), inputs, like, **attributes)
    return nodes.tensor(draft.add(made))
