"""Divide the time from step to step among what the executor, the Python program and the input pipeline did in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from graphlens.facts.clock.periods import Stretch
from graphlens.facts.clock.sweep import Intervals, Windows, divide_among, pairs
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.time.data_loops import first_of_loops
from graphlens.ir.columns import DeviceEvents, OpEvents, Spans
from graphlens.ir.iterators import InputRequest
from graphlens.ir.ops import ASYNCHRONOUS, COMPOSITE, INPUT_REQUESTS, LOOP_OVER_DATASET
from graphlens.ir.run import EAGER_LOOP, NO_RUN, Activity, KernelEvent, Mark, Profile, Run, Span

# What goes on, by precedence: an instant in which several of them do belongs to the first.
COMPILING: Final = "compiling by XLA"
OPS: Final = "ops of the step"
EXECUTOR: Final = "executor: scheduling, control flow and ops too cheap to be timed"
INPUT: Final = "waiting for input"
# What a call that loops over a dataset does once.  The end may take as long as all of the epoch: now and then
# TensorFlow 2.21 deletes an iterator only when what tunes it has slept out.
STARTING: Final = "start of the loop: making its iterator, and the first element"
ENDING: Final = "end of the loop: deleting its iterator, and what follows"
TRACING: Final = "tracing the function"
HANDOFF: Final = "unattributed"  # between threads of the executor, none of which does anything
DISPATCH: Final = "calling the function: Python and eager dispatch"
OTHERS: Final = "other functions that were called"
READING: Final = "reading results back"
FEEDING: Final = "feeds and fetches of the Session"
EAGER: Final = "dispatch of eager ops"
PYTHON: Final = "Python between steps"

# A wait of another op is for a function that it calls, or for an element of a dataset.
_WAITING: Final = ASYNCHRONOUS - COMPOSITE - INPUT_REQUESTS


def divided(profile: Profile, program: ProgramRuns, stretches: Sequence[Stretch]) -> Mapping[str, float]:
    """Return what went on in some stretches of time, and for how long in all: each instant is one thing's."""
    doings = [(name, doing) for name, doing in _doings(profile, program) if len(doing.start_ns)]
    layers = [_keyed(doing, key) for key, (_, doing) in enumerate(doings)]
    shares = divide_among(Windows.of([_span(stretch) for stretch in stretches]), layers, len(doings))
    names = [*(name for name, _ in doings), PYTHON]
    return {names[share.key]: share.ns for share in sorted(shares, key=lambda share: share.key)}


def _keyed(doing: Intervals, key: int) -> Intervals:
    return Intervals(doing.start_ns, doing.end_ns, np.full(len(doing.start_ns), key))


def _span(stretch: Stretch) -> Span:
    return Span("", stretch.start_ns, stretch.end_ns, 0)


def _doings(profile: Profile, program: ProgramRuns) -> Iterator[tuple[str, Intervals]]:
    runs = frozenset(program.runs)
    threads = frozenset(profile.runs[run].thread for run in runs)
    executors = Spans.of(profile.executors).of_runs(runs)

    def is_own(event: Activity | Span) -> bool:
        return event.run in runs or (event.run == NO_RUN and event.thread in threads)

    def doing(kind: str) -> Intervals:
        return _of(one for one in profile.activities if one.kind == kind and is_own(one))

    def marked(kind: str) -> Intervals:
        return _of(mark for mark in profile.marks if mark.kind == kind and mark.thread in threads)

    calls = calls_of(profile, runs, executors)
    yield COMPILING, _of(one for one in profile.activities if one.kind == "compile")  # it says not for which run
    yield OPS, _joined(_ops(profile, runs))
    first = first_of_loops(profile)
    yield STARTING, _intervals(_starts(first, calls))
    yield ENDING, _intervals(_endings(profile, runs & first.keys()))
    yield EXECUTOR, _joined([_columns(executors), _of(one for one in profile.executions if one.run in runs)])
    yield INPUT, _joined(_asked(profile, runs, is_own))
    yield TRACING, _intervals((call.start_ns, call.works_from_ns) for call in calls if call.traced)
    yield HANDOFF, _intervals((call.works_from_ns, call.works_until_ns) for call in calls)
    yield DISPATCH, _intervals((call.start_ns, call.end_ns) for call in calls)
    yield OTHERS, _of(run for run in profile.runs if run.thread in threads and run.program != EAGER_LOOP)
    yield READING, marked("read")
    yield FEEDING, marked("session")
    yield EAGER, doing("eager")


def _asked(profile: Profile, runs: Collection[int], is_own: Callable[[Activity], bool]) -> Iterator[Intervals]:
    """Yield when elements were asked for.

    A loop within tf.data asks between its bodies, in which it does more than that: where its requests themselves were
    recorded, it is they that count.
    """
    requests = [one for one in profile.requests if one.run in runs]
    inputs = (one for one in profile.activities if one.kind == "input" and is_own(one))
    yield _of(one for one in inputs if not (requests and one.name == LOOP_OVER_DATASET))
    yield _intervals((one.start_ns, one.end_ns) for one in requests)


def _starts(first: Mapping[int, InputRequest], calls: Iterable[Call]) -> Iterator[tuple[int, int]]:
    """Yield from when a loop over a dataset began to work until it had its first element."""
    for call in calls:
        if call.run in first:
            asked = first[call.run]
            yield min(call.works_from_ns, asked.start_ns), asked.end_ns


def _endings(profile: Profile, loops: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield from when a loop over a dataset had no more elements until its call returned."""
    asked_ns: dict[int, int] = {}
    for request in profile.requests:
        if request.run in loops and request.start_ns < profile.runs[request.run].end_ns:
            asked_ns[request.run] = max(asked_ns.get(request.run, 0), request.end_ns)
    for position in loops:
        run = profile.runs[position]
        yield min(max(run.iterations[-1][1], asked_ns.get(position, 0)), run.end_ns), run.end_ns


# -- what the executor did -----------------------------------------------------------------------------------------


def _ops(profile: Profile, runs: Collection[int]) -> Iterator[Intervals]:
    """Yield when ops of some runs were at work on the host or on a device, or waited for another device."""
    yield _columns(OpEvents.of(profile.ops).of_runs(runs))
    yield _of(kernel for kernel in profile.kernels if kernel.run in runs)
    kernels = DeviceEvents.of(profile.kernels_on_device)
    yield _columns(kernels.where(np.isin(kernels.run, list(runs))))
    yield _of(wait for wait in profile.waits if wait.run in runs and wait.name.rpartition(":")[2] in _WAITING)


class Call(NamedTuple):
    """A run, and when its executors began and ended to work: at its end both, where they are not seen."""

    run: int
    start_ns: int
    works_from_ns: int
    works_until_ns: int
    end_ns: int
    traced: bool


def calls_of(profile: Profile, runs: Collection[int], executors: Spans) -> list[Call]:
    """Return some runs as calls; ``executors`` are theirs."""
    from_ns, until_ns = _extents(executors)
    found = []
    for position in runs:
        run = profile.runs[position]
        if run.program == EAGER_LOOP:  # nothing is called: its ops are dispatched one by one
            continue
        begins_ns = min(max(from_ns.get(position, run.end_ns), run.start_ns), run.end_ns)
        ends_ns = min(max(until_ns.get(position, run.end_ns), begins_ns), run.end_ns)
        found.append(Call(position, run.start_ns, begins_ns, ends_ns, run.end_ns, run.traced))
    return found


def _extents(executors: Spans) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Return when the first executor of each run begins, and when its last one ends."""
    runs, own = np.unique(executors.run, return_inverse=True)
    from_ns, until_ns = np.full(len(runs), np.iinfo(np.int64).max), np.full(len(runs), np.iinfo(np.int64).min)
    np.minimum.at(from_ns, own, executors.start_ns)
    np.maximum.at(until_ns, own, executors.end_ns)
    positions = runs.tolist()
    return dict(zip(positions, from_ns.tolist(), strict=True)), dict(zip(positions, until_ns.tolist(), strict=True))


# -- intervals -----------------------------------------------------------------------------------------------------


def _columns(events: OpEvents | Spans | DeviceEvents) -> Intervals:
    return Intervals(events.start_ns, events.end_ns, np.zeros(len(events), np.int64))


def _of(events: Iterable[Activity | KernelEvent | Mark | Run | Span]) -> Intervals:
    return _intervals((event.start_ns, event.end_ns) for event in events)


def _intervals(stretches: Iterable[tuple[int, int]]) -> Intervals:
    starts_ns, ends_ns = pairs(stretches)
    return Intervals(starts_ns, ends_ns, np.zeros(len(starts_ns), np.int64))


def _joined(parts: Iterable[Intervals]) -> Intervals:
    columns = zip(*((part.start_ns, part.end_ns, part.key) for part in parts), strict=True)
    return Intervals(*map(np.concatenate, columns))
