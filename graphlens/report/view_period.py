"""The time from one step to the next, as rows that sum to it, and who had it: executor or program around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.run import LedgerRow
from graphlens.report.phases import percent
from graphlens.units import counted, format_ns, format_share

# Rows of the executor's own cost are said with its name first; all rows of ops are the executor's.
EXECUTOR = "executor"
OUTSIDE_TONES = 4


@dataclass(frozen=True, slots=True)
class PeriodRowView:
    """One row; ``start`` and ``width`` are percent of the period."""

    category: str
    tone: str
    where: str
    time: str
    share: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class PeriodView:
    """Where the time goes from step to step; ``split`` says how it is shared with the executor, where that is known."""

    total: str
    n: str
    rows: tuple[PeriodRowView, ...]
    split: str


def period_view(document: Document) -> PeriodView | None:
    """Return the period; ``None`` where it is not known."""
    period = document.period
    if period is None or period.ns <= 0 or not period.rows:
        return None
    return PeriodView(
        total=format_ns(period.ns),
        n=counted(period.n, "step"),
        rows=_rows(sorted(period.rows, key=_place), sum(row.ns for row in period.rows)),
        split=_split(period.executor_ns, period.ns),
    )


def _rows(rows: Sequence[LedgerRow], whole_ns: int) -> tuple[PeriodRowView, ...]:
    shown, start_ns, inside, outside = [], 0, 0, 0
    for row in rows:
        within = _within(row)
        tone = _tone(row, inside if within else outside)
        inside, outside = inside + within, outside + (not within and row.kind != "unattributed")
        where = "executor" if within else "between threads" if row.kind == "unattributed" else "around it"
        start, width = percent(start_ns, whole_ns), percent(row.ns, whole_ns)
        share = format_share(row.ns / whole_ns) if whole_ns else "0 %"
        shown.append(PeriodRowView(row.category, tone, where, format_ns(row.ns), share, start, width))
        start_ns += row.ns
    return tuple(shown)


def _place(row: LedgerRow) -> int:
    """Rows of the executor come first, so that the bar has one border; else they keep their order."""
    return 0 if _within(row) else 1 + (row.kind == "unattributed")


def _within(row: LedgerRow) -> bool:
    return row.kind == "op" or (row.kind == "overhead" and row.category.startswith(EXECUTOR))


def _tone(row: LedgerRow, rank: int) -> str:
    """Return the tone of a row: blue within the executor, warm around it, so that the border is seen at once."""
    if row.kind == "unattributed":
        return "unattributed"
    return f"op{min(2 * rank, 4)}" if _within(row) else f"around{min(rank, OUTSIDE_TONES - 1)}"


def _split(executor_ns: int | None, whole_ns: int) -> str:
    """Say who had the time.

    >>> _split(3_000_000, 12_000_000), _split(None, 12_000_000)
    ('the executor is at work for 3.00 ms of it (25 %), and for 9.00 ms (75 %) it is not', '')
    """
    if executor_ns is None or executor_ns > whole_ns:
        return ""
    rest_ns = whole_ns - executor_ns
    return (
        f"the executor is at work for {format_ns(executor_ns)} of it ({format_share(executor_ns / whole_ns)}), and for "
        f"{format_ns(rest_ns)} ({format_share(rest_ns / whole_ns)}) it is not"
    )
