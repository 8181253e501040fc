"""Which ops always give the same value: constants, and what is computed from variables that nobody writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphlens.ir import effects
from graphlens.ir.nodes import CONTROL, Op
from graphlens.ir.ops import CONSTANTS, ENTERS, REFERENCE_VARIABLES, WHOLE_CALLS, WHOLE_READS, is_variable_write
from graphlens.ir.table import Table

_PARAMETERS = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES
_PASS_THROUGH = ENTERS | {"Identity", "IdentityN", "StopGradient", "_Arg"}


def constant_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on ``Const`` ops only."""
    return _closure(graph, graph.positions_of(CONSTANTS))


def frozen_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants and on variables that the graph never writes."""
    written = {_resource(graph, position) for position in _may_be_written(graph)}
    reads = graph.positions_of({"ReadVariableOp"})
    read = ((position, graph.data_before(position)) for position in reads)
    kept = [position for position, inputs in read if inputs and _resource(graph, inputs[0]) not in written]
    variables = [position for position in graph.positions_of(REFERENCE_VARIABLES) if position not in written]
    return _closure(graph, [*graph.positions_of(CONSTANTS), *kept, *variables])


def _may_be_written(graph: Table) -> Iterator[int]:
    """Yield the inputs that their reader may write: of a call that was not inlined, all of them."""
    for kind, positions in graph.by_type.items():
        is_write, is_opaque = is_variable_write(kind), kind in WHOLE_CALLS
        for position in positions if is_write or is_opaque else ():
            yield from graph.data_before(position)[: 1 if is_write else None]


def parameter_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value depends on constants and variables only, whether these are written or not."""
    return _closure(graph, graph.positions_of(_PARAMETERS))


def is_pure(op: Op) -> bool:
    """Tell whether an op computes the same from the same inputs, does nothing else, and calls no function."""
    return not op.calls and effects.is_pure(op.type)


def _resource(graph: Table, position: int) -> int:
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
