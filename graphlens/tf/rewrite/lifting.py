"""Take state that lives in ops of a graph (TensorFlow 1's way) out of it, so that it can be saved with the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.tf.record import state
from graphlens.tf.rewrite import flatten, nodes
from graphlens.tf.rewrite.program import Binding, Program

_TABLE = "HashTableV2"
_VARIABLES = frozenset({"VarHandleOp", "VariableV2"})
_REFERENCE = "VariableV2"  # gives its value itself, not a handle


class Lifted:
    """The tables and variables made so far, by the name under which the runtime shares them."""

    def __init__(self) -> None:
        self.tables: list[Any] = []
        self._made: dict[tuple[str, str, str], Binding] = {}

    def program(self, program: Program) -> Program:
        """Return ``program`` with every table and variable of its graph as something that it holds on to.

        Raises
        ------
        RewriteError
            If its graph keeps state of another kind.
        """
        keepers = [node for node in program.graph.node if _keeps_state(node)]
        if not keepers:
            return program
        _refuse_writes_by_reference(program, {node.name for node in keepers if node.op == _REFERENCE})
        made = {_placeholder(node): self._binding(node, program) for node in keepers}
        kept = [node for node in program.graph.node if not _keeps_state(node)]
        replaced = [other for node in keepers for other in _instead_of(node)]
        graph = flatten.graph_of([*replaced, *kept], program.graph.library.function, program.graph.versions)
        return replace(program, graph=graph, bindings={**program.bindings, **made})

    def _binding(self, node: Any, program: Program) -> Binding:
        key = (node.op, nodes.text(node, "container"), nodes.text(node, "shared_name") or node.name)
        if key not in self._made:
            self._made[key] = self._lifted(node, program)
        return self._made[key]

    def _lifted(self, node: Any, program: Program) -> Binding:
        if node.op not in {_TABLE, *_VARIABLES}:
            raise RewriteError(f"'{node.name}' ({node.op}) keeps its state in the graph, where it cannot be saved")
        try:
            content = state.value_of_op(node, program.graph)
        except state.NotReplayable as error:
            raise RewriteError(f"'{node.name}' cannot be written: {error}") from error
        if node.op in _VARIABLES:
            return Binding("variable", tf.Variable(content, trainable=False, name=node.name), node.name)
        keys, values = (tf.constant(part) for part in content)
        default = tf.zeros((), values.dtype) if values.dtype != tf.string else ""
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default)
        self.tables.append(table)
        return Binding("resource", table.resource_handle, node.name)


def _keeps_state(node: Any) -> bool:
    """Whether an op makes something that outlives a call of the function."""
    if nodes.data_inputs(node) or node.op == "Placeholder" or node.op.startswith("Anonymous"):
        return False
    outputs = nodes.op_def(node.op).output_arg
    return any(output.is_ref or output.type == tf.resource.as_datatype_enum for output in outputs)


def _placeholder(node: Any) -> str:
    return f"{node.name}/resource" if node.op == _REFERENCE else str(node.name)


def _instead_of(node: Any) -> list[Any]:
    handle = nodes.make("Placeholder", _placeholder(node), [], dtype=tf.resource)
    if node.op != _REFERENCE:
        return [handle]
    read = nodes.make(
        "ReadVariableOp", node.name, [nodes.tensor(handle.name)], node, dtype=nodes.dtype_of(node, "dtype")
    )
    return [handle, read]


def _refuse_writes_by_reference(program: Program, references: set[str]) -> None:
    for node in program.graph.node:
        arguments = nodes.op_def(node.op).input_arg
        if any(argument.is_ref for argument in arguments):
            written = [ref for ref in nodes.data_inputs(node) if nodes.source(ref) in references]
            if written:
                raise RewriteError(f"'{node.name}' writes the reference variable '{nodes.source(written[0])}'")
