"""Divides stretches of time among what was running in them, for a million intervals at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.columns import Ints, concatenated
from graphlens.ir.run import Span

_NEVER: Final = np.iinfo(np.int64).max
_AT_ONCE: Final = 4_000_000  # shares that are laid out at a time: 100 MB


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Stretches of time in which something was active; ``key`` is the number of what it was."""

    start_ns: Ints
    end_ns: Ints
    key: Ints

    def where(self, chosen: Any) -> Intervals:
        """Return some of them."""
        return Intervals(self.start_ns[chosen], self.end_ns[chosen], self.key[chosen])


class Share(NamedTuple):
    """What one key has of the time; ``first`` sorts keys by when they first had a part of it."""

    key: int
    ns: float
    first: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The stretches of time that are divided, as they are and united: those of several threads overlap."""

    spans: tuple[Ints, Ints]
    starts_ns: Ints
    ends_ns: Ints

    @staticmethod
    def of(spans: Sequence[Span]) -> Windows:
        """Return those of some spans."""
        starts_ns = np.fromiter((span.start_ns for span in spans), np.int64, len(spans))
        ends_ns = np.fromiter((span.end_ns for span in spans), np.int64, len(spans))
        return Windows((starts_ns, ends_ns), *united(starts_ns, ends_ns))


def touching(start_ns: Ints, end_ns: Ints, windows: Windows) -> NDArray[np.bool_]:
    """Tell which intervals lie in the windows at least for an instant, be it a border."""
    following = np.searchsorted(windows.ends_ns, start_ns)
    return np.append(windows.starts_ns, _NEVER)[following] <= end_ns


def united(start_ns: Ints, end_ns: Ints) -> tuple[Ints, Ints]:
    """Return the union of intervals as intervals that do not touch, by their starts and ends."""
    if not np.all(start_ns[1:] >= start_ns[:-1]):
        order = np.argsort(start_ns, kind="stable")
        start_ns, end_ns = start_ns[order], end_ns[order]
    if not len(start_ns):
        return start_ns, end_ns
    until_ns = np.maximum.accumulate(end_ns)
    opens = np.flatnonzero(np.concatenate([[True], start_ns[1:] > until_ns[:-1]]))
    return start_ns[opens], until_ns[np.append(opens[1:], len(until_ns)) - 1]


def divide_among(windows: Windows, layers: Sequence[Intervals], outside: int) -> list[Share]:
    """Divide the time of the windows among the keys of intervals; what no layer covers is ``outside``.

    ``layers`` are ordered by precedence: an instant belongs to the first layer that has an active interval; the layer's
    active keys share it equally.
    """
    layers = [layer.where(_overlapping(layer, windows)) for layer in layers]
    borders = [*windows.spans, *(moments for layer in layers for moments in (layer.start_ns, layer.end_ns))]
    times_ns = _apart(concatenated(borders))
    lengths_ns = np.diff(times_ns)
    free = _count(times_ns, *windows.spans) > 0
    parts = []
    for layer in layers:
        part = _Part(times_ns, layer, free)
        free = free & ~part.taken
        parts.append(part)
    rest = np.flatnonzero(free)
    shares = _shares([part for part in parts if part.taken.any()], lengths_ns)
    if len(rest):
        shares.append(Share(outside, float(lengths_ns[rest].sum()), (int(rest[0]), 0)))
    return shares


def _apart(times_ns: Ints) -> Ints:
    """Return the times in their order, each once: numpy's own way of that counts them in a table, and takes longer."""
    ordered = np.sort(times_ns)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _overlapping(layer: Intervals, windows: Windows) -> NDArray[np.bool_]:
    """Tell which intervals have any time in one of the windows."""
    following = np.searchsorted(windows.ends_ns, layer.start_ns, side="right")
    begins = np.append(windows.starts_ns, _NEVER)[following]
    return (layer.end_ns > layer.start_ns) & (begins < layer.end_ns)


def _count(times_ns: Ints, start_ns: Ints, end_ns: Ints) -> Ints:
    """Return how many intervals are active between each of the times and the next one."""
    first, last = np.searchsorted(times_ns, start_ns), np.searchsorted(times_ns, end_ns)
    return _active(first, last, len(times_ns))


def _active(first: Ints, last: Ints, count: int) -> Ints:
    """Return how many of the intervals between places go on behind each of ``count`` places but the last."""
    return np.cumsum(np.bincount(first, minlength=count) - np.bincount(last, minlength=count))[:-1]


class _Part:
    """What one layer has: the stretches between neighbouring times in which it is the first that is active."""

    def __init__(self, times_ns: Ints, layer: Intervals, free: NDArray[np.bool_]) -> None:
        first, last = np.searchsorted(times_ns, layer.start_ns), np.searchsorted(times_ns, layer.end_ns)
        self.first, self.last, self.key = _of_one_key_united(first, last, layer.key, len(times_ns))
        self.active = _active(self.first, self.last, len(times_ns))
        self.taken = free & (self.active > 0)

    def shares(self, lengths_ns: Ints) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """Yield key, stretch and time of every key in every stretch: those of one key in order of time."""
        own = np.flatnonzero(self.taken)
        each_ns = lengths_ns[own] / self.active[own]
        before = np.concatenate([[0], np.cumsum(self.taken)])
        first, count = before[self.first], before[self.last] - before[self.first]
        for part in _pieces(count):
            repeats = count[part]
            offsets = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            place = np.repeat(first[part], repeats) + offsets
            yield np.repeat(self.key[part], repeats), own[place], each_ns[place]

    def begun(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield key, first stretch that it has, and since when it was active then."""
        own = np.flatnonzero(self.taken)
        following = np.append(own, _NEVER)[np.searchsorted(own, self.first)]
        has_any = np.flatnonzero(following < self.last)
        earliest = has_any[np.unique(self.key[has_any], return_index=True)[1]]
        begun = zip(following[earliest].tolist(), self.first[earliest].tolist(), strict=True)
        yield from zip(self.key[earliest].tolist(), begun, strict=True)


def _of_one_key_united(first: Ints, last: Ints, key: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Unite what overlaps of one key, so that as many intervals are active as keys; sorted by key, then by start."""
    order = np.lexsort((first, key))
    first, last, key = first[order], last[order], key[order]
    until = np.maximum.accumulate(last + key * count) - key * count  # keys apart, so that none reaches into the next
    opens = np.flatnonzero(np.concatenate([[True], (first[1:] >= until[:-1]) | (key[1:] != key[:-1])])[: len(key)])
    closes = np.append(opens[1:], len(key)) - 1
    return first[opens], until[closes] if len(opens) else last, key[opens]


def _pieces(count: Ints) -> Iterator[slice]:
    """Yield stretches of ``count`` that do not add up to too much."""
    total, begin = np.cumsum(count), 0
    while begin < len(count):
        so_far = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, so_far + _AT_ONCE, side="right")))
        yield slice(begin, end)
        begin = end


def _shares(parts: Sequence[_Part], lengths_ns: Ints) -> list[Share]:
    keys = max((int(part.key.max()) + 1 for part in parts), default=0)
    total_ns = np.zeros(keys)
    for key, _, ns in _in_order(parts, lengths_ns):
        np.add.at(total_ns, key, ns)
    first: dict[int, tuple[int, int]] = {}
    for part in parts:
        for own, begun in part.begun():
            first[own] = min(begun, first.get(own, begun))
    return [Share(key, float(total_ns[key]), begun) for key, begun in first.items()]


def _in_order(parts: Sequence[_Part], lengths_ns: Ints) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
    """Yield the shares of all parts, those of one key in order of time: sums of fractions depend on the order."""
    own = [set(np.unique(part.key).tolist()) for part in parts]
    found = (piece for part in parts for piece in part.shares(lengths_ns))
    if sum(map(len, own)) == len(set().union(*own)):
        yield from found
        return
    key, stretch, ns = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(stretch, kind="stable")
    yield key[order], stretch[order], ns[order]


def pairs(stretches: Iterable[tuple[int, int]]) -> tuple[Ints, Ints]:
    """Return the starts and the ends of stretches."""
    both = np.array(list(stretches), np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def binned_ns(stretches: tuple[Ints, Ints], whole: tuple[int, int], bins: int) -> list[float]:
    """Return how much of the union of stretches (starts and ends) lies in each of ``bins`` equal parts of ``whole``.

    Most stretches are far shorter than a part: what lies in one alone is added up as integers.  Borders of parts are
    fractions, and times too large for these to be exact, so which is earlier is told by the integers next to a border.
    """
    first_ns, width = whole[0], (whole[1] - whole[0]) / bins
    borders = [first_ns + position * width for position in range(bins + 1)]
    starts_ns, ends_ns = united(*stretches)
    place = ((starts_ns - first_ns) / width).astype(np.int64)
    known = np.clip(place, 0, bins - 1)
    is_in_one = (place == known) & (starts_ns >= np.array([math.ceil(border) for border in borders])[known])
    is_in_one &= ends_ns <= np.array([math.floor(border) for border in borders])[known + 1]
    filled: list[float] = np.bincount(place[is_in_one], (ends_ns - starts_ns)[is_in_one], bins).tolist()
    rest = (column[~is_in_one].tolist() for column in (starts_ns, ends_ns, place))
    for start, end, first in zip(*rest, strict=True):
        position = first
        while position < bins and borders[position] < end:
            filled[position] += max(0.0, min(end, borders[position + 1]) - max(start, borders[position]))
            position += 1
    return filled
