"""What the coordinator of a parameter server strategy has its workers do: each call, and the step that answers it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from graphlens.facts.programs.program_names import base_name
from graphlens.ir.replicas import RemoteCalls
from graphlens.ir.run import Profile, Run, host_of_thread

# A thread of the coordinator has one worker: of its calls, as many hold one step of that one, as far as clocks agree.
MOST_OF_CALLS: Final = 0.5


class Answered(NamedTuple):
    """A call of the coordinator, and the step of a worker that lies within it."""

    call_ns: int
    step_ns: int


def coordinators_calls(profile: Profile, judged: Sequence[int]) -> Sequence[Run]:
    """Return the calls of the judged program on hosts that execute nothing of it.

    Parameters
    ----------
    judged
        The positions in ``profile.runs`` of the runs that do.
    """
    own, names = frozenset(judged), {base_name(profile.runs[run].program) for run in judged}
    hosts = {host_of_thread(profile.runs[run].thread) for run in judged}
    return [
        run
        for position, run in enumerate(profile.runs)
        if position not in own
        and run.device is None
        and run.program
        and base_name(run.program) in names
        and host_of_thread(run.thread) not in hosts
    ]


def remote_calls(profile: Profile, judged: Sequence[int]) -> Iterator[RemoteCalls]:
    """Yield what the coordinator has each worker do, in the order of hosts; nothing where there is no coordinator."""
    threads: dict[int, list[Run]] = defaultdict(list)
    for call in coordinators_calls(profile, judged):
        threads[call.thread].append(call)
    steps = _steps_by_host(profile, judged)
    found: dict[int | None, list[tuple[Sequence[Run], Sequence[Answered]]]] = defaultdict(list)
    for calls in threads.values():
        answers = {host: list(_answered(calls, own)) for host, own in steps.items()}
        host = max(answers, key=lambda one: len(answers[one]), default=None)
        if host is None or len(answers[host]) < MOST_OF_CALLS * len(calls):
            found[None].append((calls, ()))
        else:
            found[host].append((calls, answers[host]))
    for host in sorted(found, key=lambda one: (one is None, one or 0)):
        yield _row("" if host is None else profile.hosts[host], found[host])


def _steps_by_host(profile: Profile, judged: Sequence[int]) -> Mapping[int, Sequence[Run]]:
    hosts: dict[int, list[Run]] = defaultdict(list)
    for position in judged:
        run = profile.runs[position]
        hosts[host_of_thread(run.thread)].append(run)
    return {host: sorted(own, key=lambda run: run.start_ns) for host, own in hosts.items()}


def _answered(calls: Sequence[Run], steps: Sequence[Run]) -> Iterator[Answered]:
    """Yield the calls that hold one step of a worker, and no other."""
    starts = [step.start_ns for step in steps]
    for call in calls:
        first, last = (bisect_left(starts, moment) for moment in (call.start_ns, call.end_ns))
        if last - first == 1 and steps[first].end_ns <= call.end_ns:
            yield Answered(call.end_ns - call.start_ns, steps[first].end_ns - steps[first].start_ns)


def _row(worker: str, parts: Sequence[tuple[Sequence[Run], Sequence[Answered]]]) -> RemoteCalls:
    calls = [call for own, _ in parts for call in own]
    answers = [answer for _, own in parts for answer in own]
    return RemoteCalls(
        worker,
        len(calls),
        len(answers),
        round(median(call.end_ns - call.start_ns for call in calls)),
        round(median(answer.step_ns for answer in answers)) if answers else None,
        round(median(answer.call_ns - answer.step_ns for answer in answers)) if answers else None,
    )
