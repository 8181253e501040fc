"""Words and sums that several rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_stage
from graphlens.facts.programs.judged_program import judged_profile


def with_stage(facts: Facts, cause: str) -> str:
    """Add to a reason what it means that nothing was measured, where that is so."""
    measured = facts(judged_stage) == "executed" or facts(judged_profile) is not None
    return cause if measured else f"{cause}; nothing was executed, so the saving is unknown"


def by_cause(causes: Iterable[str]) -> str:
    """Write the causes of several things, the commonest first; with their counts where they differ.

    >>> by_cause(["rain", "snow", "rain"]), by_cause(["rain"])
    ('2 of 3: rain; 1 of 3: snow', 'rain')
    """
    counts = Counter(causes)
    of_all = f" of {counts.total()}: "
    return "; ".join(f"{count}{of_all}{cause}" if len(counts) > 1 else cause for cause, count in counts.most_common())


def known_sum(values: Iterable[int | None]) -> int | None:
    """Sum what is known; ``None`` when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
