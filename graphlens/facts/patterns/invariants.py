"""Ops in the body of a loop that compute the same in every iteration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.carried import is_handed_on
from graphlens.facts.flat.constants import is_pure
from graphlens.facts.graphs import executed_by, judged_stage, traced_graph
from graphlens.facts.time.attribution import timings
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import ARGUMENT, Op
from graphlens.ir.ops import CONDITIONALS, CONSTANTS, ENTERS, LOOPS, PASSES, UNTRACED, is_variable_write
from graphlens.ir.table import Table

_PASSES = PASSES - {"IdentityN"}
_UNTIMED = UNTRACED | {"ReadVariableOp", ARGUMENT}


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
    bodies = _Bodies(library)
    for name in written.of_types(LOOPS):
        found = tuple(f"{name}/body/{inner}" for inner in bodies.invariant_in(written.op(name)))
        if found:
            yield InvariantOps(name, found)
    yield from _in_frames(written)


class _Bodies:
    """The bodies of the loops of a graph; one that several loops have is looked at once."""

    def __init__(self, library: Graph) -> None:
        self._library = library
        self._found: dict[str, Sequence[str]] = {}

    def invariant_in(self, loop: Op) -> Sequence[str]:
        """Return the ops of its body that compute the same in every iteration."""
        body = next((self._library.functions.get(call.function) for call in loop.calls if call.role == "body"), None)
        if body is None:
            return ()
        if body.name not in self._found:
            self._found[body.name] = self._of(body)
        return self._found[body.name]

    def _of(self, body: Function) -> Sequence[str]:
        results = zip(body.inputs, body.outputs, strict=False)  # what is handed on has the same place in both
        fixed = {argument for argument, result in results if is_handed_on(body, argument, result)}
        writes = _writes(self._library, body, set())
        return _Closure(body.graph, reads=not writes).of(fixed)


def _writes(library: Graph, function: Function, seen: set[str]) -> bool:
    """Tell whether a function or one that it calls writes a variable."""
    if function.name in seen:
        return False
    seen.add(function.name)
    if any(map(is_variable_write, function.graph.by_type)):
        return True
    called = dict.fromkeys(call.function for op in function.graph.ops() for call in op.calls)
    return any(_writes(library, library.functions[name], seen) for name in called if name in library.functions)


class _Closure:
    """Finds the timed ops that depend on fixed ones, and otherwise on constants only.

    What depends on constants alone is the same whatever is fixed, and is found once; then only what reads fixed ops is
    looked at, so that a graph of many loops is not walked once for each.
    """

    def __init__(self, graph: Table, *, reads: bool) -> None:
        self._graph, self._reads = graph, reads
        self._constant: set[int] = set()
        for at in graph.order:
            inputs = graph.data_before(at)
            if graph.op_at(at).type in CONSTANTS or (inputs and self._constant.issuperset(inputs) and self._moves(at)):
                self._constant.add(at)

    def of(self, fixed: Collection[str]) -> Sequence[str]:
        """Return them in an order in which they can be computed."""
        graph, rank = self._graph, self._graph.rank
        known = set(map(graph.position, fixed))
        pending = [rank[reader] for at in known for reader in graph.following[at]]
        heapify(pending)
        found = []
        while pending:
            at = graph.order[heappop(pending)]
            if at in known or not self._follows(at, known):
                continue
            known.add(at)
            if graph.op_at(at).type not in _UNTIMED:
                found.append(graph.names[at])
            for reader in graph.following[at]:
                heappush(pending, rank[reader])
        return found

    def _follows(self, at: int, known: set[int]) -> bool:
        inputs = self._graph.data_before(at)
        return (
            not known.isdisjoint(inputs)
            and all(src in known or src in self._constant for src in inputs)
            and (self._moves(at))
        )

    def _moves(self, at: int) -> bool:
        op = self._graph.op_at(at)
        return is_pure(op) or (self._reads and op.type == "ReadVariableOp")


def stands_open(facts: Facts, loop: str) -> bool:
    """Tell whether a loop stands in the graph itself or in the body of one that does, where a rewrite can reach it.

    What a branch of a conditional holds, or a function that a body calls, is reached by others too, or not always.
    """
    library, written = facts.evidence.traced, facts(traced_graph)
    if library is None or written is None or loop not in written:
        return False
    around = [name for name in written.of_types(LOOPS) if loop.startswith(f"{name}/body/")]
    if not around:
        return not any(loop.startswith(f"{name}/") for name in written.of_types(CONDITIONALS))
    nearest = max(around, key=len)
    bodies = (call.function for call in written.op(nearest).calls if call.role == "body")
    body = library.functions.get(next(bodies, ""))
    inside = loop[len(nearest) + len("/body/") :]
    return body is not None and inside in body.graph and stands_open(facts, nearest)


# -- loops of TensorFlow 1 -----------------------------------------------------------------------------------------


def _in_frames(graph: Table) -> Iterator[InvariantOps]:
    """Yield the same for loops that were written with ``Enter``: what does not change says so itself."""
    frames: dict[str, set[str]] = {}
    for name in graph.of_types(ENTERS):
        op = graph.op(name)
        if op.attrs.get("is_constant"):
            frames.setdefault(str(op.attrs.get("frame_name", "")), set()).add(name)
    if not frames:
        return
    closure = _Closure(graph, reads=not any(map(is_variable_write, graph.by_type)))
    for frame, fixed in frames.items():
        found = tuple(closure.of(fixed))
        if found:
            yield InvariantOps(frame, found)


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
