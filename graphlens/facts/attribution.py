"""Join the profile's events to executed ops, and divide every instant of a step among what was running."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

import networkx as nx

from graphlens.facts.flat import canonical_name
from graphlens.ir.evidence import Evidence
from graphlens.ir.ops import ASYNCHRONOUS
from graphlens.ir.run import OpEvent, OpTiming, Profile, ReplayRecord, Span

# The states of an instant in which no op runs.  No op can be called that: names never begin with a zero byte.
EXECUTOR: Final = "\0executor"
HANDOFF: Final = "\0hand-off"
DISPATCH: Final = "\0dispatch"

# The first profiled step was up to 2.5 times slower than the rest; it is left out when enough others remain.
FEWEST_STEPS_TO_DROP_FIRST: Final = 4

# Wall time is divided over the middle half of the steps (by their length), so that a step during which another program
# had the processor does not colour the whole picture; below this many steps all are used.
FEWEST_STEPS_TO_TRIM: Final = 8

# A loop op of which the profile saw fewer of the replayed executions than this share is timed by the replay.
COMPLETE_SHARE: Final = 0.98

# Composite calls complete when their callee does: their waiting is their callee's work, and is no wait of its own.
_COMPOSITE = frozenset(
    """PartitionedCall StatefulPartitionedCall RemoteCall If While Case StatelessIf StatelessWhile StatelessCase
    MapDefun""".split()
)


class Interval(NamedTuple):
    """A stretch of time in which ``key`` was active."""

    start_ns: int
    end_ns: int
    key: str


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
        Executed op -> its time; ops that were not seen are absent.
    wall_ns
        The wall time of each profiled step, without a slow first one.
    active_ns
        Executed op (or ``executor``, ``hand-off``, ``dispatch``) -> wall time summed over the typical steps, each
        instant given to what was running in it, in equal parts when several ops were.
    event_ns, joined_ns
        Summed self time of all op events in the steps, and of those joined to an executed *and* on to a traced op.
    unjoined
        What was not joined, by falling time, per step.
    parallelism
        Mean number of ops running while at least one was.
    """

    timings: Mapping[str, OpTiming] = field(default_factory=dict)
    wall_ns: tuple[int, ...] = ()
    active_ns: Mapping[str, float] = field(default_factory=dict)
    op_types: Mapping[str, str] = field(default_factory=dict)
    event_ns: int = 0
    joined_ns: int = 0
    unjoined: tuple[Unjoined, ...] = ()
    parallelism: float | None = None


def attribute(
    evidence: Evidence, executed: nx.MultiDiGraph | None, origins: Mapping[str, tuple[str, ...]]
) -> Attribution:
    """Join ``evidence.profile`` to the executed graph; empty when there is no profile."""
    replay = _replay_timings(evidence.replay, executed)
    windows = _windows(evidence.profile) if evidence.profile else []
    if not evidence.profile or not windows:
        return Attribution(timings=replay)
    names = _Names(executed)
    steps = _events_by_step(evidence.profile, windows)
    per_op = _self_times(steps, names)
    typical = _typical(windows)
    active = _divide(evidence.profile, typical, names)
    division = _Division(active, sum(map(_length_ns, typical)), len(typical))
    timings = _timings(per_op, division, len(windows), {event.node for event in _kernels_as_ops(evidence.profile)})
    event_ns, joined_ns, unjoined = _join_totals(steps, names, origins)
    return Attribution(
        timings=_prefer_replay_in_loops(timings, replay),
        wall_ns=tuple(map(_length_ns, windows)),
        active_ns=active,
        op_types=names.types,
        event_ns=event_ns,
        joined_ns=joined_ns,
        unjoined=unjoined,
        parallelism=_parallelism(steps, timings, sum(map(_length_ns, windows))),
    )


class _Names:
    """Look up the executed op that an event's name means, and the type it ran as."""

    def __init__(self, executed: nx.MultiDiGraph | None) -> None:
        self.known: dict[str, str] = {}
        self.types: dict[str, str] = {}
        tails: Counter[str] = Counter()
        by_tail: dict[str, str] = {}
        for name, op in executed.nodes(data="op") if executed is not None else ():
            self.known[name] = name
            self.types[name] = op.type
            # The ops of a function that was not inlined are reported without the path of their call.
            for tail in _function_tails(name):
                tails[tail] += 1
                by_tail[tail] = name
        self.unique_tails = {tail: name for tail, name in by_tail.items() if tails[tail] == 1}

    def find(self, name: str) -> str | None:
        return self.known.get(name) or self.unique_tails.get(name)

    def key(self, name: str, op: str) -> str:
        """Return the executed op, or the event's own name for an op that is in no graph."""
        found = self.find(name) or name
        self.types.setdefault(found, op)
        return found


def _function_tails(name: str) -> Iterable[str]:
    """Yield the name without 1, 2, … leading segments."""
    position = name.find("/")
    while position >= 0:
        yield name[position + 1 :]
        position = name.find("/", position + 1)


def _windows(profile: Profile) -> list[Span]:
    """Return the steps to use: the markers, else the outermost function runs, without a slow first one."""
    spans = list(profile.steps) or _outermost(profile.functions) or _outermost(profile.executors)
    return spans[1:] if len(spans) >= FEWEST_STEPS_TO_DROP_FIRST else spans


def _outermost(spans: Sequence[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda item: (item.start_ns, -item.end_ns)):
        if not kept or span.start_ns >= kept[-1].end_ns:
            kept.append(span)
    return kept


def _length_ns(span: Span) -> int:
    return span.end_ns - span.start_ns


def _typical(windows: Sequence[Span]) -> list[Span]:
    """Return the middle half of the steps by length, in time order."""
    if len(windows) < FEWEST_STEPS_TO_TRIM:
        return list(windows)
    quarter = len(windows) // 4
    middle = sorted(windows, key=_length_ns)[quarter : len(windows) - quarter]
    return sorted(middle, key=lambda span: span.start_ns)


class _Division(NamedTuple):
    """Wall time by what was running, over ``steps`` steps of ``wall_ns`` in all."""

    active_ns: Mapping[str, float]
    wall_ns: int
    steps: int

    def share(self, name: str) -> float | None:
        return self.active_ns.get(name, 0.0) / self.wall_ns if self.wall_ns else None


def _events_by_step(profile: Profile, windows: Sequence[Span]) -> list[list[OpEvent]]:
    steps: list[list[OpEvent]] = [[] for _ in windows]
    starts = [window.start_ns for window in windows]
    for event in (*profile.ops, *_kernels_as_ops(profile)):
        index = bisect_right(starts, event.start_ns) - 1
        if index >= 0 and event.start_ns < windows[index].end_ns:
            steps[index].append(event)
    return steps


def _kernels_as_ops(profile: Profile) -> list[OpEvent]:
    return [
        OpEvent(f"{k.hlo_module}/{k.hlo_op}", "XlaKernel", k.start_ns, k.end_ns, k.end_ns - k.start_ns, k.thread)
        for k in profile.kernels
    ]


def _self_times(steps: Sequence[Sequence[OpEvent]], names: _Names) -> Mapping[str, list[tuple[int, int]]]:
    """Return executed op -> ``(self_ns, calls)`` of every step in which it was seen."""
    per_op: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for events in steps:
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for event in events:
            total = totals[names.key(event.node, event.op)]
            total[0] += event.self_ns
            total[1] += 1
        for name, (self_ns, calls) in totals.items():
            per_op[name].append((self_ns, calls))
    return per_op


def _timings(
    per_op: Mapping[str, list[tuple[int, int]]], division: _Division, n: int, kernels: Collection[str]
) -> dict[str, OpTiming]:
    timings = {
        name: OpTiming(
            self_ns=round(median(self_ns for self_ns, _ in seen)),
            calls_per_step=sum(calls for _, calls in seen) / n,
            wall_share=division.share(name),
            source="kernel" if name in kernels else "profile",
        )
        for name, seen in per_op.items()
    }
    for name, ns in division.active_ns.items():
        if name not in timings and name not in (EXECUTOR, HANDOFF, DISPATCH):
            timings[name] = OpTiming(round(ns / division.steps), 1.0, division.share(name), "profile")
    return timings


# -- the division of wall time ------------------------------------------------------------------------------------


def _divide(profile: Profile, windows: Sequence[Span], names: _Names) -> dict[str, float]:
    """Give every instant of every window to the ops running in it, else to the most specific known state."""
    ops = [Interval(start, end, names.key(e.node, e.op)) for e, start, end in _own_pieces(profile)]
    waits = [
        Interval(span.start_ns, span.end_ns, names.key(*_wait_name(span, names)))
        for span in profile.waits
        if _is_real_wait(span, names)
    ]
    executors = [Interval(s.start_ns, s.end_ns, EXECUTOR) for s in profile.executors]
    functions = [Interval(s.start_ns, s.end_ns, HANDOFF) for s in profile.functions]
    return _sweep(windows, (ops, waits, executors, functions))


def _own_pieces(profile: Profile) -> Iterator[tuple[OpEvent, int, int]]:
    """Yield the stretches in which an op itself ran, without what ran nested in it on the same thread.

    A ``_Send`` runs its receiver, and whatever that makes ready, before it returns.
    """
    threads: dict[int, list[OpEvent | Span]] = defaultdict(list)
    running: list[OpEvent | Span] = [*profile.ops, *_kernels_as_ops(profile), *profile.executors]
    for item in running:
        threads[item.thread].append(item)
    for items in threads.values():
        yield from _innermost(sorted(items, key=lambda item: (item.start_ns, -item.end_ns)))


def _innermost(items: Sequence[OpEvent | Span]) -> Iterator[tuple[OpEvent, int, int]]:
    """Walk one thread's nested intervals; each instant belongs to the last one that was opened and not yet closed."""
    stack: list[OpEvent | Span] = []
    since_ns = 0
    for item in [*items, None]:
        start_ns = item.start_ns if item else None
        while stack and (start_ns is None or stack[-1].end_ns <= start_ns):
            top = stack.pop()
            if isinstance(top, OpEvent) and top.end_ns > since_ns:
                yield top, since_ns, top.end_ns
            since_ns = max(since_ns, top.end_ns)
        if item is None:
            return
        if stack and isinstance(stack[-1], OpEvent) and item.start_ns > since_ns:
            yield stack[-1], since_ns, item.start_ns
        stack.append(item)
        since_ns = item.start_ns


def _wait_name(span: Span, names: _Names) -> tuple[str, str]:
    name, _, op = span.name.rpartition(":") if ":" in span.name else (span.name, "", "")
    return name, op or names.types.get(names.find(name) or "", "wait")


def _is_real_wait(span: Span, names: _Names) -> bool:
    name, op = _wait_name(span, names)
    op = names.types.get(names.find(name) or "", op)
    return op in ASYNCHRONOUS and op not in _COMPOSITE


def _sweep(windows: Sequence[Span], layers: Sequence[Sequence[Interval]]) -> dict[str, float]:
    """Divide the windows among the intervals.

    ``layers`` are ordered by precedence: an instant belongs to the first layer that has an active interval; the
    layer's active keys share it equally.  What no layer covers is ``dispatch`` (Python and the call's own overhead).
    """
    boundaries = _boundaries(windows, layers)
    active: list[Counter[str]] = [Counter() for _ in layers]
    shares: dict[str, float] = defaultdict(float)
    inside, last_ns = 0, 0
    for time_ns, layer, change, key in boundaries:
        if inside and time_ns > last_ns:
            _share(shares, active, time_ns - last_ns)
        last_ns = time_ns
        if layer < 0:
            inside += change
        elif change > 0:
            active[layer][key] += 1
        else:
            _remove(active[layer], key)
    return shares


def _boundaries(windows: Sequence[Span], layers: Sequence[Sequence[Interval]]) -> list[tuple[int, int, int, str]]:
    boundaries = [
        (time_ns, layer, change, item.key)
        for layer, intervals in enumerate(layers)
        for item in intervals
        if item.end_ns > item.start_ns
        for time_ns, change in ((item.start_ns, 1), (item.end_ns, -1))
    ]
    for window in windows:
        boundaries += [(window.start_ns, -1, 1, ""), (window.end_ns, -1, -1, "")]
    boundaries.sort()
    return boundaries


def _share(shares: dict[str, float], active: Sequence[Counter[str]], ns: int) -> None:
    for counter in active:
        if counter:
            for key in counter:
                shares[key] += ns / len(counter)
            return
    shares[DISPATCH] += ns


def _remove(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _parallelism(steps: Sequence[Sequence[OpEvent]], timings: Mapping[str, OpTiming], wall_ns: int) -> float | None:
    covered = wall_ns * sum(timing.wall_share or 0.0 for timing in timings.values())
    busy = sum(event.end_ns - event.start_ns for events in steps for event in events)
    return busy / covered if covered else None


# -- what was joined ----------------------------------------------------------------------------------------------


def _join_totals(
    steps: Sequence[Sequence[OpEvent]], names: _Names, origins: Mapping[str, tuple[str, ...]]
) -> tuple[int, int, tuple[Unjoined, ...]]:
    joined_ns = 0
    rest: Counter[tuple[str, str]] = Counter()
    for event in (event for events in steps for event in events):
        found = names.find(event.node)
        if found and origins.get(found):
            joined_ns += event.self_ns
        else:
            rest[event.node, event.op] += event.self_ns
    total = joined_ns + sum(rest.values())
    unjoined = tuple(Unjoined(name, op, round(ns / len(steps))) for (name, op), ns in rest.most_common())
    return total, joined_ns, unjoined


# -- the second route ---------------------------------------------------------------------------------------------


def _replay_timings(replay: Mapping[str, ReplayRecord], executed: nx.MultiDiGraph | None) -> dict[str, OpTiming]:
    if executed is None:
        return {}
    records = {canonical_name(name): record for name, record in replay.items()}
    timings = {}
    for name in executed.nodes:
        record = records.get(canonical_name(name))
        if record and record.durations_ns:
            timings[name] = OpTiming(round(median(record.durations_ns)), float(record.calls), None, "replay")
    return timings


def _prefer_replay_in_loops(timings: Mapping[str, OpTiming], replay: Mapping[str, OpTiming]) -> dict[str, OpTiming]:
    """Use the replay for ops that the profile missed, and for loop ops of which it saw only some iterations."""
    merged = dict(replay)
    for name, timing in timings.items():
        other = replay.get(name)
        in_loop = other is not None and other.calls_per_step > 1
        if other is None or not in_loop or timing.calls_per_step >= other.calls_per_step * COMPLETE_SHARE:
            merged[name] = timing
        else:
            merged[name] = OpTiming(other.self_ns, other.calls_per_step, timing.wall_share, "replay")
    return merged
