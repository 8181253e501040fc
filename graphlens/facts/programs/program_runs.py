"""The runs of each program of a profile: how many steps they are, how long they took, and how often they came."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from graphlens.facts.clock.device_time import Windows
from graphlens.facts.clock.devices import merged
from graphlens.facts.programs.program_names import base_name, role_of
from graphlens.ir.instructions import module_names
from graphlens.ir.roles import Role
from graphlens.ir.run import NO_RUN, SESSION, Profile, Run, Span, host_of_thread

Ops = Mapping[int, frozenset[str]]  # run -> what ran in it, as `node:type`

# Runs without a name are of one program when they share this part of their ops.  Branches of a condition and ops that
# the profiler dropped make less of a difference; two functions share hardly any name.
SAME_OPS: Final = 0.5

# A function of which so many calls were seen, each traced, is one that is traced in every step.
RETRACED: Final = 4


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
        """Whether there was no other step than the few in which it was traced: they are all that is known of it.

        What is traced again and again is called so all the time: those are its steps.
        """
        return 0 < len(self.traces) < RETRACED and self.count == len(self.steps)


def on_hosts(profile: Profile, nodes: Ops) -> list[ProgramRuns]:
    """Return the programs; those of several hosts that run the same one are joined."""
    compiled = {kernel.run for kernel in profile.kernels}
    extent_ns = _extent_ns(profile)
    groups: dict[tuple[str, Role, int], list[tuple[str, list[int]]]] = defaultdict(list)
    for host_runs in _runs_by_host(profile).values():
        seen: Counter[tuple[str, Role]] = Counter()
        for name, runs in _by_name(profile, host_runs, nodes).items():
            ops = (op for run in runs for op in nodes.get(run, ()))
            key = base_name(name), role_of(name, ops, any(run in compiled for run in runs))
            groups[key[0], key[1], seen[key]].append((name, runs))
            seen[key] += 1
    return [
        _program(
            profile, members[0][0], role, [run for _, runs in _executed(members, nodes) for run in runs], extent_ns
        )
        for (_, role, _), members in groups.items()
    ]


def _executed(members: Sequence[tuple[str, list[int]]], nodes: Ops) -> Sequence[tuple[str, list[int]]]:
    """Return what hosts run of a program: one that only has others execute it, as a coordinator, runs nothing of it."""
    ran = [(name, runs) for name, runs in members if any(nodes.get(run) for run in runs)]
    return ran or members


def on_devices(profile: Profile) -> Iterator[ProgramRuns]:
    """Yield the programs that devices report themselves; one that several of them run is one program."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, run in enumerate(profile.runs):
        if run.device is not None:
            groups[run.program].append(position)
    names, extent_ns, in_steps = module_names(groups), _extent_ns(profile), in_device_steps(profile)
    for program, runs in groups.items():
        role: Role = "step" if in_steps.intersection(runs) else "cluster"
        yield _program(profile, names[program], role, runs, extent_ns)


def in_device_steps(profile: Profile) -> frozenset[int]:
    """Return the runs of devices that begin within one of their steps."""
    windows = {number: Windows(device.steps) for number, device in enumerate(profile.devices) if device.steps}
    return frozenset(
        position
        for position, run in enumerate(profile.runs)
        if run.device in windows and windows[run.device].around(run.start_ns) is not None
    )


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


def _by_name(profile: Profile, positions: Iterable[int], nodes: Ops) -> Mapping[str, list[int]]:
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


def _by_ops(positions: Iterable[int], nodes: Ops) -> Sequence[tuple[frozenset[str], list[int]]]:
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
    return len(known & ops) >= SAME_OPS * max(min(len(known), len(ops)), 1)


def _by_example(ops: frozenset[str]) -> str:
    return f"({len(ops)} ops, {min(ops).rpartition(':')[0]} among them)"


def nodes_by_run(profile: Profile) -> Ops:
    """Return run -> its ops as ``node:type``."""
    if not profile.ops:
        return {}
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    found: dict[int, set[str]] = defaultdict(set)
    for run, node, op in OpEvents.of(profile.ops).by_run():
        if run != NO_RUN:
            found[run].add(f"{node}:{op}")
    return {run: frozenset(nodes) for run, nodes in found.items()}


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
    spans = [(span.start_ns, span.end_ns) for spans in (profile.runs, profile.steps) for span in spans]
    if profile.ops:
        from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

        ops = OpEvents.of(profile.ops)
        spans.append((int(ops.start_ns.min()), int(ops.end_ns.max())))
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
