"""Which ops always give the same value: constants, and what is computed from variables that nobody writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from graphlens.ir import effects
from graphlens.ir.nodes import CONTROL, Op
from graphlens.ir.ops import (
    CONDITIONALS,
    CONSTANTS,
    FED,
    HANDLE_READS,
    HANDS_ON_HANDLES,
    LOOPS,
    REFERENCE_VARIABLES,
    RETURNS,
    WHOLE_CALLS,
    WHOLE_READS,
    is_variable_write,
)
from graphlens.ir.table import Table

_PARAMETERS = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES
_PASS_THROUGH = HANDS_ON_HANDLES | {"_Arg"}
# What these do with a handle is seen in their bodies, which stand beside them in a flat graph.
_SEEN_INSIDE = CONDITIONALS | LOOPS | {"_If", "_While"}
ASSIGNMENTS = frozenset({"AssignVariableOp"})  # of a whole value; what adds to a variable counts something
_HARMLESS = HANDLE_READS | RETURNS | _SEEN_INSIDE


def constant_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on ``Const`` ops only."""
    return _closure(graph, graph.positions_of(CONSTANTS))


def captured_tensors(graph: Table) -> Sequence[int]:
    """Return the arguments that hold the same tensor in every call: captured by the function, a constant to no one."""
    return [position for position in graph.positions_of(FED) if graph.bodies[position].constant is not None]


def frozen_ops(graph: Table, written_elsewhere: Collection[str] = (), carried: Collection[int] = ()) -> frozenset[str]:
    """Return the ops whose value depends on constants, captured tensors and variables that the graph never writes.

    ``written_elsewhere`` are handles of variables that others write; the ops ``carried`` read what an iteration of a
    loop hands to the next (see ``carried_readers``).
    """
    read = _handles_read(graph)
    written = _written(graph, set(read.values()))
    written.update(graph.position(name) for name in written_elsewhere if name in graph)
    variables = [position for position in graph.positions_of(REFERENCE_VARIABLES) if position not in written]
    return _made_of(graph, {position for position, origin in read.items() if origin not in written}, carried, variables)


class Weights(NamedTuple):
    """What a graph makes of weights alone.

    Attributes
    ----------
    ops
        The ops whose value depends on constants, captured tensors and weights only.
    written
        Op that writes a weight -> the op that the weight's handle comes from.
    """

    ops: frozenset[str]
    written: Mapping[str, str]


def weights(graph: Table, carried: Collection[int] = ()) -> Weights:
    """Return what the graph makes of weights alone, whoever writes these.

    A variable is a weight as long as all that the graph writes into it is made of weights: what is written from an
    input, drawn, or counted up, is state, and so is what an op may write of which nothing is known.
    """
    read = _handles_read(graph)
    writes = [(write, origin) for write, origin in variable_writes(graph) if _assigns(graph, write)]
    state = _opaque(graph) | {origin for write, origin in variable_writes(graph) if not _assigns(graph, write)}
    assigned = {origin for _, origin in writes}
    state |= {origin for origin in assigned | set(read.values()) if not _is_only_read(graph, origin, ASSIGNMENTS)}
    while True:
        made = _made_of(graph, {position for position, origin in read.items() if origin not in state}, carried)
        fed = {origin for write, origin in writes if not made.issuperset(_values_of(graph, write))}
        if fed <= state:
            written = {graph.names[write]: graph.names[origin] for write, origin in writes if origin not in state}
            return Weights(made, written)
        state |= fed


def _values_of(graph: Table, write: int) -> Sequence[str]:
    return [graph.names[position] for position in graph.data_before(write)[1:]]


def _handles_read(graph: Table) -> dict[int, int]:
    """Return the ops that read a variable -> where the variable's handle comes from."""
    inputs = ((position, graph.data_before(position)[:1]) for position in graph.positions_of(HANDLE_READS))
    return {position: handle_origin(graph, handle) for position, some in inputs for handle in some}


def _made_of(
    graph: Table, readable: Collection[int], carried: Collection[int], variables: Sequence[int] = ()
) -> frozenset[str]:
    """Return what is made of constants, captured tensors and those reads of variables that are ``readable``."""
    whole = [position for position in graph.positions_of({"ReadVariableOp"}) if position in readable]
    gathers = {position for position in graph.positions_of({"ResourceGather"}) if position in readable}
    return _closure(
        graph, [*graph.positions_of(CONSTANTS), *captured_tensors(graph), *whole, *variables], gathers, carried
    )


def variable_writes(graph: Table) -> Iterator[tuple[int, int]]:
    """Yield the ops that write a variable, each with the op that the variable's handle comes from."""
    for kind, positions in graph.by_type.items():
        for position in positions if is_variable_write(kind) else ():
            for handle in graph.data_before(position)[:1]:
                yield position, handle_origin(graph, handle)


def _assigns(graph: Table, position: int) -> bool:
    """Tell whether an op writes a whole value into a variable, rather than to count something up."""
    return graph.bodies[position].type in ASSIGNMENTS


def _written(graph: Table, read: Collection[int]) -> set[int]:
    """Return where the handles of variables come from that an op of the graph writes, or may write for all we know.

    Of variables, those in ``read`` are looked at.
    """
    written = _opaque(graph) | {origin for _, origin in variable_writes(graph)}
    return written | {origin for origin in read if origin not in written and not _is_only_read(graph, origin)}


def _opaque(graph: Table) -> set[int]:
    """Return what calls are given that are no part of the graph: they may do anything."""
    given = (graph.data_before(position) for kind in WHOLE_CALLS for position in graph.by_type.get(kind, ()))
    return {handle_origin(graph, source) for sources in given for source in sources}


def _is_only_read(graph: Table, origin: int, allowed: Collection[str] = ()) -> bool:
    """Tell whether nothing but reads of it, and what is ``allowed``, is done with a handle."""
    pending, seen = [origin], {origin}
    while pending:
        handle = pending.pop()
        for reader in graph.following[handle]:
            kind = graph.bodies[reader].type
            if reader in seen or kind in _HARMLESS or kind in allowed or handle not in graph.data_before(reader):
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


def handle_origin(graph: Table, position: int) -> int:
    """Follow a resource handle back to the op that made it."""
    while graph.bodies[position].type in _PASS_THROUGH:
        inputs = graph.data_before(position)
        if not inputs:
            return position
        position = inputs[0]
    return position


def _closure(
    graph: Table, sources: Sequence[int], gathers: Collection[int] = (), carried: Collection[int] = ()
) -> frozenset[str]:
    """Return the sources, and the pure ops all of whose inputs are in the closure.

    ``gathers`` read rows of a variable that never changes: they depend on the rows' numbers alone.  Those ``carried``
    read more than the graph shows.
    """
    inside = bytearray(len(graph))
    handles = (handle for gather in gathers for handle in graph.data_before(gather)[:1])
    for position in (*sources, *handles):
        inside[position] = True
    waiting: dict[int, set[int]] = {}  # op -> its inputs that are not in the closure, of those that one of is
    pending = list(sources)
    for position in pending:  # grows while it is walked
        for reader in graph.following[position]:
            if inside[reader] or reader in carried or not (reader in gathers or is_pure(graph.bodies[reader])):
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
