"""The programs of a profile: which ran, how often, what a step of each is; and the profile of the judged one."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final, TypeVar

from graphlens.facts.device_time import Windows
from graphlens.facts.devices import merged
from graphlens.facts.hosts import has_own_steps
from graphlens.facts.steps import FEWEST_STEPS_TO_DROP_FIRST, length_ns
from graphlens.ir.instructions import module_names
from graphlens.ir.roles import BY_IMPORTANCE, Role
from graphlens.ir.run import (
    NO_RUN,
    SESSION,
    STEP_MARKER,
    KernelEvent,
    OpEvent,
    Profile,
    Run,
    Span,
    Window,
    host_of_thread,
)
from graphlens.units import format_ns

_FUNCTION_NAME = re.compile(r"^__(?:inference|forward|backward)_(?P<base>.*)_\d+$")
_STAGE = re.compile(r"^(Reduce)?Iterator\b")
_NUMBER = re.compile(r"\d+")
_CLUSTER = re.compile(r"^cluster_\d|^XlaCluster|^jit_")
_INITIALIZATION = re.compile(r"initializ|restore_variables|_creator$|_destroyer$", re.IGNORECASE)
# How Keras 3 calls what it runs: train and test are both `multi_step_on_iterator`, or `one_step_on_data` for a single
# batch, and only the ops tell them apart.
_EVAL = re.compile(r"test|eval|valid|multi_step_on_iterator|one_step_on_data", re.IGNORECASE)
_PREDICT = re.compile(
    r"predict|one_step_on_data_distributed|multi_step_on_data|signature_wrapper|restored_function_body"
)
_TRAINS = re.compile(r"gradient_tape/|(^|/)gradients/|:(\w*Grad|\w*Backprop\w*|(Resource)?(Sparse)?Apply[A-Z]\w*)$")

WORK: Final[frozenset[Role]] = frozenset({"step", "predict", "eval"})
EVEN: Final = (
    "the iterations of a call overlap, or cannot be told apart: each is taken to last as long as their mean, and how "
    "far steps spread is not known"
)
NO_FUNCTION: Final = (
    "no function was called while this was recorded: what ran was called op by op, and only datasets and "
    "initializations are programs here"
)

_Nodes = Mapping[int, frozenset[str]]  # run -> its ops, as `node:type`

# Runs without a name are of one program when they share this part of their ops.  Branches of a condition and ops that
# the profiler dropped make less of a difference; two functions share hardly any name.
_SAME_OPS: Final = 0.5

# What a call does before its loop (opening a dataset, filling a shuffle buffer) and after it is worth a word where it
# is as much as a reader would miss when multiplying the step by its count.
OUTSIDE_STEPS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Traced:
    """A run in which Python traced the function or XLA compiled it, and how long that took with the run itself."""

    ns: int


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """One program of a profile.

    Attributes
    ----------
    name, role
        The function's own name with its number (several hosts: that on the first), and what it is for.
    runs
        The positions of its runs in ``Profile.runs``, in time order.
    steps
        Its steps: the runs, or the iterations of the loops in them.  Without what only found the end of the data, was
        cut off, or was traced or compiled first.
    count
        How many steps there were, those told apart included.
    traces
        The runs that were traced or compiled.
    busy_ns
        For how long at least one of its runs was under way.
    share
        The same as a share of the profile's length.
    period_ns
        The median time from the start of a run to that of the next; ``None`` for a single one.
    """

    name: str
    role: Role
    runs: tuple[int, ...]
    steps: tuple[Span, ...]
    count: int
    traces: tuple[Traced, ...]
    busy_ns: int
    share: float
    period_ns: int | None = None

    @property
    def only_traced(self) -> bool:
        """Whether there was no other step than those in which it was traced: they are all that is known of it."""
        return bool(self.traces) and self.count == len(self.steps)


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


def programs_of(profile: Profile | None, wanted: str | None = None) -> Programs:
    """Return the programs of ``profile``; the one called ``wanted`` is judged, or the one with most time.

    Profiles that show no runs come back as they are, with no program.
    """
    if profile is None or not profile.runs:
        return Programs(profile=profile)
    nodes = _nodes_by_run(profile)
    found = _ordered([*_programs(profile, nodes), *_on_devices(profile)], wanted)
    if wanted is None and has_own_steps(profile):
        in_steps = _in_device_steps(profile)
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


# -- which programs there are --------------------------------------------------------------------------------------


def _programs(profile: Profile, nodes: _Nodes) -> list[ProgramRuns]:
    """Return the programs; those of several hosts that run the same one are joined."""
    compiled = {kernel.run for kernel in profile.kernels}
    extent_ns = _extent_ns(profile)
    groups: dict[tuple[str, Role, int], list[tuple[str, list[int]]]] = defaultdict(list)
    for host_runs in _runs_by_host(profile).values():
        seen: Counter[tuple[str, Role]] = Counter()
        for name, runs in _by_name(profile, host_runs, nodes).items():
            key = base_name(name), _role(name, runs, nodes, any(run in compiled for run in runs))
            groups[key[0], key[1], seen[key]].append((name, runs))
            seen[key] += 1
    return [
        _program(profile, members[0][0], role, [run for _, runs in members for run in runs], extent_ns)
        for (_, role, _), members in groups.items()
    ]


def _on_devices(profile: Profile) -> Iterator[ProgramRuns]:
    """Yield the programs that devices report themselves; one that several of them run is one program."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, run in enumerate(profile.runs):
        if run.device is not None:
            groups[run.program].append(position)
    names, extent_ns, in_steps = module_names(groups), _extent_ns(profile), _in_device_steps(profile)
    for program, runs in groups.items():
        role: Role = "step" if in_steps.intersection(runs) else "cluster"
        yield _program(profile, names[program], role, runs, extent_ns)


def _in_device_steps(profile: Profile) -> frozenset[int]:
    """Return the runs of devices that begin within one of their steps."""
    windows = {number: Windows(device.steps) for number, device in enumerate(profile.devices) if device.steps}
    return frozenset(
        position
        for position, run in enumerate(profile.runs)
        if run.device in windows and windows[run.device].around(run.start_ns) is not None
    )


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


def _runs_by_host(profile: Profile) -> Mapping[int, Sequence[int]]:
    """Return the runs of each host in order of time; of those without a name only where there are no others."""
    hosts: dict[int, list[int]] = defaultdict(list)
    for position, run in enumerate(profile.runs):
        if run.device is None:
            hosts[host_of_thread(run.thread)].append(position)
    for positions in hosts.values():
        named = [position for position in positions if profile.runs[position].whole]
        positions[:] = sorted(named or positions, key=lambda position: profile.runs[position].start_ns)
    return hosts


def _by_name(profile: Profile, positions: Iterable[int], nodes: _Nodes) -> Mapping[str, list[int]]:
    """Return the runs by program; those without a name of their own are of one when they run mostly the same ops.

    A session that trains also fetches summaries, and fills its queues from other threads.
    """
    named: dict[str, list[int]] = defaultdict(list)
    nameless: list[int] = []
    sessions: list[int] = []
    for position in positions:
        name = profile.runs[position].program
        (nameless if not name else sessions if name == SESSION else named[name]).append(position)
    fetches = _by_ops(sessions, nodes)
    if len(fetches) > 1:
        named |= {f"{SESSION} {_by_example(ops)}": runs for ops, runs in fetches}
    elif sessions:
        named[SESSION] = sessions
    others = {f"a function without a name {_by_example(ops)}": runs for ops, runs in _by_ops(nameless, nodes)}
    return {**named, **others}


def _by_ops(positions: Iterable[int], nodes: _Nodes) -> Sequence[tuple[frozenset[str], list[int]]]:
    """Return runs of mostly the same ops, with the ops of the first one; runs of which no op is seen are left out."""
    found: list[tuple[frozenset[str], list[int]]] = []
    running: dict[str, list[int]] = defaultdict(list)  # op -> the groups whose first run has it
    for position in positions:
        ops = nodes.get(position, frozenset())
        sharing = sorted({group for op in ops for group in running[op]})
        alike = next((group for group in sharing if _share_ops(found[group][0], ops)), None)
        if alike is not None:
            found[alike][1].append(position)
        elif ops:
            for op in ops:
                running[op].append(len(found))
            found.append((ops, [position]))
    return found


def _share_ops(known: frozenset[str], ops: frozenset[str]) -> bool:
    return len(known & ops) >= _SAME_OPS * max(min(len(known), len(ops)), 1)


def _by_example(ops: frozenset[str]) -> str:
    return f"({len(ops)} ops, {min(ops).rpartition(':')[0]} among them)"


def _nodes_by_run(profile: Profile) -> _Nodes:
    """Return run -> its ops as ``node:type``."""
    found: dict[int, set[str]] = defaultdict(set)
    for event in profile.ops:
        if event.run != NO_RUN:
            found[event.run].add(f"{event.node}:{event.op}")
    return {run: frozenset(nodes) for run, nodes in found.items()}


def base_name(name: str) -> str:
    """Return what a function is called in Python: TensorFlow adds a prefix and a number.

    >>> base_name("__inference_train_step_946"), base_name("Session.run")
    ('train_step', 'Session.run')
    """
    match = _FUNCTION_NAME.match(name)
    return match["base"] if match else name


def short_name(name: str) -> str:
    """Return the name of a function with its number, without the prefix that all functions have.

    >>> short_name("__inference_train_step_946"), short_name("__backward_f_12")
    ('train_step_946', '__backward_f_12')
    """
    return name.removeprefix("__inference_")


def _role(name: str, runs: Sequence[int], nodes: _Nodes, compiled: bool) -> Role:
    base = base_name(name)
    if _STAGE.match(name):
        return "dataset"
    if _INITIALIZATION.search(base):
        return "initialization"
    if any(_TRAINS.search(node) for run in runs for node in nodes.get(run, ())):
        return "step"
    by_name: Sequence[tuple[re.Pattern[str], Role]] = ((_CLUSTER, "cluster"), (_PREDICT, "predict"))
    if not compiled:  # of what XLA compiled no op is seen, and so not whether it trains
        by_name = (*by_name, (_EVAL, "eval"))
    return next((role for pattern, role in by_name if pattern.search(base)), "step")


def _program(profile: Profile, name: str, role: Role, unordered: Iterable[int], extent_ns: int) -> ProgramRuns:
    positions = sorted(unordered, key=lambda position: profile.runs[position].start_ns)  # profiles go by threads
    runs = [profile.runs[position] for position in positions]
    windows, told_apart = _steps_of(profile, positions)
    busy_ns = sum(end - start for start, end in merged((run.start_ns, run.end_ns) for run in runs))
    return ProgramRuns(
        name=name,
        role=role,
        runs=tuple(positions),
        steps=tuple(windows),
        count=len(windows) + told_apart,
        traces=tuple(Traced(run.end_ns - run.start_ns) for run in runs if run.traced),
        busy_ns=busy_ns,
        share=busy_ns / extent_ns if extent_ns else 0.0,
        period_ns=_period_ns(runs),
    )


def _steps_of(profile: Profile, positions: Iterable[int]) -> tuple[list[Span], int]:
    """Return the steps of runs, and how many were told apart: the first one of each run that was traced.

    Where that leaves none, they are all that is known.
    """
    steps: list[tuple[Span, bool]] = []
    for position in positions:
        run = profile.runs[position]
        if run.elements == 0:  # it only found the end of the data
            continue
        windows = run.iterations or ((run.start_ns, run.end_ns),)
        for number, (start_ns, end_ns) in enumerate(windows):
            step = Span("step", start_ns, end_ns, run.thread, step_id=len(steps), run=position)
            steps.append((step, run.traced and number == 0))
    usual = [span for span, traced in steps if not traced]
    return (usual, len(steps) - len(usual)) if usual else ([span for span, _ in steps], 0)


def _period_ns(runs: Sequence[Run]) -> int | None:
    """Return the usual time between two calls on one thread: what lies between them is the program's around it."""
    threads: dict[tuple[int, int | None], list[int]] = defaultdict(list)
    for run in runs:
        if not run.traced and run.elements != 0:
            threads[run.thread, run.device].append(run.start_ns)
    between = [later - earlier for starts in threads.values() for earlier, later in pairwise(starts)]
    return round(median(between)) if between else None


def possible_period(program: ProgramRuns, step_ns: int) -> int | None:
    """Return the period beside a step of that length; on a machine that slows down, medians of both may contradict."""
    return program.period_ns if program.period_ns and program.period_ns >= step_ns else None


def _extent_ns(profile: Profile) -> int:
    """Return the time from the first run or op of any host to the last."""
    spans = [(span.start_ns, span.end_ns) for spans in (profile.runs, profile.ops, profile.steps) for span in spans]
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0


# -- which one is judged -------------------------------------------------------------------------------------------


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


OnHost = TypeVar("OnHost", OpEvent, Span, KernelEvent)


def _of_program(profile: Profile, judged: ProgramRuns, others: Sequence[ProgramRuns]) -> Profile:
    """Return the profile with the steps and the host's events of one program; what devices report is kept whole.

    A step that the user marked is all that was called within it.
    """
    own = frozenset(judged.runs)
    if any(step.run == NO_RUN for step in judged.steps):
        own = own.union(*(one.runs for one in others if one.role != "dataset"))

    def kept(events: Iterable[OnHost]) -> tuple[OnHost, ...]:
        return tuple(event for event in events if event.run in own)

    return replace(
        profile,
        steps=judged.steps,
        ops=kept(profile.ops),
        executors=kept(profile.executors),
        functions=kept(profile.functions),
        waits=kept(profile.waits),
        kernels=kept(profile.kernels),
        executions=kept(profile.executions),
    )


def _notes(profile: Profile, program: ProgramRuns, nodes: _Nodes) -> Iterator[str]:
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


def _cut_off(profile: Profile, program: ProgramRuns, nodes: _Nodes) -> int:
    """Return how many runs of the program the profile shows without their call."""
    own = frozenset().union(*(nodes.get(run, frozenset()) for run in program.runs))
    unnamed = [nodes[position] for position, run in enumerate(profile.runs) if not run.whole and position in nodes]
    return sum(len(ops & own) > _SAME_OPS * len(ops) for ops in unnamed)
