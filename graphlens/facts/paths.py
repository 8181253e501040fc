"""The critical path: the longest chain of dependent ops by measured self time, and every op's slack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphlens.facts.attribution import attribution, timings
from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.ledger import step_time
from graphlens.ir.analysis import CriticalPath, StepTime
from graphlens.ir.graph import topological_order
from graphlens.ir.run import OpTiming
from graphlens.ir.table import Table


@fact
def path_weights_ns(facts: Facts) -> Mapping[str, int]:
    """Op -> the time that counts along a path (profiled self time; never the replay's)."""
    return weights_ns(facts(timings), by_turns=bool(facts(attribution).cycle.kinds))


@fact
def longest_path(facts: Facts) -> CriticalPath | None:
    """The longest chain of dependent ops as it was profiled; ``None`` when nothing was timed."""
    return heaviest_path(facts(judged_graph), facts(path_weights_ns))


@fact
def critical_path(facts: Facts) -> CriticalPath | None:
    """The longest chain of dependent ops by self time, as a part of the step; ``None`` when nothing was timed."""
    return on_scale(facts(longest_path), facts(step_time))


@fact
def slack_ns(facts: Facts) -> Mapping[str, int]:
    """Op of the judged graph -> how much longer it could take without lengthening the critical path."""
    weights = facts(path_weights_ns)
    return slacks_ns(facts(judged_graph), weights) if weights else {}


def weights_ns(timings: Mapping[str, OpTiming], by_turns: bool = False) -> Mapping[str, int]:
    """Return the op times that may be added up along a path: those of the profile, never those of the replay.

    Loop timings of the replay are inflated several times; a path that added them would be longer than the step.

    Parameters
    ----------
    by_turns
        Steps do different work by turns: an op counts for the part of them in which it runs, and the path is that of
        the mean step.  An optimizer that runs in every fourth would make it longer than most of the steps.
    """
    known = {name: timing for name, timing in timings.items() if timing.source != "replay"}
    if not by_turns:
        return {name: timing.self_ns for name, timing in known.items()}
    return {name: round(timing.self_ns * min(1.0, timing.calls_per_step)) for name, timing in known.items()}


def heaviest_path(graph: Table, weights: Mapping[str, int]) -> CriticalPath | None:
    """Return the heaviest path of the DAG by node weight; only ops that were seen are members."""
    if not any(name in weights for name in graph):
        return None
    finish_ns, predecessor = _longest(graph, weights)
    name: str | None = max(finish_ns, key=lambda item: finish_ns[item])
    length = finish_ns[name] if name is not None else 0
    members: list[str] = []
    while name is not None:
        if name in weights:
            members.append(name)
        name = predecessor[name]
    return CriticalPath(length, tuple(reversed(members)))


def on_scale(path: CriticalPath | None, step: StepTime | None) -> CriticalPath | None:
    """Return the path as a part of the step that is shown: ops are timed with the profiler, the step without it."""
    if path is None or step is None or not step.profiled_median_ns:
        return path
    share = min(1.0, path.ns / step.profiled_ns)
    return replace(path, ns=round(share * step.median_ns))


def length_ns(graph: Table, weights: Mapping[str, int]) -> int:
    """Return the weight of the heaviest path; 0 for a graph without weights."""
    finish_ns, _ = _longest(graph, weights)
    return max(finish_ns.values(), default=0)


def slacks_ns(graph: Table, weights: Mapping[str, int]) -> Mapping[str, int]:
    """Return for every op how much longer it could take without lengthening the critical path."""
    finish_ns, _ = _longest(graph, weights)
    total = max(finish_ns.values(), default=0)
    tail_ns: dict[str, int] = {}  # the heaviest path that starts after the op
    for name in reversed(topological_order(graph)):
        tail_ns[name] = max((tail_ns[dst] + weights.get(dst, 0) for dst in graph.successors(name)), default=0)
    return {name: total - finish_ns[name] - tail_ns[name] for name in graph}


def _longest(graph: Table, weights: Mapping[str, int]) -> tuple[dict[str, int], dict[str, str | None]]:
    """Return for every op the weight of the heaviest path that ends with it, and the op before it on that path."""
    finish_ns: dict[str, int] = {}
    predecessor: dict[str, str | None] = {}
    for name in topological_order(graph):
        before = max(graph.predecessors(name), key=finish_ns.__getitem__, default=None)
        predecessor[name] = before
        finish_ns[name] = weights.get(name, 0) + (finish_ns[before] if before is not None else 0)
    return finish_ns, predecessor
