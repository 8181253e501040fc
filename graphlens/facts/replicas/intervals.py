"""Sets of instants as intervals that are sorted and do not touch: unions, intersections, and their lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphlens.ir.columns import Ints


@dataclass(frozen=True, eq=False)
class Instants:
    """A set of instants: intervals in the order of time, of which no two touch."""

    start_ns: Ints
    end_ns: Ints

    @staticmethod
    def of(start_ns: Ints, end_ns: Ints) -> Instants:
        """Return the union of any intervals.

        >>> import numpy as np
        >>> whole = Instants.of(np.array([5, 0, 30]), np.array([15, 10, 40]))
        >>> whole.start_ns.tolist(), whole.end_ns.tolist()
        ([0, 30], [15, 40])
        """
        return _where_covered([(start_ns, end_ns)], 1)

    def within(self, other: Instants) -> Instants:
        """Return the instants that are in both."""
        return _where_covered([(self.start_ns, self.end_ns), (other.start_ns, other.end_ns)], 2)

    def without(self, other: Instants) -> Instants:
        """Return the instants that are not in the other set."""
        if not len(self.start_ns):
            return self
        first, last = self.start_ns[:1], self.end_ns[-1:]
        gaps = np.concatenate([first, other.end_ns]), np.concatenate([other.start_ns, last])
        return self.within(Instants.of(gaps[0], np.maximum(*gaps)))

    def lengths_ns(self, since_ns: Ints, until_ns: Ints) -> Ints:
        """Return how much of each of some windows they fill."""
        return self._before(until_ns) - self._before(since_ns)

    def _before(self, moment_ns: Ints) -> Ints:
        """Return how long they last in all before some moments."""
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.end_ns - self.start_ns)])
        ended = np.searchsorted(self.end_ns, moment_ns, "right")
        begun = np.concatenate([self.start_ns, np.full(1, np.iinfo(np.int64).max)])[ended]
        return total[ended] + np.maximum(0, moment_ns - np.minimum(begun, moment_ns))


def _where_covered(intervals: list[tuple[Ints, Ints]], times: int) -> Instants:
    """Return the instants that at least so many intervals hold; those of one set that overlap count each."""
    moments = np.concatenate([part for both in intervals for part in both])
    changes = np.concatenate(
        [np.full(len(part), sign) for both in intervals for part, sign in zip(both, (1, -1), strict=True)]
    )
    order = np.lexsort((-changes, moments))  # what begins where another ends goes on from it
    moments, count = moments[order], np.cumsum(changes[order])
    covered = np.concatenate([np.zeros(1, bool), count >= times, np.zeros(1, bool)])
    edges = np.flatnonzero(covered[1:] != covered[:-1])
    start_ns, end_ns = moments[edges[::2]], moments[edges[1::2]]
    lasts = end_ns > start_ns
    return Instants(start_ns[lasts], end_ns[lasts])
