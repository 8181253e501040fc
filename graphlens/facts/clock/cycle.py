"""Steps that do different work by turns: an optimizer that runs in every fourth, averages that are written at times."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

# Branches hold many ops, which come and go together; what the profiler leaves out at random does not.
FEWEST_OPS: Final = 3
LEAST_SHARE_OF_OPS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Kind:
    """Steps that run the same ops: how many there are, their median, and how many ops one runs."""

    count: int
    median_ns: int
    ops: int


@dataclass(frozen=True, slots=True)
class Cycle:
    """How steps of several kinds follow each other.

    Attributes
    ----------
    kinds
        The kinds, the most frequent first; empty where all steps are alike.
    length
        After how many steps they repeat; ``None`` where no order is seen.
    mean_ns
        The mean step over whole cycles; over all steps where no order is seen.
    """

    kinds: tuple[Kind, ...] = ()
    length: int | None = None
    mean_ns: int | None = None


ALL_ALIKE: Final = Cycle()


def cycle_of(steps: Sequence[Counter[str]], lengths_ns: Sequence[int]) -> Cycle:
    """Return the cycle of steps from how often every op ran in each, and their lengths."""
    labels = _labels(steps)
    if len(set(labels)) < 2:
        return ALL_ALIKE
    length = _period(labels)
    whole = len(labels) - len(labels) % length if length else len(labels)
    return Cycle(tuple(_kinds(labels, steps, lengths_ns)), length, round(fmean(lengths_ns[:whole])))


def _labels(steps: Sequence[Counter[str]]) -> list[frozenset[int]]:
    """Return for each step which groups of ops that come and go together ran in it."""
    presence: dict[str, int] = defaultdict(int)
    for number, nodes in enumerate(steps):
        for node in nodes:
            presence[node] |= 1 << number
    fewest = max(FEWEST_OPS, LEAST_SHARE_OF_OPS * len(presence))
    groups = Counter(mask for mask in presence.values() if _comes_and_goes(mask, len(steps)))
    telling = [mask for mask, ops in groups.items() if ops >= fewest]
    return [frozenset(mask for mask in telling if mask >> number & 1) for number in range(len(steps))]


def _comes_and_goes(mask: int, steps: int) -> bool:
    """Whether ops ran in some steps and not in others, again and again.

    Ops that were seen up to some step only, or from one on, tell of the profiler: it leaves out what became cheap.
    """
    turns = sum(mask >> number & 1 != mask >> (number + 1) & 1 for number in range(steps - 1))
    return turns > 1


def _period(labels: Sequence[frozenset[int]]) -> int | None:
    """Return after how many steps the labels repeat, when they do so at least once."""
    for length in range(2, len(labels) // 2 + 1):
        if all(labels[number] == labels[number - length] for number in range(length, len(labels))):
            return length
    return None


def _kinds(
    labels: Sequence[frozenset[int]], steps: Sequence[Counter[str]], lengths_ns: Sequence[int]
) -> Iterable[Kind]:
    for label, count in Counter(labels).most_common():
        members = [number for number, other in enumerate(labels) if other == label]
        ops = median(steps[number].total() for number in members)
        yield Kind(count, round(median(lengths_ns[number] for number in members)), round(ops))
