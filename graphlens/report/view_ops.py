"""The op table and the critical path, as formatted cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from graphlens.ir.analysis import Document
from graphlens.ir.devices import short_device
from graphlens.ir.measured import OpRow
from graphlens.ir.op_rows import OpRows
from graphlens.report.scopes import Scope, scope_of
from graphlens.report.view_findings import FindingView
from graphlens.report.view_steps import base_words
from graphlens.report.words import NOT_SEEN
from graphlens.units import UNKNOWN, counted, format_bytes, format_count, format_flops, format_ns, format_share

# Browsers lay out this many rows without a pause; the JSON holds all of them.
ROW_LIMIT = 2000
# Runs on the critical path that are shorter than this share of it are drawn as one.
SLIVER_SHARE = 0.005
SEGMENT_LIMIT = 400
LONGEST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One numeric column of the op table; ``missing`` is what an unknown value reads as."""

    key: str
    label: str
    explained: str
    missing: str = UNKNOWN


COLUMNS = (
    Column("self_ns", "Self time", "Median over the profiled steps of the op's own time in one step", NOT_SEEN),
    Column(
        "wall_share", "Of step", "Share of the profiled steps during which the op ran; overlaps are divided", NOT_SEEN
    ),
    Column("calls_per_step", "Calls", "Executions per step", NOT_SEEN),
    Column("slack_ns", "Slack", "How much longer the op could take without lengthening the critical path"),
    Column("flops", "FLOPs", "Floating-point operations of one execution, from the shapes"),
    Column("bytes", "Bytes", "Bytes read and written by one execution, from the shapes"),
    Column("roof_share", "Of roof", "What the op reached of what this machine can do at best with its work"),
    Column("host_ns", "Launch", "What launching the op's kernels took on the host in a profiled step", NOT_SEEN),
)

_FORMATS = {
    "self_ns": format_ns,
    "wall_share": format_share,
    "calls_per_step": format_count,
    "slack_ns": format_ns,
    "flops": format_flops,
    "bytes": format_bytes,
    "roof_share": format_share,
    "host_ns": format_ns,
}


@dataclass(frozen=True, slots=True)
class OpCell:
    """A formatted number with the value that it sorts by (``None``: unknown)."""

    text: str
    value: float | None


@dataclass(frozen=True, slots=True)
class OpRowView:
    """One row of the op table; ``cells`` follow the table's columns."""

    anchor: str
    name: str
    op: str
    stands_for: str
    layer: str
    device: str
    source: str
    output: str
    timing: str
    critical: bool
    cells: tuple[OpCell, ...]
    findings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OpTable:
    """The ops of the judged graph; ``note`` says how many rows are not shown, names are shown without ``scope``.

    Rows are by falling self time where that is known, and by name otherwise.  ``base`` says which steps their times are
    of, where those are not the step that is shown.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[OpRowView, ...] = ()
    total: int = 0
    note: str = ""
    several_devices: bool = False
    base: str = ""
    scope: Scope = field(default_factory=Scope)

    @property
    def timed(self) -> bool:
        """Whether the self time of some op is known."""
        return any(column.key == "self_ns" for column in self.columns)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the critical path inside one layer; ``start`` and ``width`` in per mille of the path."""

    label: str
    ops: str
    time: str
    share: str
    start: float
    width: float
    heat: int


@dataclass(frozen=True, slots=True)
class PathView:
    """The critical path: ``strip`` merges slivers, ``longest`` ranks, ``segments`` lists the runs in order.

    Its length ``time`` is a part of the step.  Those of its runs are the times of their ops, as everywhere on the page;
    ``base`` says so where these were timed in other steps, of which they are ``profiled`` together.
    """

    time: str
    ops: str
    stops: str
    strip: tuple[Segment, ...]
    longest: tuple[Segment, ...]
    segments: tuple[Segment, ...]
    note: str
    base: str
    profiled: str


# -- ops -----------------------------------------------------------------------------------------------------


def op_table(document: Document, findings: Sequence[FindingView], limit: int | None = None) -> OpTable:
    """Return the first ``limit`` rows of the document's ops, with the columns that some op has a value for."""
    ops, limit = OpRows.of(document.ops), ROW_LIMIT if limit is None else limit
    shown = ops[:limit]
    names = shown.column("name")
    columns = tuple(column for column in COLUMNS if column.key in ops.columns)
    critical = frozenset(document.critical_path.ops if document.critical_path else ())
    marks = _marks(document, findings, frozenset(names))
    rows = tuple(
        _op_row(index, row, columns, row.name in critical, marks.get(row.name, ()))
        for index, row in enumerate(shown, 1)
    )
    several = len(set(filter(None, ops.column("device")))) > 1
    base = base_words(document.step) if "self_ns" in ops.columns else ""
    return OpTable(columns, rows, len(ops), _ops_note(ops, limit), several, base, scope_of(names))


def _marks(
    document: Document, findings: Sequence[FindingView], shown: Collection[str]
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Map the names of ``shown`` ops to the ``(code, anchor)`` of the findings about them."""
    marks: dict[str, tuple[tuple[str, str], ...]] = {}
    for finding, view in zip(document.findings, findings, strict=True):
        for name in dict.fromkeys(filter(shown.__contains__, finding.nodes)):
            marks[name] = (*marks.get(name, ()), (view.code, view.anchor))
    return marks


def _op_row(
    index: int,
    row: OpRow,
    columns: Sequence[Column],
    critical: bool,
    findings: tuple[tuple[str, str], ...],
) -> OpRowView:
    return OpRowView(
        anchor=f"op-{index}",
        name=row.name,
        op=row.executed_as or row.op,
        stands_for=_stands_for(row),
        layer=row.layer or "",
        device=short_device(row.device) if row.device else UNKNOWN,
        source=row.source or "",
        output=row.output or "",
        timing=row.timing if row.timing not in (None, "profile") else "",
        critical=critical,
        cells=tuple(_op_cell(row, column) for column in columns),
        findings=findings,
    )


def _stands_for(row: OpRow) -> str:
    if len(row.origin) > 1:
        return f"stands for {len(row.origin)} ops as written"
    return f"written as {row.op}" if row.executed_as and row.executed_as != row.op else ""


def _op_cell(row: OpRow, column: Column) -> OpCell:
    value = getattr(row, column.key)
    # Shares come with 16 digits; four sort as well as what is shown, and keep the page small.
    sortable = float(f"{value:.4g}") if isinstance(value, float) else value
    sortable = int(sortable) if isinstance(sortable, float) and sortable.is_integer() else sortable
    return OpCell(column.missing if value is None else _FORMATS[column.key](value), sortable)


def _ops_note(ops: OpRows, limit: int) -> str:
    times_ns = ops.column("self_ns")[limit:]
    if not times_ns:
        return ""
    first = f"The first {limit:,} of {len(ops):,} ops are shown"
    if "self_ns" not in ops.columns:
        return f"{first}; the JSON report lists all."
    hidden_ns, unseen = sum(filter(None, times_ns)), times_ns.count(None)
    return (
        f"{first}. The other {len(times_ns):,} took "
        f"{format_ns(hidden_ns)} of self time together ({counted(unseen, 'op')} of them not seen); "
        "the JSON report lists all."
    )


# -- critical path -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    label: str
    ns: int = 0
    ops: list[str] = field(default_factory=list)


def path_view(document: Document) -> PathView | None:
    """Group the critical path into runs of one layer each; ``None`` when there is no path."""
    path = document.critical_path
    if path is None or not path.ops:
        return None
    runs = _runs(path.ops, OpRows.of(document.ops))
    whole_ns = sum(run.ns for run in runs)
    segments = _segments(runs, whole_ns)
    hidden = len(segments) - SEGMENT_LIMIT
    base = base_words(document.step)
    return PathView(
        time=format_ns(path.ns),
        ops=counted(len(path.ops), "op"),
        stops=counted(len(runs), "stop"),
        strip=_segments(_merged(runs, whole_ns), whole_ns) if whole_ns else (),
        longest=tuple(sorted(segments, key=lambda segment: -segment.width)[:LONGEST_SHOWN]) if whole_ns else (),
        segments=segments[:SEGMENT_LIMIT],
        note=f"and {counted(hidden, 'more run')}, listed in the JSON report" if hidden > 0 else "",
        base=base,
        profiled=format_ns(whole_ns) if base and whole_ns else "",
    )


def _runs(names: Sequence[str], table: OpRows) -> list[_Run]:
    rows = {name: row for name in names if (row := table.find(name))}

    def layer(name: str) -> str:
        row = rows.get(name)
        return (row.layer or row.scope if row else name.rpartition("/")[0]) or name

    runs = []
    for label, members in groupby(names, key=layer):
        ops = list(members)
        runs.append(_Run(label, sum((rows[op].self_ns or 0) for op in ops if op in rows), ops))
    return runs


def _merged(runs: Sequence[_Run], whole_ns: int) -> list[_Run]:
    """Merge neighbouring runs that are too short to be seen."""
    merged: list[_Run] = []
    for sliver, group in groupby(runs, key=lambda run: run.ns < SLIVER_SHARE * whole_ns):
        members = list(group)
        if sliver and len(members) > 1:
            ops = [op for run in members for op in run.ops]
            merged.append(_Run(f"{len(members)} short runs", sum(run.ns for run in members), ops))
        else:
            merged += members
    return merged


def _segments(runs: Sequence[_Run], whole_ns: int) -> tuple[Segment, ...]:
    longest_ns = max((run.ns for run in runs), default=0)
    segments, start_ns = [], 0
    for run in runs:
        segments.append(
            Segment(
                label=run.label,
                ops=run.ops[0] if len(run.ops) == 1 else counted(len(run.ops), "op"),
                time=format_ns(run.ns),
                share=format_share(run.ns / whole_ns) if whole_ns else UNKNOWN,
                start=round(1000 * start_ns / whole_ns, 2) if whole_ns else 0.0,
                width=round(1000 * run.ns / whole_ns, 2) if whole_ns else 0.0,
                heat=min(4, 5 * run.ns // longest_ns) if longest_ns else 0,
            )
        )
        start_ns += run.ns
    return tuple(segments)
