"""What the replicas of a step do with each other: their parts in collectives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    reached: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for wait in waits:
        reached[wait.name, wait.step_id].append(wait)
    for one in executed:
        step_id = int(one.stats.get("step_id", 0))
        around = [
            wait
            for wait in reached.get((f"{one.node}:{one.op}", step_id), ())
            if wait.start_ns <= one.start_ns <= wait.end_ns
        ]
        start_ns = min((wait.start_ns for wait in around), default=one.start_ns)
        # The event itself ends when its thread has also told those who wait for it, and run what they do then.
        end_ns = max((wait.end_ns for wait in around), default=one.end_ns)
        instance, group = int(one.stats[INSTANCE]), int(one.stats.get(GROUP, 0))
        run = run_at(step_id, one.start_ns)
        yield Collective(one.node, one.op, start_ns, end_ns, one.thread, instance, group, run)
