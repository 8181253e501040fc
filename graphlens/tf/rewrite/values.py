"""The values of tensors that never change: constants, variables that nobody writes, and what is computed from them.

They are computed by TensorFlow itself, so that storing one in place of its computation changes no bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError, first_line
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft, put_constant

v1 = tf.compat.v1


class Values:
    """Values of a draft's frozen tensors; what is found once is kept (an edit changes none of them)."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._frozen: dict[str, bool] = {}
        self._leaves: dict[str, np.ndarray] = {}

    def is_frozen(self, ref: str) -> bool:
        """Whether a tensor has the same value in every call."""
        todo = [nodes.source(ref)]
        while todo:
            name = todo[-1]
            pending = [] if name in self._frozen else self._pending(name)
            if pending:
                todo += pending
            else:
                todo.pop()
                if name not in self._frozen:
                    self._frozen[name] = self._judge(name)
        return self._frozen[nodes.source(ref)]

    def is_constant(self, ref: str) -> bool:
        """Whether a tensor is frozen and no variable is read for it, whose value a copy may have another of."""
        return self.is_frozen(ref) and all(
            self._draft.node(name).op != "ReadVariableOp" for name in self._needed([ref])
        )

    def _pending(self, name: str) -> list[str]:
        """Return the inputs to be judged before ``name`` can be, none when it can be told without them."""
        if self.is_leaf(name) or not self._follows(name):
            return []
        inputs = map(nodes.source, self._read_by(name))
        return [other for other in inputs if other not in self._frozen]

    def _judge(self, name: str) -> bool:
        if self.is_leaf(name):
            return True
        inputs = self._read_by(name) if self._follows(name) else []
        return bool(inputs) and all(self._frozen[nodes.source(ref)] for ref in inputs)

    def _follows(self, name: str) -> bool:
        return (nodes.is_pure(self._draft.node(name)) or self._gathers(name)) and not self.may_not_run(name)

    def _gathers(self, name: str) -> bool:
        """Whether an op reads rows of a variable that nobody writes."""
        return self._draft.node(name).op == "ResourceGather" and self.variable_of(name) is not None

    def _read_by(self, name: str) -> list[str]:
        """Return the tensors that an op's value depends on; of a gather, the rows' numbers."""
        refs = nodes.data_inputs(self._draft.node(name))
        return refs[1:] if self._draft.node(name).op == "ResourceGather" else refs

    def may_not_run(self, name: str) -> bool:
        """Whether an op waits in a graph that branches as TensorFlow 1 did, and may be in the branch not taken."""
        return self._draft.has_dataflow and bool(nodes.control_inputs(self._draft.node(name)))

    def is_leaf(self, name: str) -> bool:
        """Whether an op itself holds a value that never changes."""
        node = self._draft.node(name)
        if node.op == "Const":
            return not self.may_not_run(name)
        if name in self._draft.bindings:
            # A captured text may be the path of an asset, which is another one wherever the model is loaded.
            return self._draft.bindings[name].kind == "constant" and self._draft.dtype(nodes.tensor(name)) != tf.string
        return node.op == "ReadVariableOp" and self.variable_of(name) is not None

    def variable_of(self, read: str) -> str | None:
        """Return the placeholder of the unwritten variable that ``read`` reads."""
        handle = nodes.source(nodes.data_inputs(self._draft.node(read))[0])
        return handle if self._draft.is_unwritten(handle) and not self.may_not_run(read) else None

    def why_not(self, ref: str) -> str:
        """Return why a tensor that is not frozen is none: what it depends on that may change between two calls."""
        asked = name = nodes.source(ref)
        while self._follows(name) and not self.is_leaf(name):
            inputs = map(nodes.source, self._read_by(name))
            name = next((other for other in inputs if not self.is_frozen(nodes.tensor(other))), "")
            if not name:
                return f"'{asked}' reads nothing that never changes"
        return f"'{asked}' {self._changes(name, asked)}"

    def _changes(self, name: str, asked: str) -> str:
        node = self._draft.node(name)
        itself = "is" if name == asked else f"depends on '{name}', which is"
        if self.may_not_run(name):
            return f"{itself} in a branch or loop of TensorFlow 1, and may not run"
        if node.op == "Placeholder":
            return f"{itself} an input" if name not in self._draft.bindings else f"{itself} a text or a resource"
        if node.op in nodes.READS:  # of a gather, the rows' numbers are frozen, or they were followed
            handle = nodes.source(nodes.data_inputs(node)[0])
            binding = self._draft.bindings.get(handle)
            return f"{itself} a read of '{binding.name if binding else handle}', a variable that may be written"
        return f"{itself} a {node.op}, which may give something else in each call"

    def of(self, refs: Sequence[str]) -> list[np.ndarray]:
        """Return the values of frozen tensors.

        Raises
        ------
        RewriteError
            If one of them is not frozen, or TensorFlow cannot compute it here.
        """
        changing = [ref for ref in refs if not self.is_frozen(ref)]
        if changing:
            raise RewriteError(self.why_not(changing[0]))
        direct = {ref: self._leaf(nodes.source(ref)) for ref in refs if self.is_leaf(nodes.source(ref))}
        computed = self._computed([ref for ref in dict.fromkeys(refs) if ref not in direct])
        return [{**direct, **computed}[ref] for ref in refs]

    def _leaf(self, name: str) -> np.ndarray:
        if name not in self._leaves:
            self._leaves[name] = self._read(name)
        return self._leaves[name]

    def _read(self, name: str) -> np.ndarray:
        node = self._draft.node(name)
        if node.op == "Const":
            return np.asarray(tf.make_ndarray(node.attr["value"].tensor))
        value = self._draft.bindings[name if name in self._draft.bindings else self.variable_of(name) or ""].value
        try:
            return value if isinstance(value, np.ndarray) else _array(value.numpy())
        except tf.errors.OpError as error:
            raise RewriteError(f"the variable that '{name}' reads has no value: {first_line(error)}") from error

    def _computed(self, refs: Sequence[str]) -> Mapping[str, np.ndarray]:
        if not refs:
            return {}
        order = self._needed(refs)
        feeds = {name: self._leaf(name) for name in order if self.is_leaf(name)}
        isolated = [node for name in order for node in self._isolated(name, name in feeds)]
        graph_def = nodes.GraphDef(node=isolated)
        try:
            with tf.Graph().as_default() as graph, tf.device("CPU:0"):
                v1.import_graph_def(graph_def, name="")
                with v1.Session(graph=graph, config=_quiet()) as session:
                    found = session.run(list(refs), {nodes.tensor(name): value for name, value in feeds.items()})
        except (tf.errors.OpError, ValueError) as error:
            raise RewriteError(f"'{refs[0]}' cannot be computed beforehand: {first_line(error)}") from error
        return dict(zip(refs, map(_array, found), strict=True))

    def _needed(self, refs: Sequence[str]) -> list[str]:
        todo = [nodes.source(ref) for ref in refs]
        needed: dict[str, None] = {}
        while todo:
            name = todo.pop()
            if name not in needed:
                needed[name] = None
                if not self.is_leaf(name):
                    todo += map(nodes.source, self._read_by(name))
        return list(needed)

    def _isolated(self, name: str, fed: bool) -> list[Any]:
        node = self._draft.node(name)
        if fed:
            return [nodes.make("Placeholder", name, [], dtype=self._draft.dtype(nodes.tensor(name)))]
        if node.op == "ResourceGather":
            return self._gather(node)
        copy = nodes.NodeDef()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(nodes.data_inputs(node))
        copy.device = ""
        copy.attr.pop("_class", None)
        return [copy]

    def _gather(self, node: Any) -> list[Any]:
        """Return a gather of a constant that holds what the variable does."""
        rows, axis = nodes.make("Const", f"{node.name}/rows", []), nodes.make("Const", f"{node.name}/axis", [])
        batch = int(node.attr["batch_dims"].i) if "batch_dims" in node.attr else 0
        put_constant(rows, self._read(node.name))
        put_constant(axis, np.asarray(batch, np.int32))
        types = {"Tparams": nodes.dtype_of(node, "dtype"), "Tindices": nodes.dtype_of(node, "Tindices")}
        read = [nodes.tensor(rows.name), *self._read_by(node.name), nodes.tensor(axis.name)]
        return [rows, axis, nodes.make("GatherV2", node.name, read, Taxis=tf.int32, batch_dims=batch, **types)]


def _array(found: Any) -> np.ndarray:
    """Return what a session gives as an array; as a string of numpy's, a text would lose the zero bytes at its end."""
    return np.array(found, dtype=object) if isinstance(found, (bytes, str)) else np.asarray(found)


def _quiet() -> Any:
    """A session that computes op by op: no rewriting that could change the last digit, and no device but the CPU."""
    config = v1.ConfigProto(device_count={"GPU": 0}, allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
