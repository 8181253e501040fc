"""The critical path: the longest chain of dependent ops by measured self time, and every op's slack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import step_time
from graphlens.ir.measured import CriticalPath, StepTime
from graphlens.ir.run import OpTiming
from graphlens.ir.table import Table


@fact
def path_weights_ns(facts: Facts) -> Mapping[str, int]:
    """Op -> the time that counts along a path (profiled self time; never the replay's)."""
    return weights_ns(facts(timings), by_turns=bool(facts(attribution).cycle.kinds) or _are_parts_of_calls(facts))


def _are_parts_of_calls(facts: Facts) -> bool:
    """Whether a call of the judged program is several steps: of a loop that was unrolled each has its own ops."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None:
        return False
    return any(profile.runs[position].iterations for position in judged.runs)


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
        Steps do different work by turns, or each has its own ops: an op counts for the part of them in which it runs,
        and the path is that of the mean step.  An optimizer that runs in every fourth would make it longer than most.
    """
    known = {name: timing for name, timing in timings.items() if timing.source != "replay"}
    if not by_turns:
        return {name: timing.self_ns for name, timing in known.items()}
    return {name: round(timing.self_ns * min(1.0, timing.calls_per_step)) for name, timing in known.items()}


def heaviest_path(graph: Table, weights: Mapping[str, int]) -> CriticalPath | None:
    """Return the heaviest path of the DAG by node weight; only ops that were seen are members."""
    if not any(name in weights for name in graph):
        return None
    finish_ns = _finish_ns(graph, weights)
    end = max(graph.order, key=finish_ns.__getitem__)
    at: int | None = end
    members: list[str] = []
    while at is not None:
        members.append(graph.names[at])
        at = max(graph.before(at), key=finish_ns.__getitem__, default=None)
    return CriticalPath(finish_ns[end], tuple(name for name in reversed(members) if name in weights))


def on_scale(path: CriticalPath | None, step: StepTime | None) -> CriticalPath | None:
    """Return the path as a part of the step that is shown: ops are timed with the profiler, the step without it."""
    if path is None or step is None or not step.profiled_median_ns:
        return path
    share = min(1.0, path.ns / step.profiled_ns)
    return replace(path, ns=round(share * step.median_ns))


def length_ns(graph: Table, weights: Mapping[str, int]) -> int:
    """Return the weight of the heaviest path; 0 for a graph without weights."""
    return max(_finish_ns(graph, weights), default=0)


def slacks_ns(graph: Table, weights: Mapping[str, int]) -> Mapping[str, int]:
    """Return for every op how much longer it could take without lengthening the critical path."""
    finish_ns = _finish_ns(graph, weights)
    total = max(finish_ns, default=0)
    own_ns = _by_position(graph, weights)
    rest_ns = list(own_ns)  # of the heaviest path that starts with the op
    for at in reversed(graph.order):
        rest_ns[at] += max([rest_ns[reader] for reader in graph.following[at]], default=0)
    return {
        name: total - finish - rest + own
        for name, finish, rest, own in zip(graph.names, finish_ns, rest_ns, own_ns, strict=True)
    }


def _finish_ns(graph: Table, weights: Mapping[str, int]) -> list[int]:
    """Return for every position the weight of the heaviest path that ends with the op there."""
    finish_ns = _by_position(graph, weights)
    first, sources = graph.first, graph.sources
    for at in graph.order:
        latest = 0
        for source in sources[first[at] : first[at + 1]]:
            latest = max(latest, finish_ns[source])
        finish_ns[at] += latest
    return finish_ns


def _by_position(graph: Table, weights: Mapping[str, int]) -> list[int]:
    return [weights.get(name, 0) for name in graph.names]
