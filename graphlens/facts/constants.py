"""Which ops always give the same value: constants, and what is computed from variables that nobody writes."""

from __future__ import annotations

from collections.abc import Callable

from graphlens.ir import effects
from graphlens.ir.graph import Op, data_inputs, op_of, topological_order
from graphlens.ir.ops import CONSTANTS, ENTERS, REFERENCE_VARIABLES, WHOLE_CALLS, WHOLE_READS, is_variable_write
from graphlens.ir.table import Table

_PARAMETERS = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES
_PASS_THROUGH = ENTERS | {"Identity", "IdentityN", "StopGradient", "_Arg"}


def constant_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on ``Const`` ops only."""
    return _closure(graph, lambda name: op_of(graph, name).type in CONSTANTS)


def frozen_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants and on variables that the graph never writes."""
    written = {_resource(graph, src) for name, op in graph.items() for src in _may_write(graph, name, op)}
    return _closure(graph, lambda name: _is_frozen_source(graph, name, written))


def _may_write(graph: Table, name: str, op: Op) -> list[str]:
    """Return the inputs of ``name`` that it may write: of a call that was not inlined, all of them."""
    if is_variable_write(op.type):
        return data_inputs(graph, name)[:1]
    return data_inputs(graph, name) if op.type in WHOLE_CALLS else []


def parameter_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants and variables only, whether these are written or not."""
    return _closure(graph, lambda name: op_of(graph, name).type in _PARAMETERS)


def is_pure(op: Op) -> bool:
    """Tell whether an op computes the same from the same inputs, does nothing else, and calls no function."""
    return not op.calls and effects.is_pure(op.type)


def _is_frozen_source(graph: Table, name: str, written: set[str]) -> bool:
    op = op_of(graph, name)
    if op.type in CONSTANTS:
        return True
    if op.type == "ReadVariableOp":
        inputs = data_inputs(graph, name)
        return bool(inputs) and _resource(graph, inputs[0]) not in written
    return op.type in REFERENCE_VARIABLES and name not in written


def _resource(graph: Table, name: str) -> str:
    """Follow a resource handle back to the op that made it."""
    while op_of(graph, name).type in _PASS_THROUGH:
        inputs = data_inputs(graph, name)
        if not inputs:
            return name
        name = inputs[0]
    return name


def _closure(graph: Table, is_source: Callable[[str], bool]) -> frozenset[str]:
    found: set[str] = set()
    for name in topological_order(graph):
        if is_source(name) or _follows(graph, name, found):
            found.add(name)
    return frozenset(found)


def _follows(graph: Table, name: str, found: set[str]) -> bool:
    op = op_of(graph, name)
    if not is_pure(op):
        return False
    inputs = data_inputs(graph, name)
    return bool(inputs) and all(src in found for src in inputs)
