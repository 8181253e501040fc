"""Which of the programs of a profile is judged, and its steps and events alone."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from graphlens.facts.clock.hosts import has_own_steps
from graphlens.facts.clock.steps import FEWEST_STEPS_TO_DROP_FIRST, length_ns
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.program_names import base_name, short_name
from graphlens.facts.programs.program_runs import (
    SAME_OPS,
    Ops,
    ProgramRuns,
    in_device_steps,
    nodes_by_run,
    on_devices,
    on_hosts,
)
from graphlens.ir.ops import LOOP_OVER_DATASET
from graphlens.ir.roles import BY_IMPORTANCE, Role
from graphlens.ir.run import (
    EAGER_LOOP,
    NO_RUN,
    STEP_MARKER,
    Collective,
    KernelEvent,
    Profile,
    Span,
    Window,
)
from graphlens.units import format_ns

_NUMBER = re.compile(r"\d+")  # marks of one kind may be numbered: `epoch 3`

WORK: Final[frozenset[Role]] = frozenset({"step", "predict", "eval"})
OP_BY_OP: Final = (
    "the steps of an eager loop run op by op, in no function: ops are known by their types alone, and no graph, layer, "
    "phase or line of any of them"
)
EVEN: Final = (
    "the iterations of a call overlap, or cannot be told apart: each is taken to last as long as their mean, and how "
    "far steps spread is not known"
)
NO_FUNCTION: Final = (
    "no function was called while this was recorded: what ran was called op by op, and only datasets and "
    "initializations are programs here"
)

ELSEWHERE: Final = (
    "no op of {name} ran in this process: it has others execute it, as the coordinator of a parameter server does, and "
    "its time is that of waiting for them. Start tf.profiler.experimental.server in each worker, and record them "
    "together: graphlens record --service grpc://COORDINATOR:PORT,grpc://WORKER:PORT"
)

# What a call does before its loop (opening a dataset, filling a shuffle buffer) and after it is worth a word where it
# is as much as a reader would miss when multiplying the step by its count.
OUTSIDE_STEPS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a profile, the judged one first, and the profile of that one alone.

    Where no function was called there is none to judge: ``profile`` is all that was recorded if it marks steps, and
    ``None`` if not.
    """

    all: tuple[ProgramRuns, ...] = ()
    judged: ProgramRuns | None = None
    profile: Profile | None = None
    notes: tuple[str, ...] = ()


@fact
def programs(facts: Facts) -> Programs:
    """The programs of the profile, the judged one first."""
    return programs_of(facts.evidence.profile, facts.evidence.program)


@fact
def judged_profile(facts: Facts) -> Profile | None:
    """The profile of the judged program: its steps and events; ``None`` when nothing was profiled."""
    return facts(programs).profile


@fact
def loops_within_tf_data(facts: Facts) -> bool:
    """Whether the judged program's steps are those of a loop that tf.data runs."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None:
        return False
    runs = frozenset(judged.runs)
    return any(one.name == LOOP_OVER_DATASET and one.run in runs for one in profile.activities)


def programs_of(profile: Profile | None, wanted: str | None = None) -> Programs:
    """Return the programs of ``profile``; the one called ``wanted`` is judged, or the one with most time.

    Profiles that show no runs come back as they are, with no program.
    """
    if profile is None or not profile.runs:
        return Programs(profile=profile)
    nodes = nodes_by_run(profile)
    found = _ordered([*on_hosts(profile, nodes), *on_devices(profile)], wanted)
    if wanted is None and has_own_steps(profile):
        in_steps = in_device_steps(profile)
        found.sort(key=lambda one: in_steps.isdisjoint(one.runs))
    if not found:
        return Programs(profile=profile)
    first, others = found[0], found[1:]
    if is_our_own(profile):
        first = replace(first, period_ns=None)
    works = first.role in WORK or wanted is not None
    if profile.kernels_on_device or profile.copies:  # a function returns before the kernels that it launched have run
        shown = profile if wanted is None else _with_steps_of(profile, first)
        return Programs((first, *others), first if works else None, shown)
    if not works:  # without marks, nothing tells where a step of what was called op by op begins
        return Programs(tuple(found), None, profile if profile.steps else None, (NO_FUNCTION,))
    if is_our_own(profile):
        return Programs((first, *others), first, profile)
    judged = _as_marked(profile, first, wanted is not None)
    return Programs(
        (judged, *others), judged, _of_program(profile, judged, others), tuple(_notes(profile, judged, nodes))
    )


def is_our_own(profile: Profile) -> bool:
    """Whether GraphLens called the program itself: then its marks are the steps, and all that ran is the program's."""
    return any(mark.name == STEP_MARKER for mark in profile.steps)


def _ordered(programs: Iterable[ProgramRuns], wanted: str | None) -> list[ProgramRuns]:
    """Return the programs, the judged one first, then by importance and time."""
    ordered = sorted(programs, key=lambda one: (BY_IMPORTANCE.index(one.role), -one.busy_ns))
    work = [one for one in ordered if one.role in WORK]
    first = _most_time(work) if work else next(iter(ordered), None)
    if wanted is not None:
        first = named(ordered, wanted) or first
    return ordered if first is None else [first, *(one for one in ordered if one is not first)]


def _most_time(programs: Sequence[ProgramRuns]) -> ProgramRuns:
    """Return the program with most time; one of which only the call that traced it was seen gives way to its like."""
    most = max(programs, key=lambda one: one.busy_ns)
    alike = [one for one in programs if one.role == most.role]
    return max(alike, key=lambda one: (not one.only_traced, one.busy_ns))


def named(programs: Sequence[ProgramRuns], wanted: str) -> ProgramRuns | None:
    """Return the program of that name: the whole one, or the only one that it is a part of."""
    exact = [one for one in programs if wanted in (one.name, base_name(one.name), short_name(one.name))]
    alike = exact or [one for one in programs if wanted in one.name]
    return alike[0] if len(alike) == 1 else None


def _as_marked(profile: Profile, program: ProgramRuns, asked_for: bool) -> ProgramRuns:
    """Return the program with its steps as marked in the profile, where a mark holds one run of it or more."""
    runs = [profile.runs[position] for position in program.runs]
    if not profile.steps or any(run.iterations for run in runs):
        return program
    starts_ns = sorted(run.start_ns for run in runs)
    traced_ns = sorted(run.start_ns for run in runs if run.traced)
    marked = _of_one_kind(_apart([mark for mark in profile.steps if _begins_in(starts_ns, mark)]))
    if not marked or (asked_for and len(marked) != program.count):
        return program
    usual = [mark for mark in marked if not _begins_in(traced_ns, mark)]
    return replace(program, steps=tuple(usual or marked), count=len(marked))


def _apart(marks: Sequence[Span]) -> Sequence[Span]:
    """Return marks of which none lies within another: one that holds several is no step but, say, an epoch of them."""
    threads: dict[int, list[Span]] = defaultdict(list)
    for mark in marks:
        threads[mark.thread].append(mark)
    kept = [mark for own in threads.values() for mark in _apart_on_thread(own)]
    return sorted(kept, key=lambda mark: mark.start_ns)


def _apart_on_thread(marks: Iterable[Span]) -> Iterator[Span]:
    ordered = sorted(marks, key=lambda mark: (mark.start_ns, -mark.end_ns))
    around: list[int | None] = []
    opened: list[int] = []
    for index, mark in enumerate(ordered):
        while opened and ordered[opened[-1]].end_ns <= mark.start_ns:
            opened.pop()
        around.append(opened[-1] if opened else None)
        opened.append(index)
    held = Counter(around)
    is_divided: list[bool] = []
    for index, outer in enumerate(around):
        is_apart = outer is None or is_divided[outer]
        is_divided.append(is_apart and held[index] > 1)
        if is_apart and held[index] <= 1:
            yield ordered[index]


def _of_one_kind(marks: Sequence[Span]) -> Sequence[Span]:
    """Return the marks of the name under which most time was spent: training and validation are marked apart."""
    names: dict[str, list[Span]] = defaultdict(list)
    for mark in marks:
        names[_NUMBER.sub("", mark.name)].append(mark)
    return max(names.values(), key=lambda own: sum(mark.end_ns - mark.start_ns for mark in own), default=[])


def _begins_in(starts_ns: Sequence[int], span: Span) -> bool:
    index = bisect_left(starts_ns, span.start_ns)
    return index < len(starts_ns) and starts_ns[index] < span.end_ns


OnHost = TypeVar("OnHost", Span, KernelEvent, Collective)


def _of_program(profile: Profile, judged: ProgramRuns, others: Sequence[ProgramRuns]) -> Profile:
    """Return the profile with the steps and the host's events of one program; what devices report is kept whole.

    A step that the user marked is all that was called within it, and so is one of an eager loop.
    """
    own = frozenset(judged.runs)
    if judged.name == EAGER_LOOP or any(step.run == NO_RUN for step in judged.steps):
        own = own.union(*(one.runs for one in others if one.role != "dataset"))

    from graphlens.ir.columns import OpEvents, Spans  # needs numpy, which graphs alone do not

    def kept(events: Iterable[OnHost]) -> tuple[OnHost, ...]:
        return tuple(event for event in events if event.run in own)

    return replace(
        profile,
        steps=judged.steps,
        ops=OpEvents.of(profile.ops).of_runs(own),
        executors=Spans.of(profile.executors).of_runs(own),
        functions=kept(profile.functions),
        waits=kept(profile.waits),
        kernels=kept(profile.kernels),
        executions=kept(profile.executions),
        collectives=kept(profile.collectives),
    )


def _notes(profile: Profile, program: ProgramRuns, nodes: Ops) -> Iterator[str]:
    if program.name == EAGER_LOOP:
        yield OP_BY_OP
    if _runs_elsewhere(profile, program, nodes):
        yield ELSEWHERE.format(name=short_name(program.name))
    if program.traces:
        first = format_ns(program.traces[0].ns)
        counts = (
            "is told apart from the steps"
            if _is_told_apart(profile, program)
            else "counts as a step: no other was seen"
        )
        yield f"the call in which the function was traced or compiled ({first}) {counts}"
    if len(program.steps) >= FEWEST_STEPS_TO_DROP_FIRST:
        first = format_ns(length_ns(program.steps[0]))
        yield f"of {len(program.steps)} steps the first ({first}) is left out: first ones are often slower"
    yield from _around(profile, program)
    if any(_is_even(profile.runs[position].iterations) for position in program.runs):
        yield EVEN
    cut_off = _cut_off(profile, program, nodes)
    if cut_off:
        which = "run" if cut_off == 1 else "runs"
        yield f"{cut_off} more {which} of it began before the profile or ended after it, and count as no step"


def _runs_elsewhere(profile: Profile, program: ProgramRuns, nodes: Ops) -> bool:
    """Whether its calls launched nothing in a process that was recorded: no executor, and nothing that XLA compiled."""
    own = frozenset(program.runs)
    if program.name == EAGER_LOOP or any(nodes.get(run) for run in own):
        return False
    launched = {event.run for events in (profile.functions, profile.executions, profile.kernels) for event in events}
    return not profile.kernels_on_device and own.isdisjoint(launched)


def _around(profile: Profile, program: ProgramRuns) -> Iterator[str]:
    """Say how much of the calls with a loop in them is in none of its iterations, where that is much."""
    own = (profile.runs[position] for position in program.runs)
    runs = [run for run in own if run.iterations and run.whole and not run.traced]
    whole_ns = sum(run.end_ns - run.start_ns for run in runs)
    in_steps_ns = sum(end - start for run in runs for start, end in run.iterations)
    if whole_ns - in_steps_ns > OUTSIDE_STEPS * whole_ns:
        calls = "the call" if len(runs) == 1 else f"{len(runs)} calls"
        outside = format_ns(whole_ns - in_steps_ns)
        yield f"{outside} of {format_ns(whole_ns)} of {calls} lie before, between or after the iterations of its loop"


def _is_told_apart(profile: Profile, program: ProgramRuns) -> bool:
    """Whether no step is one in which the function was traced: they all are, where there are no others."""
    traced_ns = [profile.runs[run].start_ns for run in program.runs if profile.runs[run].traced]
    return not any(_begins_in(traced_ns, step) for step in program.steps)


def _is_even(windows: Sequence[Window]) -> bool:
    """Whether a run was divided evenly: measured iterations are never equal to the nanosecond."""
    lengths_ns = {end - start for start, end in windows}
    return len(windows) > 2 and max(lengths_ns) - min(lengths_ns) <= 1


def _cut_off(profile: Profile, program: ProgramRuns, nodes: Ops) -> int:
    """Return how many runs of the program the profile shows without their call."""
    own = frozenset().union(*(nodes.get(run, frozenset()) for run in program.runs))
    unnamed = [nodes[position] for position, run in enumerate(profile.runs) if not run.whole and position in nodes]
    return sum(len(ops & own) > SAME_OPS * len(ops) for ops in unnamed)


def _with_steps_of(profile: Profile, program: ProgramRuns) -> Profile:
    """Return the profile with the runs of ``program`` as the steps of its devices; as it is where a host ran it."""
    steps: dict[int, list[Span]] = defaultdict(list)
    for position in program.runs:
        run = profile.runs[position]
        if run.device is not None:
            own = steps[run.device]
            own.append(Span(program.name, run.start_ns, run.end_ns, run.thread, len(own), run=position))
    if not steps:
        return profile
    devices = [replace(device, steps=tuple(steps[number])) for number, device in enumerate(profile.devices)]
    return replace(profile, devices=tuple(devices))
