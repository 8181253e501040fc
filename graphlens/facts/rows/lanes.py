"""What each thread did in one step, one thing at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from graphlens.facts.clock.periods import Stretch
from graphlens.facts.flat.names import Names
from graphlens.facts.programs.judged_program import Programs
from graphlens.facts.programs.program_names import base_name
from graphlens.facts.time.around import calls_of
from graphlens.ir.columns import DeviceEvents, OpEvents, Spans
from graphlens.ir.run import Activity, DeviceEvent, KernelEvent, Mark, OpEvent, Profile, Run
from graphlens.ir.training import Phase, SpanKind, TimelineLane, TimelineSpan

_PYTHON: Final = "Python"
_MARKED: Final[Mapping[str, SpanKind]] = {"read": "wait", "session": "call"}
_ACTIVE: Final[Mapping[str, SpanKind]] = {"input": "wait", "eager": "op", "compile": "trace"}


class _Drawn(NamedTuple):
    """Something on a thread; what begins within another span, or begins with it and has a higher rank, covers it."""

    start_ns: int
    end_ns: int
    rank: int
    name: str
    kind: SpanKind
    phase: Phase | None = None


class _Step(NamedTuple):
    """The step that is drawn, and what ran around it."""

    profile: Profile
    shown: Stretch
    runs: frozenset[int]
    datasets: frozenset[int]
    threads: frozenset[int]

    @staticmethod
    def of(profile: Profile, programs: Programs, shown: Stretch) -> _Step:
        runs = frozenset(programs.judged.runs if programs.judged else ())
        datasets = frozenset(run for one in programs.all if one.role == "dataset" for run in one.runs)
        return _Step(profile, shown, runs, datasets, frozenset(profile.runs[run].thread for run in runs))

    def holds(self, event: OpEvent | Activity | Mark | KernelEvent | Run | DeviceEvent) -> bool:
        """Whether any of an event lies within the step."""
        return event.start_ns < self.shown.end_ns and event.end_ns > self.shown.start_ns

    def ops_of(self, runs: frozenset[int]) -> Iterator[OpEvent]:
        """Yield the ops of some runs that lie within the step."""
        ops = OpEvents.of(self.profile.ops)
        yield from ops.where((ops.start_ns < self.shown.end_ns) & (ops.end_ns > self.shown.start_ns)).of_runs(runs)


def lanes_of(
    profile: Profile, programs: Programs, shown: Stretch, names: Names, phases: Mapping[str, Phase]
) -> list[TimelineLane]:
    """Return the lanes of Python's threads, of those that execute ops, of devices, and of those that prepare input."""
    step = _Step.of(profile, programs, shown)
    groups = {_PYTHON: _python(step), "executor": _executed(step, names, phases), "input": _fed(step)}
    return [lane for title, drawn in groups.items() for lane in _titled(title, drawn, step.shown)]


def _titled(title: str, drawn: Iterable[tuple[str | int, _Drawn]], shown: Stretch) -> Iterator[TimelineLane]:
    """Yield a lane for each thread, the busiest first; a device is called as the profile calls it."""
    threads: dict[str | int, list[_Drawn]] = defaultdict(list)
    for thread, one in drawn:
        threads[thread].append(one)
    lanes = [(thread, spans) for thread, own in threads.items() if (spans := tuple(_apart(own, shown)))]
    lanes.sort(key=lambda lane: -sum(span.ns for span in lane[1]))
    number = count(1)
    several = sum(isinstance(thread, int) for thread, _ in lanes) > 1
    for thread, spans in lanes:
        yield TimelineLane(
            thread if isinstance(thread, str) else f"{title} {next(number)}" if several else title, spans
        )


def _python(step: _Step) -> Iterator[tuple[int, _Drawn]]:
    """Yield what the threads do that call the program."""
    profile = step.profile
    calls = {call.run: call for call in calls_of(profile, step.runs, Spans.of(profile.executors).of_runs(step.runs))}
    for thread in step.threads:
        yield thread, _Drawn(step.shown.start_ns, step.shown.end_ns, 0, "Python", "python")
    for mark in profile.marks:
        if mark.kind in _MARKED and mark.thread in step.threads:
            yield mark.thread, _Drawn(mark.start_ns, mark.end_ns, 1, mark.detail or mark.kind, _MARKED[mark.kind])
    for position, run in enumerate(profile.runs):
        if run.thread in step.threads:
            name = base_name(run.program) or "a function without a name"
            yield run.thread, _Drawn(run.start_ns, run.end_ns, 2, name, "call")
            if call := calls.get(position):
                kind: SpanKind = "trace" if call.traced else "call"
                yield run.thread, _Drawn(run.start_ns, call.works_from_ns, 3, name, kind)
                yield run.thread, _Drawn(call.works_from_ns, call.works_until_ns, 4, name, "wait")
    for one in profile.activities:
        if one.thread in step.threads:
            yield one.thread, _Drawn(one.start_ns, one.end_ns, 5, one.name, _ACTIVE[one.kind])


def _executed(step: _Step, names: Names, phases: Mapping[str, Phase]) -> Iterator[tuple[str | int, _Drawn]]:
    """Yield the ops of the program, on threads and on devices."""

    def op(start_ns: int, end_ns: int, node: str, kind: str) -> _Drawn:
        return _Drawn(start_ns, end_ns, 0, node, "op", phases.get(names.key(node, kind)))

    for event in step.ops_of(step.runs):
        yield event.thread, op(event.start_ns, event.end_ns, event.node, event.op)
    for kernel in step.profile.kernels:
        if kernel.run in step.runs and step.holds(kernel):
            yield kernel.thread, op(kernel.start_ns, kernel.end_ns, *names.instruction(kernel))
    for one in DeviceEvents.of(step.profile.kernels_on_device):
        if step.holds(one):
            device = f"{step.profile.devices[one.device].name} {one.stream}".strip()
            yield device, op(one.start_ns, one.end_ns, one.node or one.name, one.op)


def _fed(step: _Step) -> Iterator[tuple[int, _Drawn]]:
    """Yield what threads of tf.data do: the functions of datasets, and waiting for what they make."""
    for one in step.profile.activities:
        if one.kind == "input" and one.thread not in step.threads and one.run in step.runs:
            yield one.thread, _Drawn(one.start_ns, one.end_ns, 0, one.name, "wait")
    for event in step.ops_of(step.datasets):
        yield event.thread, _Drawn(event.start_ns, event.end_ns, 1, event.node, "input")


def _apart(drawn: Sequence[_Drawn], shown: Stretch) -> Iterator[TimelineSpan]:
    """Yield what one thread does, each instant as what began last: what contains others is cut where they are."""
    opened: list[_Drawn] = []
    since_ns = shown.start_ns

    def until(moment_ns: int) -> Iterator[TimelineSpan]:
        nonlocal since_ns
        while opened and since_ns < moment_ns:
            end_ns = min(moment_ns, opened[-1].end_ns)
            if end_ns > since_ns:
                last = opened[-1]
                yield TimelineSpan(last.name, last.kind, since_ns - shown.start_ns, end_ns - since_ns, last.phase)
                since_ns = end_ns
            if opened[-1].end_ns <= since_ns:
                opened.pop()
        since_ns = max(since_ns, moment_ns)

    for one in sorted(drawn, key=lambda one: (max(one.start_ns, shown.start_ns), one.rank, -one.end_ns)):
        if one.end_ns > shown.start_ns and one.start_ns < shown.end_ns:
            yield from until(max(one.start_ns, shown.start_ns))
            opened.append(one)
    yield from until(shown.end_ns)
