"""The steps of a loop that computes gradients op by op: from one call for gradients to the next of the same place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from graphlens.ir.eager import GRADIENT, asked_of
from graphlens.ir.run import Mark, Run

# Of a loop that asks for gradients in several places (a GAN does, for one network after the other) a step is one round:
# it begins where gradients are asked for least often.  A place that is rarer than this is no part of every round: a
# check of every hundredth step.  Critics are trained five times as often as generators.
ONE_OF: Final = 12

# Where functions take most of the time between two calls for gradients, they are the steps: a few gradients that are
# looked at beside them make no eager loop.
MOSTLY_FUNCTIONS: Final = 0.5


def leader(counts: Mapping[int, int]) -> int:
    """Return the place where steps begin, given how often each was seen: the rarest that is part of every round.

    >>> leader({0: 50, 1: 10, 2: 1})
    1
    """
    often = max(counts.values())
    return min((site for site, count in counts.items() if count * ONE_OF >= often), key=lambda site: counts[site])


def steps_of(marks: Iterable[Mark], runs: Sequence[Run]) -> Iterator[tuple[Mark, Mark]]:
    """Yield the calls for gradients with which a step begins, and the next one; ``runs`` are those of functions."""
    threads: dict[int, list[Mark]] = defaultdict(list)
    for mark in sorted(marks, key=lambda mark: mark.start_ns):
        if mark.kind == GRADIENT:
            threads[mark.thread].append(mark)
    for thread, own in threads.items():
        sites = [asked_of(mark).site for mark in own]
        first = leader(Counter(sites))
        begins = [mark for mark, site in zip(own, sites, strict=True) if site == first]
        if len(begins) > 1 and not _are_of_functions(begins, [run for run in runs if run.thread == thread]):
            yield from pairwise(begins)


def _are_of_functions(begins: Sequence[Mark], runs: Sequence[Run]) -> bool:
    start_ns, end_ns = begins[0].start_ns, begins[-1].start_ns
    until_ns, in_functions_ns = start_ns, 0
    for run in sorted(runs, key=lambda run: run.start_ns):
        since_ns, last_ns = max(run.start_ns, until_ns), min(run.end_ns, end_ns)
        in_functions_ns += max(0, last_ns - since_ns)
        until_ns = max(until_ns, last_ns)
    return in_functions_ns >= MOSTLY_FUNCTIONS * (end_ns - start_ns)
