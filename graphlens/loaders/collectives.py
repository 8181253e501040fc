"""What the replicas of a step do with each other: their parts in collectives."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from graphlens.ir.run import Collective, Span

COLLECTIVE_OP: Final = "Collective"  # how the types of all of them begin
INSTANCE: Final = "instance_key"
GROUP: Final = "group_key"

RunAt = Callable[[int, int], int]  # the run of a step id at a time


class Executed(NamedTuple):
    """A collective while it is under way, which begins when its turn comes: after its op was reached."""

    node: str
    op: str
    start_ns: int
    end_ns: int
    thread: int
    stats: Mapping[str, Any]


def collectives_of(executed: Iterable[Executed], waits: Sequence[Span], run_at: RunAt) -> Iterator[Collective]:
    """Yield the collectives, each from the moment at which its replica reached it.

    Parameters
    ----------
    waits
        The asynchronous ops from their start to their completion, named ``node:Op``.
    """
    spans: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for wait in waits:
        spans[wait.name, wait.step_id].append(wait)
    reached = {key: _Waits(own) for key, own in spans.items()}
    for one in executed:
        step_id = int(one.stats.get("step_id", 0))
        own = reached.get((f"{one.node}:{one.op}", step_id))
        around = own.around(one.start_ns) if own is not None else None
        # The event itself ends when its thread has also told those who wait for it, and run what they do then.
        start_ns, end_ns = around or (one.start_ns, one.end_ns)
        instance, group = int(one.stats[INSTANCE]), int(one.stats.get(GROUP, 0))
        run = run_at(step_id, one.start_ns)
        yield Collective(one.node, one.op, start_ns, end_ns, one.thread, instance, group, run)


class _Waits:
    """The waits of one op in one run: few, but for a damaged profile, in which all may be those of the same op."""

    def __init__(self, waits: Sequence[Span]) -> None:
        by_start = sorted(waits, key=lambda wait: wait.start_ns)
        by_end = sorted(waits, key=lambda wait: wait.end_ns)
        self._starts_ns = [wait.start_ns for wait in by_start]
        self._ends_ns = [wait.end_ns for wait in by_end]
        self._latest_ends_ns = list(accumulate((wait.end_ns for wait in by_start), max))
        self._first_starts_ns = list(accumulate((wait.start_ns for wait in reversed(by_end)), min))[::-1]

    def around(self, moment_ns: int) -> tuple[int, int] | None:
        """Return the first start and the last end of those under way at a moment; ``None`` where none is."""
        begun = bisect_right(self._starts_ns, moment_ns)
        over = bisect_left(self._ends_ns, moment_ns)
        if not begun or over == len(self._ends_ns) or self._latest_ends_ns[begun - 1] < moment_ns:
            return None
        return self._first_starts_ns[over], self._latest_ends_ns[begun - 1]
