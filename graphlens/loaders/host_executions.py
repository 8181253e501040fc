"""What ran while XLA executed a compiled function on the host: which thunk, for which call, in which stretches of time.

A thunk that hands its work to other threads returns at once, and its end is a mark of its own (``end: NAME``), which
comes late when what follows it ran from within the same callback: then its work was done when that began.  After such a
thunk the rest of the sequence may run on a thread of the pool, while the caller waits.  So thunks belong to an
execution by module and time, not by nesting.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple

from graphlens.ir.run import NO_RUN, KernelEvent, OpEvent, Span

EXECUTION: Final = "CpuExecutable::ExecuteAsyncOnStream"
END_OF_THUNK: Final = "end: "

# The marks of thunks that ended long ago come up to 14 us after the last one of a sequence; a longer gap is real work.
SHORTEST_RESUMPTION_NS: Final = 20_000


class Thunk(NamedTuple):
    """The event of a thunk, and the link to the mark of its end; ``None`` where it has none."""

    event: KernelEvent
    link: int | None = None


class Mark(NamedTuple):
    """When the end of a thunk was marked, and on which thread: that which did the last of its work."""

    time_ns: int
    thread: int


@dataclass(slots=True)
class Compiled:
    """What a plane shows of compiled functions: executions, thunks, and the marks of their ends by their links."""

    executions: list[Span] = field(default_factory=list)
    thunks: list[Thunk] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)


class _Running(NamedTuple):
    """A thunk of one execution; ``done_ns`` is when its work was done at the latest, as was found on ``marked_on``."""

    event: KernelEvent
    done_ns: int
    marked_on: int | None = None


def assemble(
    seen: Compiled, calls: Iterable[OpEvent | Span], run_at: Callable[[int], int]
) -> tuple[list[Span], list[KernelEvent]]:
    """Return the executions, named after the op that called each, and the thunks as stretches that do not overlap.

    Parameters
    ----------
    calls
        The ops of the plane, and the asynchronous ones from start to completion (``Span`` named ``node:Op``).
    run_at
        Says which run a moment lies in, of what no op called.
    """
    threads = {span.thread for span in seen.executions}
    around = _Around(call for call in calls if call.thread in threads)
    executions = [around.placed(span, run_at) for span in seen.executions]
    thunks = [_running(item, seen.marks) for item in seen.thunks]
    by_execution = _grouped(executions, thunks)
    kernels: list[KernelEvent] = []
    for position, group in by_execution.items():
        execution = executions[position] if position is not None else None
        kernels.extend(_placed(piece, execution, run_at) for piece in _stretches(_ended(group), execution))
    return executions, kernels


def _placed(kernel: KernelEvent, execution: Span | None, run_at: Callable[[int], int]) -> KernelEvent:
    if execution is None:
        return kernel._replace(run=run_at(kernel.start_ns))
    return kernel._replace(call=execution.name, run=execution.run)


def _running(thunk: Thunk, marks: Mapping[int, Mark]) -> _Running:
    mark = marks.get(thunk.link) if thunk.link is not None else None
    if mark is None or mark.time_ns <= thunk.event.end_ns:
        return _Running(thunk.event, thunk.event.end_ns)
    return _Running(thunk.event, mark.time_ns, mark.thread)


def _ended(group: Sequence[_Running]) -> Sequence[_Running]:
    """Return the thunks of an execution, each done when the callback that says so began to run what follows it.

    What runs at once after a thunk returned was called beside it.  What its last thread runs after a while, and before
    it marks the end, was waiting for it: that mark is set when all of this has returned.
    """
    threads: dict[int | None, list[KernelEvent]] = defaultdict(list)
    for item in group:
        threads[item.event.thread].append(item.event)
    resumptions = {thread: _Resumptions(events) for thread, events in threads.items()}
    return [
        item._replace(done_ns=resumptions[item.marked_on].between(item.event.end_ns, item.done_ns))
        if item.marked_on in resumptions
        else item
        for item in group
    ]


class _Resumptions:
    """Where one thread begins to run thunks again after it ran none for a while."""

    def __init__(self, events: Iterable[KernelEvent]) -> None:
        ordered = sorted(events, key=lambda event: event.start_ns)
        self.starts_ns = [event.start_ns for event in ordered]
        ends_ns = sorted(event.end_ns for event in ordered)
        # Position -> that of the first resumption from there on; one behind the last stands for none.
        self.following = [len(ordered)] * (len(ordered) + 1)
        for index in range(len(ordered) - 1, 0, -1):
            start_ns = self.starts_ns[index]
            ended = bisect_right(ends_ns, start_ns)
            busy_until_ns = max(self.starts_ns[index - 1], ends_ns[ended - 1] if ended else 0)
            resumes = start_ns - busy_until_ns >= SHORTEST_RESUMPTION_NS
            self.following[index] = index if resumes else self.following[index + 1]

    def between(self, returned_ns: int, marked_ns: int) -> int:
        """Return the first resumption after a thunk returned and before its end was marked; else the latter."""
        first = bisect_left(self.starts_ns, returned_ns)
        if first < len(self.starts_ns) and self.starts_ns[first] - returned_ns < SHORTEST_RESUMPTION_NS:
            first = self.following[first + 1]
        found_ns = self.starts_ns[first] if first < len(self.starts_ns) else marked_ns
        return min(found_ns, marked_ns)


# -- which call, which execution -----------------------------------------------------------------------------------


class _Around:
    """Finds the op that an execution is part of: the last one begun on its thread that is not over."""

    def __init__(self, calls: Iterable[OpEvent | Span]) -> None:
        self.by_thread: dict[int, list[OpEvent | Span]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: (call.start_ns, -call.end_ns)):
            self.by_thread[call.thread].append(call)
        self.longest_ns = {
            thread: max(call.end_ns - call.start_ns for call in found) for thread, found in self.by_thread.items()
        }

    def placed(self, execution: Span, run_at: Callable[[int], int]) -> Span:
        """Return the execution under the name of the op and in its run; no name where it was called by none."""
        call = self._call(execution)
        if call is None:
            return execution._replace(name="", run=run_at(execution.start_ns))
        name = call.node if isinstance(call, OpEvent) else call.name.rpartition(":")[0] or call.name
        return execution._replace(name=name, run=call.run if call.run != NO_RUN else run_at(execution.start_ns))

    def _call(self, execution: Span) -> OpEvent | Span | None:
        calls, longest_ns = self.by_thread.get(execution.thread, []), self.longest_ns.get(execution.thread, 0)
        begun = bisect_right(calls, execution.start_ns, key=lambda call: call.start_ns)
        too_early = bisect_left(calls, execution.end_ns - longest_ns, key=lambda call: call.start_ns)
        around = (calls[index] for index in range(begun - 1, too_early - 1, -1))
        return next((call for call in around if call.end_ns >= execution.end_ns), None)


def _grouped(executions: Sequence[Span], thunks: Sequence[_Running]) -> Mapping[int | None, list[_Running]]:
    """Return position of an execution -> its thunks; ``None`` has those of which no execution was seen."""
    groups: dict[int | None, list[_Running]] = defaultdict(list)
    modules: dict[int, str] = {}
    elsewhere: list[_Running] = []
    own = _ByThread(executions)
    for thunk in sorted(thunks, key=lambda item: item.event.start_ns):
        position = own.find(thunk.event)
        if position is None or modules.setdefault(position, thunk.event.hlo_module) != thunk.event.hlo_module:
            elsewhere.append(thunk)
        else:
            groups[position].append(thunk)
    overlapping = _ByModule(executions, modules)
    for thunk in elsewhere:
        groups[overlapping.find(thunk.event, groups)].append(thunk)
    return groups


class _ByThread:
    """Finds the execution that called a thunk itself: on its thread, and not over."""

    def __init__(self, executions: Sequence[Span]) -> None:
        self.executions = executions
        self.positions: dict[int, list[int]] = defaultdict(list)
        for position in sorted(range(len(executions)), key=lambda position: executions[position].start_ns):
            self.positions[executions[position].thread].append(position)

    def find(self, event: KernelEvent) -> int | None:
        positions = self.positions.get(event.thread, [])
        before = bisect_right(positions, event.start_ns, key=lambda position: self.executions[position].start_ns)
        if not before or self.executions[positions[before - 1]].end_ns <= event.start_ns:
            return None
        return positions[before - 1]


class _ByModule:
    """Finds the execution of the same module during which a thunk ran on another thread."""

    def __init__(self, executions: Sequence[Span], modules: Mapping[int, str]) -> None:
        self.executions = executions
        self.positions: dict[str, list[int]] = defaultdict(list)
        for position, module in sorted(modules.items(), key=lambda item: executions[item[0]].start_ns):
            self.positions[module].append(position)
        spans = [executions[position] for position in modules]
        self.longest_ns = max((span.end_ns - span.start_ns for span in spans), default=0)

    def find(self, event: KernelEvent, groups: Mapping[int | None, Sequence[_Running]]) -> int | None:
        """Return its position; of several at the same time the one that has not run this instruction yet.

        All executions of a module run the same thunks, so what one of them has behind it is another one's.
        """
        positions = self.positions.get(event.hlo_module, [])
        running = [position for position in self._begun(positions, event) if self._is_open(position, event)]
        if len(running) > 1:
            running = [position for position in running if not _has_run(groups[position], event)] or running
        return next(iter(running), None)

    def _begun(self, positions: Sequence[int], event: KernelEvent) -> Sequence[int]:
        def start_ns(position: int) -> int:
            return self.executions[position].start_ns

        first = bisect_right(positions, event.start_ns - self.longest_ns - 1, key=start_ns)
        return positions[first : bisect_right(positions, event.start_ns, key=start_ns)]

    def _is_open(self, position: int, event: KernelEvent) -> bool:
        return self.executions[position].end_ns > event.start_ns


def _has_run(group: Sequence[_Running], event: KernelEvent) -> bool:
    return any(item.event.hlo_op == event.hlo_op for item in group)


# -- stretches of time ---------------------------------------------------------------------------------------------


class _Stretch(NamedTuple):
    start_ns: int
    end_ns: int
    thunk: int


def _stretches(group: Sequence[_Running], execution: Span | None) -> Iterator[KernelEvent]:
    """Yield when each thunk itself ran: called, or else still at work while no other one was called.

    A thunk that calls others (a loop) is without them.  Only the first stretch of a thunk counts as an execution.
    """
    called = sorted(_called(group))
    pieces = called if execution is None else sorted([*called, *_still_at_work(group, called, execution.end_ns)])
    begun: set[int] = set()
    for piece in _joined(pieces):
        event = group[piece.thunk].event
        yield event._replace(
            start_ns=piece.start_ns,
            end_ns=piece.end_ns,
            resumed=piece.thunk in begun,
        )
        begun.add(piece.thunk)
    # A clock may be too coarse for the shortest ones: they ran all the same.
    yield from (item.event for thunk, item in enumerate(group) if thunk not in begun)


def _called(group: Sequence[_Running]) -> Iterator[_Stretch]:
    """Yield when each thunk was called, without what it called on the same thread."""
    threads: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(group):
        threads[item.event.thread].append(index)
    for indices in threads.values():
        indices.sort(key=lambda index: (group[index].event.start_ns, -group[index].event.end_ns))
        yield from _innermost(group, indices)


def _innermost(group: Sequence[_Running], indices: Sequence[int]) -> Iterator[_Stretch]:
    opened: list[int] = []
    since_ns = 0

    def close_until(time_ns: float) -> Iterator[_Stretch]:
        nonlocal since_ns
        while opened and group[opened[-1]].event.end_ns <= time_ns:
            thunk = opened.pop()
            end_ns = group[thunk].event.end_ns
            if end_ns > since_ns:
                yield _Stretch(since_ns, end_ns, thunk)
            since_ns = max(since_ns, end_ns)

    for index in indices:
        start_ns = group[index].event.start_ns
        yield from close_until(start_ns)
        if opened and start_ns > since_ns:
            yield _Stretch(since_ns, start_ns, opened[-1])
        opened.append(index)
        since_ns = start_ns
    yield from close_until(float("inf"))


def _still_at_work(group: Sequence[_Running], called: Sequence[_Stretch], end_ns: int) -> Iterator[_Stretch]:
    """Yield the gaps between the calls in which a thunk is not done yet, for the last one that was called."""
    pending = sorted((item.event.end_ns, index) for index, item in enumerate(group) if item.done_ns > item.event.end_ns)
    latest: list[tuple[int, int]] = []  # the thunks that returned, by falling start
    taken = 0
    for gap_start_ns, gap_end_ns in _gaps(called, end_ns):
        while taken < len(pending) and pending[taken][0] <= gap_start_ns:
            index = pending[taken][1]
            heappush(latest, (-group[index].event.start_ns, index))
            taken += 1
        yield from _shared_out(group, latest, gap_start_ns, gap_end_ns)


def _shared_out(
    group: Sequence[_Running], latest: list[tuple[int, int]], start_ns: int, end_ns: int
) -> Iterator[_Stretch]:
    """Yield the parts of one gap for those that may be at work in it, the last one that was called first."""
    while latest and start_ns < end_ns:
        index = latest[0][1]
        until_ns = min(end_ns, group[index].done_ns)
        has_just_returned = group[index].event.end_ns == start_ns
        if until_ns > start_ns and (has_just_returned or until_ns - start_ns >= SHORTEST_RESUMPTION_NS):
            yield _Stretch(start_ns, until_ns, index)
        if until_ns >= end_ns:
            return
        start_ns = max(start_ns, until_ns)
        heappop(latest)  # it is done


def _gaps(called: Sequence[_Stretch], end_ns: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches from the first call to ``end_ns`` in which nothing is called."""
    until_ns = called[0].start_ns if called else end_ns
    for piece in called:
        if piece.start_ns > until_ns:
            yield until_ns, piece.start_ns
        until_ns = max(until_ns, piece.end_ns)
    if end_ns > until_ns:
        yield until_ns, end_ns


def _joined(pieces: Iterable[_Stretch]) -> Iterator[_Stretch]:
    """Yield the pieces, those of one thunk that touch as one."""
    last: _Stretch | None = None
    for piece in pieces:
        if last is not None and piece.thunk == last.thunk and piece.start_ns <= last.end_ns:
            last = last._replace(end_ns=max(last.end_ns, piece.end_ns))
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
