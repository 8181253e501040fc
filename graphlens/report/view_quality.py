"""The verdict on the measurement itself: grade, reasons, and numbers with their meaning in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from graphlens.ir.analysis import UNKNOWN_QUALITY, Quality
from graphlens.report.words import CONTRADICTS, GRADES, NOT_KNOWN
from graphlens.units import UNKNOWN, counted, format_count, format_share


@dataclass(frozen=True, slots=True)
class Number:
    """One number of the measurement quality with its meaning in a sentence."""

    label: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class GradeView:
    """The verdict on the measurement itself.

    ``counted`` says how many reasons and notes there are to read, ``unknown`` lists the numbers that nothing is known
    about.
    """

    grade: str
    words: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    numbers: tuple[Number, ...]
    unknown: str
    counted: str


def quality_view(quality: Quality, alarm: str = "") -> GradeView:
    """Return the verdict with its numbers, each with its meaning; what the ``alarm`` says is not said again."""
    numbers = (
        Number(
            "Joined op time",
            format_share(quality.join_rate),
            "of the measured op time could be joined to an executed op and on to the op as it was written.",
        ),
        Number(
            "Attributed",
            format_share(quality.attributed_share),
            "of the step is given to named ops or to named overhead.",
        ),
        Number("Inside ops", format_share(quality.op_share), "of the step at least one named op was running."),
        Number("Coverage", format_share(quality.coverage), _coverage_meaning(quality)),
        Number("Spread", format_share(quality.stability), _spread_meaning(quality)),
        Number("Profiler overhead", _signed_share(quality.profiler_overhead), _overhead_meaning(quality)),
        Number("Profiled steps", format_count(quality.steps), "were recorded with the profiler on."),
    )
    known = tuple(number for number in numbers if number.value != UNKNOWN)
    unknown = tuple(number.label.lower() for number in numbers if number.value == UNKNOWN)
    words = CONTRADICTS if alarm else NOT_KNOWN if quality == UNKNOWN_QUALITY else GRADES[quality.grade]
    reasons = tuple(reason for reason in quality.reasons if not alarm or alarm not in reason)
    told = ((counted(len(reasons), "reason"), reasons), (counted(len(quality.notes), "note"), quality.notes))
    return GradeView(
        quality.grade,
        words,
        reasons,
        quality.notes,
        known,
        ", ".join(unknown),
        ", ".join(text for text, any_ in told if any_),
    )


def _spread_meaning(quality: Quality) -> str:
    """Say of which steps: those without the profiler, where such were measured beside those with it."""
    which = "the step" if quality.profiler_overhead is None else "the step without profiler"
    return f"between the 10th and the 90th percentile of {which}, over its median."


def _coverage_meaning(quality: Quality) -> str:
    of = ""
    if quality.ops_seen is not None and quality.ops_expected is not None:
        of = f" ({quality.ops_seen:,} of {quality.ops_expected:,}{_replayed(quality)})"
    return f"of the ops that a profiler can see were seen at least once{of}."


def _replayed(quality: Quality) -> str:
    return f"; {quality.ops_replayed:,} more timed by the replay only" if quality.ops_replayed else ""


def _overhead_meaning(quality: Quality) -> str:
    if quality.profiler_overhead is not None and quality.profiler_overhead < 0:
        return "faster with the profiler on: that is noise, not a gain."
    return "slower with the profiler on; step times are measured without it."


def _signed_share(share: float | None) -> str:
    return f"+{format_share(share)}" if share is not None and share > 0 else format_share(share)
