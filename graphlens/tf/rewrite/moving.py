"""Carries out what :mod:`graphlens.ir.relayout` found: ops read and give tensors whose axes are in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.permuting import Layout, composed, inverse, moves_nothing, permuted
from graphlens.ir.relayout import FREE_READERS, TRANSPOSE, Relayout
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft
from graphlens.tf.rewrite.values import Values


def carry_out(draft: Draft, values: Values, region: Relayout) -> None:
    """Move the ops of a region, and take its needless transposes out."""
    moving = _Moving(draft, values, region)
    transposes = dict.fromkeys((*region.turned, *region.vanishing))
    sources = {name: moving.source_of(name) for name in transposes}
    readers = {name: draft.readers(name) for name in region.between}
    inputs = {name: moving.inputs_of(name) for name in region.between}
    for name in region.between:
        moving.turn_back(name, readers[name])
    for name, refs in inputs.items():
        moving.change(name, refs)
    for name in region.turned:
        moving.turn(name, sources[name])
    for name in region.vanishing:
        moving.order_shapes(name)
        _leave_out(draft, name, sources[name])


class _Moving:
    """One region on its way; what is asked of a tensor is answered for the draft as it was before."""

    def __init__(self, draft: Draft, values: Values, region: Relayout) -> None:
        self.draft, self.values, self.region = draft, values, region
        self.made: dict[tuple[str, Layout | None], str] = {}

    # -- tensors ---------------------------------------------------------------------------------------------------

    def layout(self, ref: str) -> Layout | None:
        """Return the layout in which a tensor will be kept."""
        how = self.region.moved.get(nodes.source(ref))
        return how.outputs[nodes.port(ref)] if how is not None and nodes.port(ref) < len(how.outputs) else None

    def source_of(self, transpose: str) -> str:
        """Return what a transpose reads, as it will be kept."""
        ref, how = nodes.data_inputs(self.draft.node(transpose))[0], self.region.moved.get(transpose)
        layout = how.inputs[0] if how is not None else self.layout(ref)
        if layout is not None:
            return self.kept(ref, layout)
        return self.source_of(nodes.source(ref)) if nodes.source(ref) in self.region.vanishing else ref

    def kept(self, ref: str, layout: Layout) -> str:
        """Return a tensor in a layout."""
        if self.values.is_constant(ref):
            return self._once(ref, layout, self._constant)
        if self.layout(ref) != layout:
            return self._once(self.written(ref), layout, self._transposed)
        is_transpose = self.draft.producer(ref).op == TRANSPOSE
        return self.source_of(nodes.source(ref)) if is_transpose else ref

    def written(self, ref: str) -> str:
        """Return a tensor as it is written."""
        layout = self.layout(ref)
        if layout is None or self.draft.producer(ref).op == TRANSPOSE:
            return ref  # a transpose that is read as it is written stays
        return self._once(ref, None, lambda tensor, _: self._turned_back(tensor, layout))

    def _once(self, ref: str, layout: Any, make: Callable[[str, Any], str]) -> str:
        if (ref, layout) not in self.made:
            self.made[ref, layout] = make(ref, layout)
        return self.made[ref, layout]

    def _constant(self, ref: str, layout: Layout) -> str:
        value = self.values.of([ref])[0]
        full = value.reshape((1,) * (len(layout) - value.ndim) + value.shape)
        moved = np.ascontiguousarray(np.transpose(full, inverse(layout)))
        return self.draft.constant(f"{nodes.source(ref)}/permuted", moved, self.draft.producer(ref))

    def _transposed(self, ref: str, layout: Layout) -> str:
        """Transpose a tensor that is as it is written, of which axes of one in front may be left out."""
        shape = self.draft.shape(ref)
        missing = len(layout) - shape.rank if shape.rank is not None else 0
        full = tf.TensorShape([1] * missing).concatenate(shape) if missing else shape
        return self._permuted(ref, full, inverse(layout), is_short=missing > 0)

    def _turned_back(self, ref: str, layout: Layout) -> str:
        return self._permuted(ref, self._kept_shape(ref, layout), layout)

    def _permuted(self, ref: str, shape: Any, permutation: Layout, *, is_short: bool = False) -> str:
        """Transpose a tensor of a shape, or only name its axes in another order, where that is as good."""
        after = tf.TensorShape([shape[axis] for axis in permutation] if shape.rank is not None else None)
        kind, like = self.draft.dtype(ref), self.draft.producer(ref)
        sizes = shape.as_list() if shape.rank is not None else None
        renames = sizes is not None and sizes.count(None) <= 1 and moves_nothing(tuple(sizes), permutation)
        if is_short and not renames:
            ref = self._reshaped(ref, shape, kind, like)
        if renames:
            return self._reshaped(ref, after, kind, like)
        order = self.draft.constant(f"{like.name}/permutation", np.asarray(permutation, np.int32), like)
        return self._add(TRANSPOSE, f"{like.name}/transposed", [ref, order], like, after, T=kind, Tperm=tf.int32)

    def _reshaped(self, ref: str, shape: Any, kind: Any, like: Any) -> str:
        sizes = [-1 if size is None else size for size in shape.as_list()]
        if sizes.count(-1) > 1:
            raise RewriteError(f"the shape of '{nodes.source(ref)}' is not known before the call")
        wanted = self.draft.constant(f"{like.name}/shape", np.asarray(sizes, np.int32), like)
        return self._add("Reshape", f"{like.name}/reshaped", [ref, wanted], like, shape, T=kind, Tshape=tf.int32)

    def _add(self, op: str, name: str, inputs: Sequence[str], like: Any, shape: Any, **attributes: Any) -> str:
        made = nodes.make(op, self.draft.unused(name), inputs, like, **attributes)
        self.draft.add(made)
        self.draft.set_shape(made.name, shape)
        return nodes.tensor(made.name)

    def _kept_shape(self, ref: str, layout: Layout | None) -> Any:
        shape = self.draft.shape(ref)
        known = layout is not None and shape.rank == len(layout)
        return tf.TensorShape(permuted(shape.as_list(), layout)) if known and layout is not None else shape

    # -- ops -------------------------------------------------------------------------------------------------------

    def inputs_of(self, name: str) -> list[str]:
        """Return what a moved op will read and wait for."""
        node, how = self.draft.node(name), self.region.moved[name]
        refs = nodes.data_inputs(node)
        found = [self._input(name, port, ref, how.inputs[port]) for port, ref in enumerate(refs)]
        waited = [edge for ref in refs for edge in self._waited(ref)]
        return [*found, *dict.fromkeys((*nodes.control_inputs(node), *waited))]

    def _input(self, name: str, port: int, ref: str, layout: Layout | None) -> str:
        numbers = self.region.moved[name].numbers.get(port)
        if numbers is not None:
            before = self.values.of([ref])[0]
            after = np.asarray(numbers, before.dtype)
            shape = before.shape if before.size == after.size else after.shape
            return self.draft.constant(f"{name}/axes", after.reshape(shape), self.draft.node(name))
        return self.written(ref) if layout is None else self.kept(ref, layout)

    def _waited(self, ref: str) -> list[str]:
        """Return what the transposes wait for that are left out before a tensor."""
        node = self.draft.producer(ref)
        if node.op != TRANSPOSE or node.name not in self.region.moved:
            return []
        return [*nodes.control_inputs(node), *self._waited(nodes.data_inputs(node)[0])]

    def turn_back(self, name: str, readers: Sequence[str]) -> None:
        """Give a moved op's tensors, as they are written, to the readers that are not moved."""
        known = {*self.region.moved, *self.region.turned}
        for port, layout in enumerate(self.region.moved[name].outputs):
            ref = nodes.tensor(name, port)
            others = [reader for reader in readers if reader not in known and ref in self.draft.node(reader).input]
            shapes = [reader for reader in others if self.draft.node(reader).op in FREE_READERS]
            if layout is None:
                continue
            if len(shapes) < len(others):
                self.draft.redirect(ref, self.written(ref), [reader for reader in others if reader not in shapes])
            if ref in self.draft.outputs:
                after = self.written(ref)
                self.draft.outputs = [after if output == ref else output for output in self.draft.outputs]
            for reader in shapes:
                self._order_shape(reader, layout)

    def order_shapes(self, transpose: str) -> None:
        """Keep the order of the shapes that are asked of a transpose which hands on what it reads."""
        layout = self.region.moved[transpose].outputs[0]
        if layout is None:
            return
        for reader in self.draft.reads(nodes.tensor(transpose)):
            self._order_shape(reader, layout)

    def _order_shape(self, reader: str, layout: Layout) -> None:
        """Bring the shape of a moved tensor into the order in which the tensor is written."""
        node, ref = self.draft.node(reader), nodes.tensor(reader)
        if node.op != "Shape":
            return
        used = self.draft.reads(ref)
        order = self.draft.constant(f"{reader}/order", np.asarray(layout, np.int32), node)
        axis = self.draft.constant(f"{reader}/axis", np.asarray(0, np.int32), node)
        types = {"Tparams": self.draft.dtype(ref), "Tindices": tf.int32, "Taxis": tf.int32}
        shape = self.draft.shape(ref)
        ordered = self._add("GatherV2", f"{reader}/ordered", [ref, order, axis], node, shape, **types, batch_dims=0)
        self.draft.redirect(ref, ordered, used)
        self.draft.outputs = [ordered if output == ref else output for output in self.draft.outputs]

    def change(self, name: str, refs: Sequence[str]) -> None:
        """Let a moved op read what it is to read, along the axes as they will be."""
        node, how = self.draft.node(name), self.region.moved[name]
        shapes = [self._kept_shape(nodes.tensor(name, port), layout) for port, layout in enumerate(how.outputs)]
        for key, value in how.attributes.items():
            _set(node, key, value)
        self.draft.set_inputs(name, refs)
        self.draft.set_shape(name, *shapes)

    def turn(self, name: str, source: str) -> None:
        """Let a transpose read a tensor as it is kept."""
        node = self.draft.node(name)
        ref, order = nodes.data_inputs(node)
        before = self.values.of([order])[0]
        after = composed(self.layout(ref), tuple(int(axis) for axis in before))
        permutation = self.draft.constant(f"{name}/permutation", np.asarray(after, before.dtype), node)
        self.draft.set_inputs(name, [source, permutation, *nodes.control_inputs(node), *self._waited(ref)])


def _leave_out(draft: Draft, name: str, source: str) -> None:
    if draft.is_fetched(name) and draft.producer(source).op == "Placeholder":
        kind = draft.dtype(source)
        handed_on = nodes.make("Identity", draft.unused(f"{name}/input"), [source], draft.node(name), T=kind)
        draft.set_shape(draft.add(handed_on), draft.shape(source))
        source = nodes.tensor(handed_on.name)
    draft.bypass(name, source)


def _set(node: Any, key: str, value: Any) -> None:
    if not isinstance(value, tuple):
        nodes.set_attribute(node, key, value)
        return
    node.attr[key].list.ClearField("i")
    node.attr[key].list.i.extend(value)
