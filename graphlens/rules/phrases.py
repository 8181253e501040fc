"""Words and sums that several rules share."""

from __future__ import annotations

from collections.abc import Iterable

from graphlens.facts.core import Facts


def with_stage(facts: Facts, cause: str) -> str:
    """Add to a reason what it means that nothing was executed, where that is so."""
    return cause if facts.stage == "executed" else f"{cause}; nothing was executed, so the saving is unknown"


def known_sum(values: Iterable[int | None]) -> int | None:
    """Sum what is known; ``None`` when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun.

    >>> counted(1, "cast"), counted(1200, "cast"), counted(2, "copy", "copies")
    ('1 cast', '1,200 casts', '2 copies')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
