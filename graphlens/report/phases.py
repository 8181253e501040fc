"""How phases and kinds of work are named and toned in every drawing of a training step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from graphlens.ir.training import PHASES, TimelineSpan

NOT_KNOWN: Final = "not known"

# Tone -> what a legend says of it, in the order of a legend.  Each tone has a pattern of its own, beside its colour.
TONES: Final[Mapping[str, str]] = {
    **{phase: phase for phase in PHASES},
    "unknown": NOT_KNOWN,
    "call": "call",
    "wait": "waiting",
    "python": "Python",
    "trace": "tracing or compiling",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend."""

    tone: str
    words: str


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar; ``start`` and ``width`` are percent of the whole drawing."""

    tone: str
    start: float
    width: float
    words: str


def tone_of_phase(phase: str | None) -> str:
    """Return the tone of a phase, also of one that is not known.

    >>> tone_of_phase("forward"), tone_of_phase(None)
    ('forward', 'unknown')
    """
    return phase if phase is not None and phase in TONES else "unknown"


def tone_of_span(span: TimelineSpan) -> str:
    """Return the tone of what a thread did: that of its phase for an op, and else of its kind."""
    return tone_of_phase(span.phase) if span.kind == "op" else span.kind


def legend_of(tones: Collection[str]) -> tuple[Key, ...]:
    """Return what a legend has to say of the tones that were used."""
    return tuple(Key(tone, words) for tone, words in TONES.items() if tone in tones)


def percent(part: float, whole: float) -> float:
    """Return a part in percent of a whole, as fine as a drawing needs, and never more than all of it."""
    return round(min(max(100 * part / whole, 0.0), 100.0), 2) if whole > 0 else 0.0
