"""Which events of a thread lie within which: the time that is not their own, and the executor that they ran in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from graphlens.ir.columns import Ints, alone

NO_EXECUTOR: Final = -1


def nested(borders: Ints, start_ps: Ints, end_ps: Ints, executor: Ints) -> tuple[Ints, Ints]:
    """Return for each event the time of what is nested in it, and the executor that it ran in.

    Each thread begins at one of ``borders``, and has its events sorted by start, the longer ones first.
    """
    inner_ps = np.zeros_like(start_ps)
    others = np.flatnonzero(executor == NO_EXECUTOR)
    # Most contain nothing and lie in nothing.
    nested = others[~alone(np.searchsorted(others, borders), start_ps[others], end_ps[others])]
    for outer, ps in _time_within(nested, np.searchsorted(nested, borders), start_ps, end_ps):
        inner_ps[outer] += ps
    return inner_ps, _executor_around(borders, start_ps, end_ps, executor)


def _time_within(chosen: Ints, borders: Ints, start_ps: Ints, end_ps: Ints) -> Iterator[tuple[int, int]]:
    """Yield each event that contains others of ``chosen`` with the time of one of them, those of a thread by start."""
    for first, last in pairwise(borders.tolist()):
        places = chosen[first:last]
        opened: list[tuple[int, int]] = []
        for place, start, end in zip(
            *(column.tolist() for column in (places, start_ps[places], end_ps[places])), strict=True
        ):
            while opened and opened[-1][0] <= start:
                opened.pop()
            if opened and opened[-1][0] >= end:
                yield opened[-1][1], end - start
            opened.append((end, place))


def _executor_around(borders: Ints, start_ps: Ints, end_ps: Ints, executor: Ints) -> Ints:
    """Return for each event the executor that it ran in: the last one begun that is not over."""
    within = np.full(len(executor), NO_EXECUTOR)
    executors = np.flatnonzero(executor != NO_EXECUTOR)
    if not len(executors):
        return within
    first = np.searchsorted(executors, borders)
    is_alone = alone(first, start_ps[executors], end_ps[executors])
    last = np.searchsorted(executors, np.arange(len(executor)), side="right") - 1
    line = np.searchsorted(borders, np.arange(len(executor)), side="right")
    own = executors[np.maximum(last, 0)]
    follows = (last >= 0) & (line[own] == line)
    sure = follows & is_alone[last] & (end_ps[own] > start_ps)
    within[sure] = executor[own[sure]]
    # Where executors overlap, the last one may be over and the one around it not.
    unsure = np.flatnonzero(follows & ~is_alone[last])
    for begin, end in pairwise(np.searchsorted(unsure, borders).tolist()):
        opened: list[tuple[int, int]] = []
        places = unsure[begin:end]
        rows = (column.tolist() for column in (places, start_ps[places], end_ps[places], executor[places]))
        for place, start, stop, number in zip(*rows, strict=True):
            while opened and opened[-1][0] <= start:
                opened.pop()
            if number != NO_EXECUTOR:
                opened.append((stop, number))
            elif opened:
                within[place] = opened[-1][1]
    return within
