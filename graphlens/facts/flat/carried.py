"""What a loop's body reads of the iteration before: in a flat graph, the reader of what the first one begins with."""

from __future__ import annotations

from collections.abc import Iterator

from graphlens.ir.graph import Function, Graph, data_inputs
from graphlens.ir.ops import LOOPS, PASSES
from graphlens.ir.table import Table

_PASSES = PASSES - {"IdentityN"}


def carried_readers(flat: Table, library: Graph | None) -> frozenset[int]:
    """Return the ops in bodies and conditions of loops that read a tensor which changes from iteration to iteration.

    Their inputs in the flat graph are those of the first iteration alone.
    """
    functions = library.functions if library is not None else {}
    found: set[int] = set()
    for position in flat.positions_of(LOOPS):
        calls = flat.bodies[position].calls
        body = next((functions.get(call.function) for call in calls if call.role == "body"), None)
        if body is not None:
            found.update(_readers(flat, position, set(_changing(body))))
    return frozenset(found)


def _changing(body: Function) -> Iterator[int]:
    for number, (argument, result) in enumerate(zip(body.inputs, body.outputs, strict=False)):
        if not is_handed_on(body, argument, result):
            yield number


def _readers(flat: Table, loop: int, changing: set[int]) -> Iterator[int]:
    inside = tuple(f"{flat.names[loop]}/{role}/" for role in ("body", "cond"))
    for source, edge in flat.inputs_at(loop):
        if edge.dst_port in changing:
            yield from (reader for reader in flat.following[source] if flat.names[reader].startswith(inside))


def is_handed_on(body: Function, argument: str, result: str) -> bool:
    """Tell whether an argument leaves the body as it came in: then it is the same in every iteration."""
    edges = body.graph.in_edges(result)
    name = edges[0][0] if edges else ""
    while name and body.graph.op(name).type in _PASSES and data_inputs(body.graph, name):
        name = data_inputs(body.graph, name)[0]
    return name == argument
