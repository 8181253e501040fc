"""The programs that ran, in words: which one is judged, what each took, and what was told apart from its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.measured import ProgramRow, ProgramTrace, StepTime
from graphlens.ir.roles import Role
from graphlens.report.words import file_and_line
from graphlens.units import UNKNOWN, counted, format_count, format_ns, format_share

# A reader needs the programs that took the time; the others are folded, the JSON has all.
SHOWN = 6
DATASETS_SHOWN = 2
FOLDED_LIMIT = 60

ROLES: dict[Role, str] = {
    "step": "step",
    "eval": "evaluation",
    "predict": "prediction",
    "dataset": "dataset",
    "initialization": "initialization",
    "cluster": "compiled by XLA",
}

CHOOSE = "--program NAME"


@dataclass(frozen=True, slots=True)
class ProgramView:
    """One program; ``width`` is its share in per mille, ``apart`` what is told apart from its steps.

    ``loop`` says how many steps there were, where those were not the runs.  ``calls``, ``traced`` and ``source`` are of
    a script that was watched from its start.
    """

    name: str
    role: str
    judged: bool
    runs: str
    steps: str
    loop: str
    step: str
    spread: str
    share: str
    width: float
    apart: str
    calls: str = ""
    traced: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ProgramsView:
    """The programs, the judged one first; ``shown`` are the first ones, ``folded`` others, ``more`` counts those.

    ``judged`` and ``role`` are of the one that is judged, empty where none is; ``choice`` says what ``CHOOSE`` does.
    """

    counted: str
    summary: str
    judged: str
    role: str
    choice: str
    shown: tuple[ProgramView, ...]
    folded: tuple[ProgramView, ...]
    more: str
    note: str
    loops: bool
    timed: bool
    called: bool = False


def judged_of(document: Document) -> ProgramRow | None:
    """Return the program whose step the analysis is about; ``None`` where there is none to judge."""
    first = next(iter(document.programs), None)
    return first if first is not None and first.step == document.step else None


def programs_view(document: Document) -> ProgramsView | None:
    """Return the programs; ``None`` where there is one only, of no script: then everything on the page is about it."""
    rows = document.programs
    watched = any(row.calls is not None for row in rows)
    if len(rows) < 2 and not watched:
        return None
    judged = judged_of(document)
    shown, rest = _divided(rows)
    views = {id(row): _program(row, row is judged) for row in rows}
    hidden = len(rest) - FOLDED_LIMIT
    numbers = _counted(rows)
    return ProgramsView(
        counted=numbers,
        summary=f"{numbers}; {f'{judged.id} is judged' if judged else 'none of them is judged'}",
        judged=judged.id if judged else "",
        role=ROLES[judged.role] if judged else "",
        choice="judges another one" if judged else "judges one of them",
        shown=tuple(views[id(row)] for row in shown),
        folded=tuple(views[id(row)] for row in rest[:FOLDED_LIMIT]),
        more=_more(rest),
        note=f"and {counted(hidden, 'more program')}, listed in the JSON report" if hidden > 0 else "",
        loops=any(view.loop for view in views.values()),
        timed=any(row.step is not None for row in rows),
        called=watched,
    )


def _divided(rows: Sequence[ProgramRow]) -> tuple[list[ProgramRow], list[ProgramRow]]:
    """Return the programs to show first and the rest: of functions that datasets call, a few only."""
    shown: list[ProgramRow] = []
    rest: list[ProgramRow] = []
    datasets = 0
    for row in rows:
        is_dataset = row.role == "dataset"
        fits = len(shown) < SHOWN and not (is_dataset and datasets >= DATASETS_SHOWN)
        (shown if fits else rest).append(row)
        datasets += is_dataset and fits
    return shown, rest


def _counted(rows: Sequence[ProgramRow]) -> str:
    ran = sum(row.runs is not None for row in rows)
    return f"{ran} ran" if ran == len(rows) else f"{len(rows)} are recorded"


def _more(rest: Sequence[ProgramRow]) -> str:
    if not rest:
        return ""
    datasets = sum(row.role == "dataset" for row in rest)
    if datasets == len(rest):
        return counted(datasets, "more dataset function")
    among = f", {datasets} of them {'a ' if datasets == 1 else ''}dataset function{'s' * (datasets > 1)}"
    return counted(len(rest), "more program") + (among if datasets else "")


def _program(row: ProgramRow, judged: bool) -> ProgramView:
    return ProgramView(
        name=row.id,
        role=ROLES[row.role],
        judged=judged,
        runs=format_count(row.runs),
        steps=format_count(row.steps),
        loop=counted(row.steps, "step") if row.steps is not None and row.steps != row.runs else "",
        step=format_ns(row.step.median_ns) if row.step else UNKNOWN,
        spread=_spread(row.step),
        share=format_share(row.share),
        width=round(1000 * (row.share or 0.0), 1),
        apart=_apart([trace for trace in row.traces if trace.at_ns is None]),
        calls=format_count(row.calls) if row.calls is not None else "",
        traced=_traced(row.traces),
        source=file_and_line(row.source),
    )


def _spread(step: StepTime | None) -> str:
    return f"{format_ns(step.p10_ns)} – {format_ns(step.p90_ns)}" if step is not None and step.n > 1 else ""


def _apart(traces: Sequence[ProgramTrace]) -> str:
    """Say what the calls took that traced or compiled the function; they are no steps.

    >>> _apart([ProgramTrace("traced", 177_000_000)]), _apart([ProgramTrace("", 2_000_000), ProgramTrace("", 1_000)])
    ('1 call of 177 ms', '2 calls of 1.00 us to 2.00 ms')
    """
    if not traces:
        return ""
    least, most = (format_ns(choose(trace.ns for trace in traces)) for choose in (min, max))
    return f"{counted(len(traces), 'call')} of {most if least == most else f'{least} to {most}'}"


def _traced(traces: Sequence[ProgramTrace]) -> str:
    """Say how often a function of a script was traced, and how often that need not have been.

    >>> _traced([ProgramTrace("", 9, "first", 0), ProgramTrace("", 9, "retrace", 5)]), _traced([ProgramTrace("", 9)])
    ('traced twice, 1 retrace', '')
    """
    told = [trace for trace in traces if trace.at_ns is not None]
    if not told:
        return ""
    often = {1: "once", 2: "twice"}.get(len(told), f"{len(told):,} times")
    retraces = sum(trace.kind == "retrace" for trace in told)
    return f"traced {often}" + (f", {counted(retraces, 'retrace')}" if retraces else "")
