"""The stretches of time from the start of one step to the start of the next, as a program's runs show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median, median_low
from typing import Final, NamedTuple

from graphlens.facts.clock.steps import FEWEST_STEPS_TO_DROP_FIRST, FEWEST_STEPS_TO_TRIM
from graphlens.ir.run import NO_RUN, Profile, Run, Span

# Of calls that loop over a dataset, fewer stretches from call to call tell less than the iterations within the calls.
FEWEST_CALLS: Final = 3


class Stretch(NamedTuple):
    """From the start of a step, or of a call that makes several, to that of the next one."""

    start_ns: int
    end_ns: int
    steps: int = 1

    @property
    def step_ns(self) -> float:
        """How long a step of it lasted."""
        return (self.end_ns - self.start_ns) / self.steps


def stretches_of(profile: Profile, runs: Sequence[int], steps: Sequence[Span]) -> list[Stretch]:
    """Return the stretches of a program without a slow first one; empty where fewer than two steps are seen.

    Parameters
    ----------
    runs
        The positions of its runs in ``profile.runs``.
    steps
        Its steps: those that are no runs are marked in the profile, and begin where the marks do.
    """
    if any(step.run == NO_RUN for step in steps):
        found = [Stretch(before, after) for before, after in pairwise(sorted(step.start_ns for step in steps))]
        return _without_first(found)
    own = _of_one_thread([profile.runs[run] for run in runs])
    found = [
        Stretch(before.start_ns, after.start_ns, max(1, len(before.iterations))) for before, after in pairwise(own)
    ]
    if len(found) < FEWEST_CALLS and any(run.iterations for run in own):
        found = [Stretch(*window) for run in own for window in run.iterations]
    return _without_first(found)


def typical_of(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return the middle half of them by the length of a step, in order of time; of few calls the middle one."""
    by_length = sorted(stretches, key=lambda stretch: stretch.step_ns)
    if _are_few_calls(stretches):
        return [by_length[(len(stretches) - 1) // 2]]
    if len(stretches) < FEWEST_STEPS_TO_TRIM:
        return list(stretches)
    quarter = len(stretches) // 4
    return sorted(by_length[quarter : len(stretches) - quarter])


def period_ns_of(stretches: Sequence[Stretch]) -> int:
    """Return the median length of a step with what follows it."""
    middle = median_low if _are_few_calls(stretches) else median
    return round(middle([stretch.step_ns for stretch in stretches]))


def _are_few_calls(stretches: Sequence[Stretch]) -> bool:
    """Tell whether they are a handful of calls of several steps each.

    Each of them tells as much as a row of steps does, and some take twice as long: what tunes a pipeline may sleep when
    its iterator is deleted, and is waited for (TensorFlow 2.21).  Between the two kinds nothing lies.
    """
    return 0 < len(stretches) < FEWEST_STEPS_TO_TRIM and all(stretch.steps > 1 for stretch in stretches)


def _without_first(stretches: list[Stretch]) -> list[Stretch]:
    return stretches[1:] if len(stretches) >= FEWEST_STEPS_TO_DROP_FIRST else stretches


def _of_one_thread(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that do steps, of the thread of the host that called most."""
    threads: Mapping[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.device is None and run.elements != 0:
            threads[run.thread].append(run)
    most = max(threads.values(), key=len, default=[])
    return list(_in_order(most))


def _in_order(runs: Sequence[Run]) -> Iterator[Run]:
    """Yield the runs by their start; what is called within another one is no step of its own."""
    until_ns: int | None = None
    for run in sorted(runs, key=lambda run: (run.start_ns, -run.end_ns)):
        if until_ns is None or run.start_ns >= until_ns:
            yield run
            until_ns = run.end_ns
