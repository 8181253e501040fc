"""Ops in the body of a loop that compute the same in every iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphlens.facts.attribution import timings
from graphlens.facts.constants import is_pure
from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_by, judged_stage, traced_graph
from graphlens.ir.graph import ARGUMENT, Function, Graph, Op, data_inputs, in_edges, op_of, topological_order
from graphlens.ir.ops import CONSTANTS, ENTERS, LOOPS, PASSES, UNTRACED, is_variable_write
from graphlens.ir.table import Table

_PASSES = PASSES - {"IdentityN"}


@dataclass(frozen=True, slots=True)
class InvariantOps:
    """Ops of one loop, by their names in the graph as written, in an order in which they can be computed."""

    loop: str
    ops: tuple[str, ...]


def invariant_ops(facts: Facts) -> Iterator[InvariantOps]:
    """Yield the loops of the graph as written with what could be computed before them.

    What depends on constants alone is left out (it is folded), and so is what is never timed.
    """
    library = facts.evidence.traced
    written = facts(traced_graph)
    if library is None or written is None:
        return
    for name in written.of_types(LOOPS):
        body = _body(library, written.op(name))
        if body is not None:
            found = tuple(f"{name}/body/{inner}" for inner in _invariant_in(library, body))
            if found:
                yield InvariantOps(name, found)
    yield from _in_frames(written)


def _body(library: Graph, op: Op) -> Function | None:
    return next((library.functions.get(call.function) for call in op.calls if call.role == "body"), None)


def _invariant_in(library: Graph, body: Function) -> list[str]:
    fixed = {argument for argument in body.inputs if _is_handed_on(body, argument)}
    writes = _writes(library, body, set())
    return _closure(body.graph, fixed, reads=not writes)


def _is_handed_on(body: Function, argument: str) -> bool:
    """Tell whether an argument leaves the body as it came in: then it is the same in every iteration."""
    position = body.inputs.index(argument)
    if position >= len(body.outputs):
        return False
    edges = in_edges(body.graph, body.outputs[position])
    name = edges[0][0] if edges else ""
    while name and op_of(body.graph, name).type in _PASSES and data_inputs(body.graph, name):
        name = data_inputs(body.graph, name)[0]
    return name == argument


def _writes(library: Graph, function: Function, seen: set[str]) -> bool:
    """Tell whether a function or one that it calls writes a variable."""
    if function.name in seen:
        return False
    seen.add(function.name)
    ops = list(function.graph.ops())
    called = (library.functions[call.function] for op in ops for call in op.calls if call.function in library.functions)
    return any(is_variable_write(op.type) for op in ops) or any(_writes(library, item, seen) for item in called)


def _closure(graph: Table, fixed: set[str], *, reads: bool) -> list[str]:
    """Return the timed ops that depend on ``fixed`` ones, and otherwise on constants only."""
    known, constant = set(fixed), set()
    found = []
    for name in topological_order(graph):
        op = op_of(graph, name)
        inputs = data_inputs(graph, name)
        if op.type in CONSTANTS:
            constant.add(name)
            continue
        if name in known or not inputs or not all(src in known or src in constant for src in inputs):
            continue
        if is_pure(op) or (reads and op.type == "ReadVariableOp"):
            (known if any(src in known for src in inputs) else constant).add(name)
            if name in known and op.type not in UNTRACED | {"ReadVariableOp", ARGUMENT}:
                found.append(name)
    return found


# -- loops of TensorFlow 1 -----------------------------------------------------------------------------------------


def _in_frames(graph: Table) -> Iterator[InvariantOps]:
    """Yield the same for loops that were written with ``Enter``: what does not change says so itself."""
    frames: dict[str, set[str]] = {}
    for op in map(graph.op, graph.of_types(ENTERS)):
        if op.attrs.get("is_constant"):
            frames.setdefault(str(op.attrs.get("frame_name", "")), set()).add(op.name)
    writes = bool(graph.where(is_variable_write))
    for frame, fixed in frames.items():
        found = _closure(graph, fixed, reads=not writes)
        if found:
            yield InvariantOps(frame, tuple(found))


@fact
def invariants_by_loop(facts: Facts) -> Mapping[str, tuple[str, ...]]:
    """Return loop -> its invariant ops by their names in the judged graph; ops that did not run are left out."""
    result: dict[str, tuple[str, ...]] = {}
    stage = facts(judged_stage)
    for item in invariant_ops(facts):
        names = item.ops if stage == "traced" else tuple(_ran(facts, item.ops))
        if names:
            result[item.loop] = tuple(dict.fromkeys((*result.get(item.loop, ()), *names)))
    return result


def _ran(facts: Facts, names: tuple[str, ...]) -> Iterator[str]:
    ran_as, times = facts(executed_by), facts(timings)
    for name in names:
        executed = ran_as.get(name)
        if executed is None:
            continue
        timing = times.get(executed)
        if (
            timing is None or timing.calls_per_step > 1
        ):  # once a step: Grappler has moved it out, or the loop is no loop
            yield executed
