"""Which ops always give the same value: constants, and what is computed from variables that nobody writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from graphlens.ir import effects
from graphlens.ir.nodes import CONTROL, Op
from graphlens.ir.ops import (
    CONDITIONALS,
    CONSTANTS,
    CONTROL_FLOW,
    FED,
    HANDLE_READS,
    LOOPS,
    REFERENCE_VARIABLES,
    RETURNS,
    WHOLE_CALLS,
    WHOLE_READS,
    is_variable_write,
)
from graphlens.ir.table import Table

_PARAMETERS = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES
_PASS_THROUGH = CONTROL_FLOW | {"Identity", "IdentityN", "StopGradient", "_Arg"}
# What these do with a handle is seen in their bodies, which stand beside them in a flat graph.
_SEEN_INSIDE = CONDITIONALS | LOOPS | {"_If", "_While"}
_HARMLESS = HANDLE_READS | RETURNS | _SEEN_INSIDE


def constant_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on ``Const`` ops only."""
    return _closure(graph, graph.positions_of(CONSTANTS))


def captured_tensors(graph: Table) -> Sequence[int]:
    """Return the arguments that hold the same tensor in every call: captured by the function, a constant to no one."""
    return [position for position in graph.positions_of(FED) if graph.bodies[position].constant is not None]


def frozen_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants, captured tensors and variables that the graph never writes."""
    read = {position: _origin(graph, inputs[0]) for position, inputs in _inputs_of(graph, HANDLE_READS) if inputs}
    written = _written(graph, set(read.values()))
    reads = graph.positions_of({"ReadVariableOp"})
    kept = [position for position in reads if position in read and read[position] not in written]
    variables = [position for position in graph.positions_of(REFERENCE_VARIABLES) if position not in written]
    return _closure(graph, [*graph.positions_of(CONSTANTS), *captured_tensors(graph), *kept, *variables])


def variable_writes(graph: Table) -> Iterator[tuple[int, int]]:
    """Yield the ops that write a variable, each with the op that the variable's handle comes from."""
    for kind, positions in graph.by_type.items():
        for position in positions if is_variable_write(kind) else ():
            for handle in graph.data_before(position)[:1]:
                yield position, _origin(graph, handle)


def _inputs_of(graph: Table, kinds: Collection[str]) -> Iterator[tuple[int, Sequence[int]]]:
    for position in graph.positions_of(kinds):
        yield position, graph.data_before(position)


def _written(graph: Table, read: Collection[int]) -> set[int]:
    """Return where the handles of variables come from that an op of the graph writes, or may write for all we know.

    Of variables, those in ``read`` are looked at.
    """
    written = {origin for _, origin in variable_writes(graph)}
    for kind in WHOLE_CALLS & graph.by_type.keys():
        for position in graph.by_type[kind]:
            written.update(_origin(graph, source) for source in graph.data_before(position))
    return written | {origin for origin in read if origin not in written and not _is_only_read(graph, origin)}


def _is_only_read(graph: Table, origin: int) -> bool:
    """Tell whether nothing but reads of it is done with a handle."""
    pending, seen = [origin], {origin}
    while pending:
        handle = pending.pop()
        for reader in graph.following[handle]:
            kind = graph.bodies[reader].type
            if reader in seen or kind in _HARMLESS or handle not in graph.data_before(reader):
                continue
            if kind not in _PASS_THROUGH:
                return False
            seen.add(reader)
            pending.append(reader)
    return True


def parameter_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants, captured tensors and variables only, even if written."""
    return _closure(graph, [*graph.positions_of(_PARAMETERS), *captured_tensors(graph)])


def is_pure(op: Op) -> bool:
    """Tell whether an op computes the same from the same inputs, does nothing else, and calls no function."""
    return not op.calls and effects.is_pure(op.type)


def _origin(graph: Table, position: int) -> int:
    """Follow a resource handle back to the op that made it."""
    while graph.bodies[position].type in _PASS_THROUGH:
        inputs = graph.data_before(position)
        if not inputs:
            return position
        position = inputs[0]
    return position


def _closure(graph: Table, sources: Sequence[int]) -> frozenset[str]:
    """Return the sources, and the pure ops all of whose inputs are in the closure."""
    inside = bytearray(len(graph))
    for position in sources:
        inside[position] = True
    waiting: dict[int, set[int]] = {}  # op -> its inputs that are not in the closure, of those that one of is
    pending = list(sources)
    for position in pending:  # grows while it is walked
        for reader in graph.following[position]:
            if inside[reader] or not is_pure(graph.bodies[reader]):
                continue
            if reader not in waiting:
                waiting[reader] = {source for source in graph.data_before(reader) if not inside[source]}
            outside = waiting[reader]
            outside.discard(position)
            if not outside and _reads_anything(graph, reader):
                inside[reader] = True
                pending.append(reader)
    return frozenset(graph.names[position] for position in pending)


def _reads_anything(graph: Table, position: int) -> bool:
    return any(graph.links[at] is not CONTROL for at in range(graph.first[position], graph.first[position + 1]))
