"""The functions of a script that was watched: all their calls and traces, and what each trace cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from graphlens.facts.core import Facts, fact
from graphlens.ir.run import NO_RUN, Profile
from graphlens.ir.script import ScriptFunction, ScriptTrace


@dataclass(frozen=True, slots=True)
class Watched:
    """One function with its traces, each with what it cost where that is known."""

    function: ScriptFunction
    traces: tuple[ScriptTrace, ...]

    @property
    def retraces(self) -> tuple[ScriptTrace, ...]:
        """Those that the script need not have paid for."""
        return tuple(trace for trace in self.traces if trace.kind == "retrace")


@fact
def watched(facts: Facts) -> tuple[Watched, ...]:
    """The functions of the script, that with most time first; empty where no script was watched.

    Of a function that was traced in each of its calls nobody saw a usual one: what it would take is how long its ops
    ran, from the first one to the end of the last, in the calls that were recorded.
    """
    script, profile = facts.evidence.script, facts.evidence.profile
    if script is None:
        return ()
    traces: dict[str, list[ScriptTrace]] = defaultdict(list)
    for trace in script.traces:
        traces[trace.function].append(trace)
    found = []
    for function in script.functions:
        own = traces[function.id]
        if profile is not None and any(trace.lost_ns is None for trace in own):
            own = _with_costs(own, _running_ns(profile, function))
        found.append(Watched(function, tuple(own)))
    return tuple(found)


@fact
def watched_by_name(facts: Facts) -> Mapping[str, Watched]:
    """The same by the name that each trace has in the profile."""
    return {name: one for one in facts(watched) for name in one.function.concretes}


def _with_costs(traces: list[ScriptTrace], usual_ns: int | None) -> list[ScriptTrace]:
    if usual_ns is None:
        return traces
    return [
        trace if trace.lost_ns is not None else replace(trace, lost_ns=max(trace.ns - usual_ns, 0)) for trace in traces
    ]


def _running_ns(profile: Profile, function: ScriptFunction) -> int | None:
    """Return the median time from the first op of a recorded run to the end of the last; ``None`` without ops."""
    names = frozenset(function.concretes)
    runs = [position for position, run in enumerate(profile.runs) if run.program in names]
    if not runs or not profile.ops:
        return None
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    bounds: dict[int, tuple[int, int]] = {}
    for event in OpEvents.of(profile.ops).of_runs(frozenset(runs)):
        start_ns, end_ns = bounds.get(event.run, (event.start_ns, event.end_ns))
        bounds[event.run] = min(start_ns, event.start_ns), max(end_ns, event.end_ns)
    bounds.pop(NO_RUN, None)
    return round(median(end - start for start, end in bounds.values())) if bounds else None
