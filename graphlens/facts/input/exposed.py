"""The time in which something was waited for and nothing else was done, stretch by stretch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from graphlens.facts.clock.periods import Stretch
from graphlens.facts.clock.sweep import pairs, united
from graphlens.ir.columns import Ints, OpEvents, Spans
from graphlens.ir.iterators import InputRequest
from graphlens.ir.run import Profile


def exposed_ns(
    profile: Profile, runs: Collection[int], requests: Sequence[InputRequest], stretches: Sequence[Stretch]
) -> list[int]:
    """Return how long of each stretch a request was under way while neither ops nor executors of ``runs`` worked."""
    asked = united(*pairs((one.start_ns, one.end_ns) for one in requests))
    busy = _busy(profile, runs)
    borders = np.array([(one.start_ns, one.end_ns) for one in stretches], np.int64)
    waits = [_until(asked, moments) - _until(_both(asked, busy), moments) for moments in borders.T]
    found: list[int] = (waits[1] - waits[0]).tolist()
    return found


def _busy(profile: Profile, runs: Collection[int]) -> tuple[Ints, Ints]:
    ops = OpEvents.of(profile.ops).of_runs(runs)
    executors = Spans.of(profile.executors).of_runs(runs)
    kernels = pairs((one.start_ns, one.end_ns) for one in profile.kernels if one.run in runs)
    parts = ((ops.start_ns, ops.end_ns), (executors.start_ns, executors.end_ns), kernels)
    return united(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _both(one: tuple[Ints, Ints], other: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Return the time that lies in two unions of intervals."""
    first = np.searchsorted(other[1], one[0], side="right")
    last = np.searchsorted(other[0], one[1], side="left")
    count = np.maximum(last - first, 0)
    own = np.repeat(np.arange(len(count)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return np.maximum(one[0][own], other[0][place]), np.minimum(one[1][own], other[1][place])


def _until(intervals: tuple[Ints, Ints], moments: NDArray[np.int64]) -> Ints:
    """Return how much of disjoint intervals lies before each of some moments."""
    starts, ends = intervals
    before = np.concatenate([[0], np.cumsum(ends - starts)])
    count = np.searchsorted(starts, moments, side="right")
    over = np.maximum(0, ends[np.maximum(count - 1, 0)] - moments) if len(ends) else np.zeros_like(moments)
    return before[count] - np.where(count > 0, over, 0)
