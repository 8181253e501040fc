"""What the ops of the judged graph were as written, and what is said of most of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph, judged_stage, origins, traced_graph

_Said = TypeVar("_Said", bound=Hashable)


@fact
def as_written(facts: Facts) -> Sequence[Sequence[str]]:
    """For each op of the judged graph, in its order, the ops as written that it stands for."""
    names = facts(judged_graph).names
    if not has_run(facts):
        return [(name,) for name in names]
    origin_of = facts(origins)
    return [origin_of.get(name, ()) for name in names]


def has_run(facts: Facts) -> bool:
    """Whether the judged graph is what ran, and it is known how that was written."""
    return facts(judged_stage) == "executed" and facts(traced_graph) is not None


def of_most(written: Sequence[Sequence[str]], known: Mapping[str, _Said]) -> list[_Said | None]:
    """Return what is known of most of the ops that each one stands for, in a tie of the one it is named after.

    >>> of_most([("a", "b", "c"), ("a", "c"), ("d",)], {"a": 1, "b": 1, "c": 2})
    [1, 2, None]
    """
    return [_of_most([known[one] for one in several if one in known]) for several in written]


def _of_most(several: Sequence[_Said]) -> _Said | None:
    counts = Counter(several)
    most = max(counts.values(), default=0)
    return next((said for said in reversed(several) if counts[said] == most), None)
