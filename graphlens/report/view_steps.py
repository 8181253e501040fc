"""The step in words: its time and spread, how often it is called, and the kinds of steps where they differ."""

from __future__ import annotations

from dataclasses import dataclass

from graphlens.ir.measured import ProgramRow, StepTime
from graphlens.ir.training import Period
from graphlens.units import counted, format_count, format_frequency, format_ns

NOT_MEASURED = "not measured"
NOT_KNOWN = "not known"
NOT_SHOWN = "not shown"

# From one call to the next passes at least the call itself.  Less than this beyond it is within the spread of steps.
PERIOD_DIFFERS = 1.05

# A sentence holds the most frequent kinds; the table of the page holds more, the JSON all.
KINDS_IN_WORDS = 3
KINDS_LIMIT = 12


@dataclass(frozen=True, slots=True)
class KindView:
    """Steps that ran the same ops; ``width`` is the bar of their median in per mille of the longest one."""

    steps: str
    time: str
    ops: str
    width: float


@dataclass(frozen=True, slots=True)
class KindsView:
    """How steps of several kinds follow each other: in a sentence, and as rows.

    ``order`` says after how many steps they repeat, ``mean`` is the mean over whole cycles.
    """

    words: str
    rows: tuple[KindView, ...]
    order: str
    mean: str
    note: str


def step_words(step: StepTime | None, alarm: str = "", failed: bool = False) -> tuple[str, str]:
    """Return the step's time and what there is to say of it; ``failed``: it is among what could not be derived."""
    if step is None and failed:
        return NOT_KNOWN, "it could not be derived"
    if step is None:
        return (NOT_SHOWN, "the measurement contradicts itself") if alarm else (NOT_MEASURED, "no step was executed")
    spread = f"{format_ns(step.p10_ns)} – {format_ns(step.p90_ns)} (p10 – p90), " if step.n > 1 else ""
    return format_ns(step.median_ns), f"{spread}{counted(step.n, 'step')}, {step.origin}"


def element_words(step: StepTime | None) -> tuple[str, str] | None:
    """Return how fast the elements of a dataset come, which are its steps, and what there is to say of it.

    >>> element_words(StepTime(14_200_000, 11_000_000, 20_000_000, 20))
    ('70.4 elements/s', 'one every 14.2 ms: 11.0 ms – 20.0 ms (p10 – p90 of 20 blocks of elements), measured')
    """
    if step is None:
        return None
    spread = (
        f"{format_ns(step.p10_ns)} – {format_ns(step.p90_ns)} (p10 – p90 of {counted(step.n, 'block')} of elements)"
    )
    every = f"one every {format_ns(step.median_ns)}: {spread}, {step.origin}"
    return f"{format_frequency(1e9 / step.median_ns)} elements/s", every


def base_words(step: StepTime | None) -> str:
    """Say which steps the times of ops are parts of, where those are other ones than the step that is shown.

    >>> base_words(StepTime(10_000_000, 9_000_000, 11_000_000, 30, profiled_median_ns=12_500_000))
    'Ops are timed with the profiler on: their times are parts of steps of 12.5 ms, not of the 10.0 ms without it.'
    >>> base_words(StepTime(10_000_000, 9_000_000, 11_000_000, 30, profiled_median_ns=10_000_000))
    ''
    """
    if step is None or step.profiled_median_ns in (None, step.median_ns):
        return ""
    return (
        f"Ops are timed with the profiler on: their times are parts of steps of {format_ns(step.profiled_ns)}, not of "
        f"the {format_ns(step.median_ns)} without it."
    )


def rhythm_words(step: StepTime | None, judged: ProgramRow | None, period: Period | None = None) -> str:
    """Say how often the step is called, where that is told by more than its length; else nothing.

    The step of a Session is only known while it is recorded, and the ``period`` also while it is not.

    >>> step = StepTime(7_000_000, 6_000_000, 8_000_000, 20, period_ns=8_100_000)
    >>> rhythm_words(step, None)
    'called every 8.10 ms'
    >>> recorded = StepTime(7_000_000, 6_000_000, 8_000_000, 20, profiled_median_ns=7_000_000, period_ns=8_100_000)
    >>> rhythm_words(recorded, None, Period(7_300_000, 90, (), profiled_ns=8_080_000))
    'called every 8.10 ms while recorded, every 7.30 ms else'
    >>> rhythm_words(recorded, None, Period(8_100_001, 90, (), profiled_ns=8_080_000))
    'called every 8.10 ms'
    """
    if step is None or step.period_ns is None:
        return ""
    per_call = _steps_per_call(judged)
    if step.period_ns < PERIOD_DIFFERS * step.median_ns * per_call:
        return ""
    several = f"{format_count(round(per_call, 1))} steps a call, " if per_call > 1 else ""
    return f"{several}called every {format_ns(step.period_ns)}{_unlike_unrecorded(step, period)}"


def _unlike_unrecorded(step: StepTime, period: Period | None) -> str:
    """Say how often a step that is only known as it was recorded is called otherwise."""
    if period is None or step.profiled_median_ns != step.median_ns or period.profiled_ns in (None, period.ns):
        return ""
    every = format_ns(period.ns)
    return f" while recorded, every {every} else" if step.period_ns and every != format_ns(step.period_ns) else ""


def _steps_per_call(judged: ProgramRow | None) -> float:
    if judged is None or not judged.runs or not judged.steps:
        return 1.0
    return max(1.0, judged.steps / judged.runs)


def kinds_view(step: StepTime | None) -> KindsView | None:
    """Return the kinds of steps; ``None`` where all steps are alike."""
    if step is None or not step.kinds:
        return None
    total = sum(kind.count for kind in step.kinds)
    longest_ns = max(kind.median_ns for kind in step.kinds) or 1
    rows = tuple(
        KindView(
            f"{kind.count:,} of {total:,}",
            format_ns(kind.median_ns),
            counted(kind.ops, "op"),
            round(1000 * kind.median_ns / longest_ns, 1),
        )
        for kind in step.kinds[:KINDS_LIMIT]
    )
    hidden = len(step.kinds) - KINDS_LIMIT
    return KindsView(
        words=_kinds_words(step, total),
        rows=rows,
        order=f"a cycle of {step.cycle}" if step.cycle else "no fixed order",
        mean=format_ns(step.mean_ns),
        note=f"and {counted(hidden, 'more kind')}, listed in the JSON report" if hidden > 0 else "",
    )


def _kinds_words(step: StepTime, total: int) -> str:
    first, *others = step.kinds[:KINDS_IN_WORDS]
    profiled = "" if total == step.n else "profiled "
    takes = "takes" if first.count == 1 else "take"
    said = [f"{first.count:,} of {total:,} {profiled}steps {takes} {format_ns(first.median_ns)}"]
    said += [f"{kind.count:,} {'takes' if kind.count == 1 else 'take'} {format_ns(kind.median_ns)}" for kind in others]
    rest = total - sum(kind.count for kind in step.kinds[:KINDS_IN_WORDS])
    if rest:
        said.append(f"{rest:,} are of {counted(len(step.kinds) - KINDS_IN_WORDS, 'more kind')}")
    return f"{', '.join(said)}{_mean_words(step)}"


def _mean_words(step: StepTime) -> str:
    if step.mean_ns is None:
        return ""
    over = f"over a cycle of {step.cycle}" if step.cycle else "in no fixed order"
    return f"; {format_ns(step.mean_ns)} on average {over}"
