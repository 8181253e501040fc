"""Join the profile's events to the ops of the graph, and time each op."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from graphlens.facts.clock import hosts
from graphlens.facts.clock.cycle import ALL_ALIKE, Cycle, cycle_of
from graphlens.facts.clock.division import STATES, Division, wait_name
from graphlens.facts.clock.steps import Steps, length_ns, steps_of, typical
from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.names import Names, device_name
from graphlens.facts.flat.scopes import canonical_name
from graphlens.facts.graphs import executed_graph, joined_loosely, origins, renamed, traced_graph
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.facts.time.iterations import as_replayed, by_iterations
from graphlens.ir.evidence import Evidence
from graphlens.ir.ops import COMPOSITE, TRANSFERS
from graphlens.ir.run import NO_RUN, OpTiming, Profile, ReplayRecord
from graphlens.ir.table import Table

if TYPE_CHECKING:
    from graphlens.facts.clock.step_events import Seen, StepEvents


class Unjoined(NamedTuple):
    """Events of one name that belong to no executed op, or to one that no traced op explains."""

    name: str
    op: str
    ns: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """The profile after the join.

    Attributes
    ----------
    timings
        Op -> its time; ops that were not seen are absent.
    wall_ns, host_wall_ns
        The wall time of each profiled step, without a slow first one; and those of each host.
    active_ns
        Op (or a state of ``facts.division``) -> wall time summed over the typical steps, each instant given to what was
        running in it, in equal parts when several ops were.
    op_types
        Op -> the type it ran as.
    event_ns, joined_ns
        Summed self time of all op events and kernels in the steps, and of those joined to the graph: to an executed
        *and* on to a traced op where both graphs are known.
    unjoined
        What was not joined, by falling time, per step.
    instructions
        Module that XLA compiled for the host -> the ops that its thunks are booked under.
    threads
        How many threads and streams ran those events.
    cycle
        How steps of several kinds follow each other.
    whole_steps, whole_ns
        The steps, from the first on, that are whole cycles; and op -> what its events in these take together.  What
        runs in some steps only is in a mean over them as often as it runs, and in a median as if it ran in each.
    steps_marked
        Whether the profile says where its steps are; otherwise all of it counts as one.
    notes
        What has to be known about how the profile was read.
    """

    timings: Mapping[str, OpTiming] = field(default_factory=dict)
    wall_ns: tuple[int, ...] = ()
    host_wall_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    active_ns: Mapping[str, float] = field(default_factory=dict)
    op_types: Mapping[str, str] = field(default_factory=dict)
    event_ns: int = 0
    joined_ns: int = 0
    unjoined: tuple[Unjoined, ...] = ()
    instructions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threads: int = 0
    cycle: Cycle = ALL_ALIKE
    whole_steps: int = 0
    whole_ns: Mapping[str, int] = field(default_factory=dict)
    steps_marked: bool = True
    notes: tuple[str, ...] = ()


@fact
def attribution(facts: Facts) -> Attribution:
    """The profile joined to the ops: timings, the unjoined rest, and per-step composition.

    The ops are the executed ones; those of the graph as written where no other graph is known.
    """
    ran, written = facts(executed_graph), facts(traced_graph)
    return attribute(
        facts.evidence,
        facts(judged_profile),
        written if ran is None else ran,
        None if ran is None or written is None else facts(origins),
        loosely=facts(joined_loosely),
        renamed=facts(renamed),
    )


@fact
def timings(facts: Facts) -> Mapping[str, OpTiming]:
    """Op of the judged graph -> its time; ops that were not seen are absent."""
    return facts(attribution).timings


def attribute(
    evidence: Evidence,
    profile: Profile | None,
    graph: Table | None,
    origins: Mapping[str, tuple[str, ...]] | None = None,
    *,
    loosely: bool = False,
    renamed: Mapping[str, str | None] = MappingProxyType({}),
) -> Attribution:
    """Join ``profile`` to the ops of ``graph``; empty when there is no profile.

    Parameters
    ----------
    profile
        That of the program that is judged.
    graph
        The executed graph, or the one as written where no other is known; ``None`` for a profile alone, whose ops are
        then grouped by their names.
    origins
        Executed op -> the traced ops that it stands for; ``None`` when only one of the two graphs is known.
    loosely
        The profile is not of this very graph: names are translated (see ``facts.names``).
    renamed
        The ops that do not run under their own names (``facts.renames``).
    """
    profile = hosts.in_turn(profile) if profile else None
    replay = _replay_timings(evidence.replay, graph)
    steps = steps_of(profile) if profile else None
    if profile is None or steps is None or not steps.windows:
        return Attribution(timings=replay)
    # These need numpy, which graphs alone do not.
    from graphlens.facts.clock.layers import divide
    from graphlens.facts.clock.step_events import StepEvents, all_ops

    names = Names(graph, loosely, renamed, profile.modules)
    ops = all_ops(profile, names)
    events = StepEvents.of(profile, ops, steps.windows, names)
    lengths_ns = tuple(map(length_ns, steps.windows))
    cycle = cycle_of(events.nodes(), lengths_ns) if _hold_their_own_ops(steps) else ALL_ALIKE
    # What runs in some steps only would be lost among typical ones: then all of them are divided.
    division = divide(profile, ops, steps.windows if cycle.kinds else typical(steps), names)
    instructions = _instructions(profile, names)
    timings = _timings(profile, events, names, division, frozenset().union(*instructions.values()))
    whole_steps = events.count - events.count % (cycle.length or 1)
    event_ns, joined_ns, unjoined = _join_totals(events, names, origins)
    return Attribution(
        timings=_prefer_replay_in_loops(timings, replay),
        wall_ns=lengths_ns,
        host_wall_ns={host: tuple(map(length_ns, spans)) for host, spans in steps.by_host.items()},
        active_ns=division.active_ns,
        op_types=names.types,
        event_ns=event_ns,
        joined_ns=joined_ns,
        unjoined=unjoined,
        instructions=instructions,
        threads=events.threads,
        cycle=cycle,
        whole_steps=whole_steps,
        whole_ns=events.first_steps_ns(whole_steps, names),
        steps_marked=steps.marked,
        notes=steps.notes,
    )


def _hold_their_own_ops(steps: Steps) -> bool:
    """Whether it is known which ops belong to which step.

    Iterations of one run overlap: ops of the next one run before the last has ended.  Steps of several hosts do, too.
    """
    runs = [window.run for window in steps.windows if window.run != NO_RUN]
    return len(steps.by_host) == 1 and len(set(runs)) == len(runs)


# -- the time of an op --------------------------------------------------------------------------------------------


def _timings(
    profile: Profile, events: StepEvents, names: Names, division: Division, thunks: frozenset[str]
) -> dict[str, OpTiming]:
    """Return the time of every op: of its kernels where it has any, else of its own events on the host.

    ``thunks`` are the ops whose events there are those of compiled instructions.
    """
    n, on_host, on_device = events.count, events.on_host(names), events.on_device(names)
    timings = {
        name: _timing(seen, n, division.share(name), "kernel" if name in thunks else "profile")
        for name, seen in on_host.items()
    }
    devices = _devices_of_ops(profile, events, names)
    for name, seen in on_device.items():
        own = _timing(seen, n, division.share(name), "kernel")
        timings[name] = _launched(replace(own, device=devices[name]), timings.get(name))
    waited = Counter(names.key(*wait_name(wait, names)) for wait in events.waits)
    for name, ns in division.active_ns.items():
        if name not in timings and name not in STATES:
            calls = max(1, waited[name]) / n  # one that began before the steps is one all the same
            timings[name] = OpTiming(round(ns / division.steps), calls, division.share(name), "profile")
    return by_iterations(timings)


def _instructions(profile: Profile, names: Names) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for kernel in profile.kernels:
        found[kernel.hlo_module].add(names.key(*names.instruction(kernel)))
    return {module: frozenset(ops) for module, ops in found.items()}


def _timing(seen: Seen, n: int, share: float | None, source: Literal["profile", "kernel"]) -> OpTiming:
    return OpTiming(seen.median_ns, seen.calls / n, share, source)


def _launched(kernels: OpTiming, launch: OpTiming | None) -> OpTiming:
    """Return the time of an op's kernels with that of their launch: one execution may launch several."""
    if launch is None:
        return kernels
    return replace(kernels, calls_per_step=launch.calls_per_step, host_ns=launch.self_ns)


def _devices_of_ops(profile: Profile, events: StepEvents, names: Names) -> Mapping[str, str]:
    """Return the devices that ran the kernels of each op."""
    return {
        name: ", ".join(device_name(profile, position) for position in sorted(found))
        for name, found in events.devices(names).items()
    }


# -- what was joined ----------------------------------------------------------------------------------------------


def _join_totals(
    events: StepEvents, names: Names, origins: Mapping[str, tuple[str, ...]] | None
) -> tuple[int, int, tuple[Unjoined, ...]]:
    measured = events.measured_ns()
    rest = Counter({key: ns for key, ns in measured.items() if not _is_joined(*key, names, origins)})
    total = measured.total()
    unjoined = tuple(Unjoined(name, op, round(ns / events.count)) for (name, op), ns in rest.most_common())
    return total, total - rest.total(), unjoined


def _is_joined(name: str, op: str, names: Names, origins: Mapping[str, tuple[str, ...]] | None) -> bool:
    if origins is None:
        return names.explains(name, op)
    found = names.find(name, op)
    # A transfer is no op as written; that the executed graph holds it says whose tensor it carries.
    return found is not None and (op in TRANSFERS or bool(origins.get(found)))


# -- the second route ---------------------------------------------------------------------------------------------


def _replay_timings(replay: Mapping[str, ReplayRecord], executed: Table | None) -> dict[str, OpTiming]:
    """Return the times of ops; those of calls are the times of what they call, and are left out."""
    if executed is None or not replay:
        return {}
    records = {canonical_name(name): record for name, record in replay.items()}
    timings = {}
    for name, op in executed.items():
        record = records.get(canonical_name(name)) if op.type not in COMPOSITE else None
        if record and record.durations_ns:
            timings[name] = OpTiming(round(median(record.durations_ns)), float(record.calls), None, "replay")
    return timings


def _prefer_replay_in_loops(timings: Mapping[str, OpTiming], replay: Mapping[str, OpTiming]) -> dict[str, OpTiming]:
    """Use the replay for ops that the profile missed, and for loop ops of which it saw only some iterations."""
    merged = dict(replay)
    for name, timing in timings.items():
        merged[name] = as_replayed(timing, replay.get(name)) or replace(replay[name], wall_share=timing.wall_share)
    return merged
