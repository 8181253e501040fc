"""When each function of a script was traced, why, what had changed, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from graphlens.ir.analysis import Document
from graphlens.ir.measured import ProgramRow, ProgramTrace
from graphlens.ir.script import TraceKind
from graphlens.report.lanes import lane, place, ruler
from graphlens.report.phases import percent
from graphlens.report.svg import element
from graphlens.report.words import file_and_line
from graphlens.units import UNKNOWN, counted, format_count, format_ns

ROWS_SHOWN = 8
ROWS_LIMIT = 100
LANES_SHOWN = 12
MARKS_DRAWN = 300

# Kind -> its words, and the outline of its mark around the origin: shapes say what colours do.
KINDS: Final[Mapping[TraceKind, tuple[str, str]]] = {
    "first": ("first trace", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"),
    "variables": ("second trace, for the variables that the first created", "M-4 -4h8v8h-8z"),
    "relaxed": ("relaxed, to spare further ones", "M0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"),
    "retrace": ("retrace", "M0 -6l6 11h-12z"),
}
UNTOLD: Final = "traced or compiled"


@dataclass(frozen=True, slots=True)
class TraceView:
    """One trace, in words."""

    at: str
    call: str
    function: str
    kind: str
    words: str
    changed: tuple[str, ...]
    time: str
    lost: str


@dataclass(frozen=True, slots=True)
class TraceLane:
    """One function and its traces along the life of the script."""

    function: str
    source: str
    count: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class TracesView:
    """All traces in order; ``shown`` are the first ones, ``folded`` others of the ``later`` ones.

    ``note`` counts what is in neither, ``legend`` has the words and the outline of each kind of mark.
    """

    summary: str
    lost: str
    ruler: Markup
    lanes: tuple[TraceLane, ...]
    legend: tuple[tuple[str, str, str], ...]
    shown: tuple[TraceView, ...]
    folded: tuple[TraceView, ...]
    later: str
    note: str


Told = tuple[ProgramRow, ProgramTrace]


def traces_view(document: Document) -> TracesView | None:
    """Return the traces; ``None`` where it is not known when they were: only of a script that was watched it is."""
    told = [(row, trace) for row in document.programs for trace in row.traces if trace.at_ns is not None]
    if not told:
        return None
    told.sort(key=lambda one: one[1].at_ns or 0)
    end_ns = max((trace.at_ns or 0) + trace.ns for _, trace in told) or 1
    rows = [_trace(row, trace) for row, trace in told[:ROWS_LIMIT]]
    hidden = len(told) - ROWS_LIMIT
    kinds = {trace.kind for _, trace in told}
    return TracesView(
        summary=_summary(told),
        lost=_lost(told),
        ruler=ruler(end_ns),
        lanes=tuple(_lanes(told, end_ns)),
        legend=tuple((kind, *KINDS[kind]) for kind in KINDS if kind in kinds),
        shown=tuple(rows[:ROWS_SHOWN]),
        folded=tuple(rows[ROWS_SHOWN:]),
        later=counted(len(told) - ROWS_SHOWN, "later trace") if len(told) > ROWS_SHOWN else "",
        note=f"and {counted(hidden, 'more trace')}, listed in the JSON report" if hidden > 0 else "",
    )


# -- words ---------------------------------------------------------------------------------------------------


def _summary(told: Sequence[Told]) -> str:
    functions = counted(len({row.id for row, _ in told}), "function")
    retraces = sum(trace.kind == "retrace" for _, trace in told)
    among = f"{retraces:,} of them {'a retrace' if retraces == 1 else 'retraces'}" if retraces else "no retrace"
    return f"{counted(len(told), 'trace')} of {functions}, {among}"


def _lost(told: Sequence[Told]) -> str:
    """Say what retraces cost in all, as far as that is known."""
    retraces = [trace for _, trace in told if trace.kind == "retrace"]
    known = [trace.lost_ns for trace in retraces if trace.lost_ns is not None]
    if not known:
        return UNKNOWN if retraces else ""
    return f"{'at least ' if len(known) < len(retraces) else ''}{format_ns(sum(known))}"


def _trace(row: ProgramRow, trace: ProgramTrace) -> TraceView:
    words = KINDS[trace.kind][0] if trace.kind else UNTOLD
    lost = format_ns(trace.lost_ns) if trace.kind == "retrace" else ""  # the others were needed
    call = format_count(trace.call)
    return TraceView(
        format_ns(trace.at_ns), call, row.id, trace.kind or "", words, trace.changed, format_ns(trace.ns), lost
    )


# -- drawing -------------------------------------------------------------------------------------------------


def _lanes(told: Sequence[Told], end_ns: int) -> Iterator[TraceLane]:
    """Yield the functions, those that were traced most often first."""
    of: dict[str, list[Told]] = {}
    for one in told:
        of.setdefault(one[0].id, []).append(one)
    for members in sorted(of.values(), key=len, reverse=True)[:LANES_SHOWN]:
        row = members[0][0]
        traces = [trace for _, trace in members]
        count = counted(len(traces), "trace")
        yield TraceLane(row.id, file_and_line(row.source), count, _lane(row.id, traces, end_ns))


def _lane(name: str, traces: Sequence[ProgramTrace], end_ns: int) -> Markup:
    words = f"{name}: {counted(len(traces), 'trace')} along the life of the script"
    return lane(words, [_mark(trace, end_ns) for trace in traces[:MARKS_DRAWN]])


def _mark(trace: ProgramTrace, end_ns: int) -> str:
    """Draw how long a trace took and, at its begin, what it was for: a shape that percent cannot stretch."""
    start = percent(trace.at_ns or 0, end_ns)
    words, outline = KINDS[trace.kind] if trace.kind else (UNTOLD, KINDS["first"][1])
    kind = trace.kind or "first"
    title = element("title", text=f"{words}: call {format_count(trace.call)}, {format_ns(trace.ns)}")
    took = element(
        "rect", class_=f"took tr-{kind}", x=place(start), width=place(percent(trace.ns, end_ns)), y=16, height=6
    )
    shape = element("path", class_=f"tr-{kind}", d=outline)
    return took + element("svg", title, shape, x=place(start), y=8, overflow="visible")
