"""What the ops of the judged graph were as written, and what is said of most of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph, judged_stage, operations_of_origins, origins, traced_graph
from graphlens.ir.table import Table

_Said = TypeVar("_Said", bound=Hashable)

# The ops that one stands for, each with how much it counts, the one that it is named after last; ``None`` is an unknown
# one.
Weighed = Sequence[tuple[str | None, int]]


@fact
def as_written(facts: Facts) -> Sequence[Weighed]:
    """For each op of the judged graph, in its order, the ops as written that it stands for.

    An instruction of XLA stands for each as far as it does its operations, and a kernel of TensorFlow for all alike.
    """
    names = facts(judged_graph).names
    if not has_run(facts):
        return [((name, 1),) for name in names]
    origin_of, work = facts(origins), facts(operations_of_origins)
    return [
        tuple(work[name].items()) if name in work else tuple((one, 1) for one in origin_of.get(name, ()))
        for name in names
    ]


def has_run(facts: Facts) -> bool:
    """Whether the judged graph is what ran, and it is known how that was written."""
    return facts(judged_stage) == "executed" and facts(traced_graph) is not None


def of_most(written: Iterable[Weighed], known: Mapping[str, _Said]) -> list[_Said | None]:
    """Return what is known of most of what each op stands for, in a tie of the one that it is named after.

    >>> of_most([(("a", 1), ("b", 1), ("c", 1)), (("a", 1), ("c", 1)), (("d", 1),)], {"a": 1, "b": 1, "c": 2})
    [1, 2, None]
    """
    return [
        _of_most([(known[one], count) for one, count in several if one is not None and one in known])
        for several in written
    ]


def _of_most(several: Sequence[tuple[_Said, int]]) -> _Said | None:
    counts: Counter[_Said] = Counter()
    for said, count in several:
        counts[said] += count
    most = max(counts.values(), default=0)
    return next((said for said, _ in reversed(several) if counts[said] == most), None)


def with_inserted(
    graph: Table,
    found: Sequence[_Said | None],
    inserted: Sequence[bool],
    of_readers: Callable[[Sequence[_Said | None]], _Said | None] | None = None,
) -> list[_Said | None]:
    """Return what is said of all ops: of one that was put in, what is said of what reads it, else of its sources.

    ``of_readers`` chooses where readers differ; by default nothing is said then.
    """
    said = list(found)
    for at in reversed(graph.order):
        if said[at] is None and inserted[at]:
            said[at] = (of_readers or shared)([said[reader] for reader in graph.following[at]])
    for at in graph.order:
        if said[at] is None and inserted[at]:
            said[at] = shared([said[source] for source in graph.before(at)])
    return said


def shared(several: Iterable[_Said | None]) -> _Said | None:
    """Return what is said of all alike, ``None`` where that differs."""
    distinct = set(several)
    return distinct.pop() if len(distinct) == 1 else None
