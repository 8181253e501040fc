"""Which executions of which programs a host plane shows: calls, launches and executors, put together to runs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Final, NamedTuple

import numpy as np

from graphlens.ir.columns import Ints, Spans
from graphlens.ir.run import NO_RUN, SESSION, Run, Span

GRAPH_RUNNER: Final = -1  # the step id under which TensorFlow folds constants and runs graphs of its own: no step
TRACED: Final = "traced"  # how the text begins by which Python's call of a function says that it was traced

_LOOP_OF_A_REDUCTION: Final = "ReduceIterator::"  # how the stages of a loop over a dataset are called
_BODY_OF_A_LOOP: Final = "::Scan"  # AutoGraph makes a loop over a dataset a scan, which is then reduced
_LEVEL: Final = "::"


@dataclass(slots=True)
class Seen:
    """What a plane shows of executions.

    Attributes
    ----------
    calls
        Python's calls of a ``tf.function``, under the text that says whether it was traced.
    functions
        Executions of a function by the eager runtime, under the function's own name.
    sessions
        ``Session.run``, with its step id.
    launches
        ``FunctionRun``: they tell the step id, and return early.
    captured
        Functions that tf.data called, under the name of the stage that did.
    reductions
        Loops over a dataset that run within tf.data.
    executors
        What an executor did at a stretch.
    compilations
        Where XLA compiled.
    """

    calls: list[Span] = field(default_factory=list)
    functions: list[Span] = field(default_factory=list)
    sessions: list[Span] = field(default_factory=list)
    launches: list[Span] = field(default_factory=list)
    captured: list[Span] = field(default_factory=list)
    reductions: list[Span] = field(default_factory=list)
    executors: Spans = field(default_factory=lambda: Spans.of(()))
    compilations: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class RunTable:
    """The runs of a plane, and which of them a step id means at a time: ids are used again.

    ``loops`` are the executions, by tf.data, of the body of a loop: they are parts of the run around it.
    """

    runs: list[Run] = field(default_factory=list)
    begun: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    loops: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))

    def add(self, run: Run) -> int:
        """Take up a run; return its position."""
        self.runs.append(run)
        return len(self.runs) - 1

    def executes(self, position: int, step_id: int, start_ns: int) -> None:
        """Note that a run executes under ``step_id`` from a moment on."""
        insort(self.begun[step_id], (start_ns, position))

    def at(self, step_id: int, time_ns: int) -> int:
        """Return the run that ``step_id`` means at a time, ``NO_RUN`` where none does."""
        begun = self.begun.get(step_id)
        if begun is None:
            return NO_RUN
        index = bisect_right(begun, (time_ns, len(self.runs))) - 1
        return begun[index][1] if index >= 0 else NO_RUN


def assemble(seen: Seen) -> tuple[RunTable, Ints]:
    """Return the runs of a plane, each as long as the call around it, or else to the end of its last executor.

    Beside them: which of the runs every executor is part of.
    """
    table = RunTable()
    _add_called(table, seen)
    _add_sessions(table, seen)
    _add_loops(table, seen)
    _add_captured(table, seen)
    _add_launched(table, seen)
    return table, _add_executed(table, seen)


# -- which runs there are ------------------------------------------------------------------------------------------


def _add_called(table: RunTable, seen: Seen) -> None:
    """Add the executions of functions, and tell by the launches within them under which ids they execute."""
    launches = by_thread(seen.launches)
    called = [
        _Called(function, call, tuple(within(launches.get(function.thread, ()), function)))
        for function, call in _with_calls(seen.calls, seen.functions)
    ]
    compiling = _compiling([call for _, call, _ in called], seen.compilations)
    for function, call, launched in _without_servers(called):
        traced = call.name.startswith(TRACED) or id(call) in compiling
        position = table.add(Run(function.name, call.start_ns, call.end_ns, call.thread, traced=traced))
        for launch in launched:
            table.executes(position, launch.step_id, launch.start_ns)


def _compiling(calls: Sequence[Span], compilations: Iterable[Span]) -> frozenset[int]:
    """Return the calls for which XLA compiled, by their identity: those on its thread, else the only one meanwhile."""
    found: set[int] = set()
    for compilation in compilations:
        meanwhile = [call for call in calls if _overlaps(call, compilation)]
        own = [call for call in meanwhile if call.thread == compilation.thread]
        if own or len(meanwhile) == 1:
            found.update(map(id, own or meanwhile))
    return frozenset(found)


class _Called(NamedTuple):
    """An execution of a function, the call around it, and what it launched."""

    function: Span
    call: Span
    launched: tuple[Span, ...]


def _without_servers(called: Sequence[_Called]) -> Iterator[_Called]:
    """Yield the executions; what a server of the same process executed for one of them is part of that one."""
    served: dict[str, list[_Called]] = defaultdict(list)
    for one in sorted(called, key=lambda one: one.function.start_ns):
        if one.launched:
            served[one.function.name].append(one)
    asked = {
        id(one): found for one in called if not one.launched and (found := _served(one, served[one.function.name]))
    }
    servers = {id(found) for found in asked.values()}
    for one in called:
        if id(one) not in servers:
            yield one._replace(launched=asked[id(one)].launched) if id(one) in asked else one


def _served(one: _Called, others: Sequence[_Called]) -> _Called | None:
    """Return what another thread executed meanwhile for an execution that launched nothing itself."""
    index = bisect_left(others, one.function.start_ns, key=lambda other: other.function.start_ns)
    found = others[index] if index < len(others) else None
    if found is None or found.function.end_ns > one.function.end_ns or found.function.thread == one.function.thread:
        return None
    return found


def _with_calls(calls: Iterable[Span], functions: Iterable[Span]) -> Iterator[tuple[Span, Span]]:
    """Yield each execution with Python's call around it; one call may prepare several, of which the last is its own."""
    threads: dict[int, list[tuple[int, int, bool, Span]]] = defaultdict(list)
    for is_function, spans in ((False, calls), (True, functions)):
        for span in spans:
            threads[span.thread].append((span.start_ns, -span.end_ns, is_function, span))
    for items in threads.values():
        around = list(_outermost_calls(sorted(items)))
        last = {id(call): index for index, (_, call) in enumerate(around) if call is not None}
        for index, (function, call) in enumerate(around):
            yield function, call if call is not None and last[id(call)] == index else function


def _outermost_calls(items: Iterable[tuple[int, int, bool, Span]]) -> Iterator[tuple[Span, Span | None]]:
    """Yield the executions of one thread, each with the outermost call around it that is within no other execution."""
    opened: list[tuple[bool, Span]] = []
    for start_ns, _, is_function, span in items:
        while opened and opened[-1][1].end_ns <= start_ns:
            opened.pop()
        if is_function:
            yield span, _outermost(opened)
        opened.append((is_function, span))


def _outermost(opened: Sequence[tuple[bool, Span]]) -> Span | None:
    found = None
    for is_function, span in reversed(opened):
        if is_function:
            break
        found = span
    return found


def _add_sessions(table: RunTable, seen: Seen) -> None:
    for session in seen.sessions:
        position = table.add(Run(SESSION, session.start_ns, session.end_ns, session.thread, session.step_id))
        table.executes(position, session.step_id, session.start_ns)


def _add_loops(table: RunTable, seen: Seen) -> None:
    """Note what tf.data executes as the body of a loop: the outermost stage of a reduction that calls a function."""
    own, elsewhere = _called_by_reductions(seen)
    for index, reduction in enumerate(seen.reductions):
        position = table.at(reduction.step_id, reduction.start_ns)
        if position == NO_RUN:
            continue
        called = own.get(index) or list(within(elsewhere, reduction))
        outermost = min((span.name.count(_LEVEL) for span in called), default=0)
        for span in called:
            if span.name.count(_LEVEL) == outermost:
                table.loops[position].append(span)
                table.executes(position, span.step_id, span.start_ns)


def _called_by_reductions(seen: Seen) -> tuple[Mapping[int, Sequence[Span]], Sequence[Span]]:
    """Return what each reduction called on its own thread, and which loop bodies ran on the threads of stages below.

    A pipeline may reduce a dataset for each element: that is done while the loop over the elements runs, and by another
    thread.
    """
    threads: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, reduction in enumerate(seen.reductions):
        threads[reduction.thread].append((reduction.start_ns, index))
    for begun in threads.values():
        begun.sort()
    own: dict[int, list[Span]] = defaultdict(list)
    elsewhere: list[Span] = []
    for span in seen.captured:
        if not span.name.startswith(_LOOP_OF_A_REDUCTION):
            continue
        begun = threads.get(span.thread, [])
        last = bisect_right(begun, (span.start_ns, len(seen.reductions))) - 1
        if last >= 0 and span.start_ns < seen.reductions[begun[last][1]].end_ns:
            own[begun[last][1]].append(span)
        elif span.name.endswith(_BODY_OF_A_LOOP):
            elsewhere.append(span)
    return own, sorted(elsewhere, key=lambda span: span.start_ns)


def _add_captured(table: RunTable, seen: Seen) -> None:
    """Add the functions of datasets; those that are called asynchronously end with their last executor."""
    in_loops = {id(span) for spans in table.loops.values() for span in spans}
    for span in seen.captured:
        if id(span) not in in_loops:
            position = table.add(Run(span.name, span.start_ns, span.end_ns, span.thread, span.step_id))
            table.executes(position, span.step_id, span.start_ns)


def _add_launched(table: RunTable, seen: Seen) -> None:
    """Add what was launched by nobody that is seen: by another language, or by a call that the profile cut off."""
    cut_off = bool(seen.functions or seen.sessions)
    captured: dict[int, list[Span]] = defaultdict(list)
    for span in seen.captured:
        captured[span.step_id].append(span)
    for launch in sorted(seen.launches, key=lambda span: span.start_ns):
        known = table.at(launch.step_id, launch.start_ns)
        if known == NO_RUN or not _may_still_run(table.runs[known], launch, captured):
            position = table.add(
                Run("", launch.start_ns, launch.end_ns, launch.thread, launch.step_id, whole=not cut_off)
            )
            table.executes(position, launch.step_id, launch.start_ns)


def _may_still_run(run: Run, launch: Span, captured: Mapping[int, Sequence[Span]]) -> bool:
    """Tell whether a launch is part of a run: a function that another one calls is launched under the same id."""
    return launch.start_ns < run.end_ns or any(
        span.start_ns <= launch.start_ns < span.end_ns for span in captured.get(launch.step_id, ())
    )


def _add_executed(table: RunTable, seen: Seen) -> Ints:
    """Return the run of every executor, adding those that began before the profile; runs last until their end."""
    # Where nothing is known of calls and launches, it is no sign of having been cut off.
    whole = not (seen.functions or seen.sessions or seen.launches)
    run = _known_runs(table, seen.executors)
    for index, others in _begun_unseen(seen.executors, run):
        span = seen.executors[index]
        run[others] = table.add(Run("", span.start_ns, span.end_ns, span.thread, span.step_id, whole=whole))
        table.executes(int(run[index]), span.step_id, span.start_ns)
    ends_ns = np.full(len(table.runs), np.iinfo(np.int64).min)
    np.maximum.at(ends_ns, run[run != NO_RUN], seen.executors.end_ns[run != NO_RUN])
    for position, run_ns in enumerate(ends_ns.tolist()):
        known = table.runs[position]
        if run_ns > known.end_ns and not _is_called(known):
            table.runs[position] = known._replace(end_ns=run_ns)
    return run


def _by_step(executors: Spans) -> Iterator[tuple[int, Ints]]:
    """Yield the positions of the executors of each step id; what belongs to no step is in none."""
    order = np.argsort(executors.code, kind="stable")
    borders = np.searchsorted(executors.code[order], np.arange(len(executors.kinds) + 1)).tolist()
    for (_, step_id), (first, last) in zip(executors.kinds, pairwise(borders), strict=True):
        if step_id not in (GRAPH_RUNNER, 0) and first < last:
            yield step_id, order[first:last]


def _known_runs(table: RunTable, executors: Spans) -> Ints:
    """Return the run that each executor is part of: the last one that began under its step id."""
    run = np.full(len(executors), NO_RUN)
    for step_id, positions in _by_step(executors):
        begun = table.begun.get(step_id)
        if begun:
            starts_ns, runs = np.array(begun, np.int64).T
            last = np.searchsorted(starts_ns, executors.start_ns[positions], side="right") - 1
            run[positions] = np.where(last >= 0, runs[last], NO_RUN)
    return run


def _begun_unseen(executors: Spans, run: Ints) -> Sequence[tuple[int, Ints]]:
    """Return the executors that are the first seen of their run, each with all of them that are part of it.

    Threads are read one after the other: one that is read later may have begun a run before.
    """
    found: list[tuple[int, Ints]] = []
    for _, positions in _by_step(executors):
        unknown = positions[run[positions] == NO_RUN]
        if not len(unknown):
            continue
        starts_ns = executors.start_ns[unknown]
        earliest_ns = np.minimum.accumulate(starts_ns)
        firsts = np.flatnonzero(np.concatenate([[True], starts_ns[1:] < earliest_ns[:-1]]))
        own = np.searchsorted(-starts_ns[firsts], -starts_ns)  # the latest of them that it does not begin before
        found.extend((int(unknown[first]), unknown[own == number]) for number, first in enumerate(firsts.tolist()))
    return sorted(found, key=lambda item: item[0])


def _is_called(run: Run) -> bool:
    """Whether a call is seen around the run, which then lasts as long: of a function, or of a session (by its id)."""
    return not run.step_id or run.program == SESSION


def work_of_captured(seen: Seen, table: RunTable, run_of: Ints) -> Sequence[int]:
    """Return how long each function that tf.data called was at work, without waiting for a thread to run on.

    That is from the start of its first executor to the end of its last one; where none is seen, or where it is the body
    of a loop that others are part of as well, as long as the call.
    """
    count = len(table.runs)
    from_ns, until_ns = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    known = run_of != NO_RUN
    np.minimum.at(from_ns, run_of[known], seen.executors.start_ns[known])
    np.maximum.at(until_ns, run_of[known], seen.executors.end_ns[known])
    work_ns = (until_ns - from_ns).tolist()
    found = []
    for span in seen.captured:
        position = table.at(span.step_id, span.start_ns)
        own = position != NO_RUN and table.runs[position].step_id == span.step_id and until_ns[position] > 0
        found.append(work_ns[position] if own and position not in table.loops else span.end_ns - span.start_ns)
    return found


class Around:
    """Finds the one run with a call around it, of a function or session, that a moment lies in.

    ``since_ns`` are the moments at which that changes; from each on ``running`` holds how many runs are under way, and
    the sum of their positions, which is that of the run where there is one.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        changes: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for position, run in enumerate(runs):
            if _is_called(run):
                for time_ns, sign in ((run.start_ns, 1), (run.end_ns, -1)):
                    count, positions = changes[time_ns]
                    changes[time_ns] = count + sign, positions + sign * position
        self.since_ns = sorted(changes)
        self.running: list[tuple[int, int]] = []
        count, positions = 0, 0
        for time_ns in self.since_ns:
            count, positions = count + changes[time_ns][0], positions + changes[time_ns][1]
            self.running.append((count, positions))

    def only(self, time_ns: int) -> int:
        """Return its position; ``NO_RUN`` where there is none, or several overlap."""
        index = bisect_right(self.since_ns, time_ns) - 1
        count, position = self.running[index] if index >= 0 else (0, NO_RUN)
        return position if count == 1 else NO_RUN


# -- spans ---------------------------------------------------------------------------------------------------------


def by_thread(spans: Iterable[Span]) -> Mapping[int, Sequence[Span]]:
    """Return the spans of each thread, sorted by start."""
    threads: dict[int, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_ns):
        threads[span.thread].append(span)
    return threads


def within(spans: Sequence[Span], outer: Span) -> Iterator[Span]:
    """Yield those of ``spans``, sorted by start, that begin in ``outer``."""
    first = bisect_left(spans, outer.start_ns, key=lambda span: span.start_ns)
    following = (spans[index] for index in range(first, len(spans)))  # a slice would copy the rest each time
    yield from takewhile(lambda span: span.start_ns < outer.end_ns, following)


def _overlaps(outer: Span, span: Span) -> bool:
    return outer.start_ns <= span.start_ns < outer.end_ns
