"""Copies between devices: one row each, groups of one direction and reason with their sums, and a figure per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphlens.ir.analysis import Document, Figure, FigureNode
from graphlens.ir.devices import Copy, short_device
from graphlens.ir.measured import OpRow, StepTime
from graphlens.ir.op_rows import OpRows
from graphlens.ir.run import Origin
from graphlens.report.ink import crossing, source_memory, target_memory
from graphlens.report.scopes import Scope, scope_of
from graphlens.report.words import NOT_SEEN
from graphlens.units import UNKNOWN, counted, format_bytes, format_count, format_ns, format_share

# What a person reads in a table of copies; the JSON has all.
COPY_LIMIT = 200
# Arrows in one figure: with both ends that is about as many ops as stay readable.
FIGURE_ARROWS = 6
# Each figure costs a second of layout at worst.
FIGURE_LIMIT = 8
KINDS = {
    "host-to-device": "host to device",
    "device-to-host": "device to host",
    "device-to-device": "device to device",
    "host-to-host": "host to host",
    "control": "order without data",
}
NO_REASON = "reason unknown"


@dataclass(frozen=True, slots=True)
class CopyCell:
    """A formatted number with the value that it sorts by (``None``: unknown)."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class CopyView:
    """One tensor that crosses devices; ``cells`` are bytes, time, calls per step and overlap."""

    src: str
    dst: str
    src_device: str
    dst_device: str
    kind: str
    tensor: str
    events: str
    reason: str
    detail: str
    at_fault: str
    cells: tuple[CopyCell, ...]
    critical: str
    modelled: bool


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Copies of one direction and one reason, with size and time per step.

    ``sizes`` are written on the arrows of ``figure``; ``note`` says which copies are not drawn.
    """

    kind: str
    reason: str
    count: str
    events: str
    size: str
    time: str
    critical: str
    modelled: bool
    figure: Figure | None
    sizes: Mapping[tuple[str, str], str]
    note: str


@dataclass(frozen=True, slots=True)
class CopiesView:
    """All copies; names leave out ``scope``, ``note`` says how many rows are not shown.

    ``events``, ``overlap`` and ``critical`` say whether a column has anything to show.
    """

    summary: str
    groups: tuple[CopyGroup, ...]
    events: bool
    overlap: bool
    critical: bool
    rows: tuple[CopyView, ...]
    scope: Scope
    note: str


def copies_view(document: Document) -> CopiesView | None:
    """Return rows in the document's order and groups by falling time, or ``None`` where nothing is copied."""
    copies = document.copies
    if not copies:
        return None
    hidden = len(copies) - COPY_LIMIT
    groups = _grouped(copies)
    ops = OpRows.of(document.ops)
    scope = scope_of(name for copy in copies for name in (copy.src, copy.dst))
    return CopiesView(
        summary=_summary(copies),
        groups=tuple(_group(members, ops, index < FIGURE_LIMIT, document.step) for index, members in enumerate(groups)),
        events=any(copy.events for copy in copies),
        overlap=any(copy.overlap_share is not None for copy in copies),
        critical=any(copy.on_critical_path is not None for copy in copies),
        rows=tuple(_copy(copy, scope) for copy in copies[:COPY_LIMIT]),
        scope=scope,
        note=f"{counted(hidden, 'more copy')} in the JSON report." if hidden > 0 else "",
    )


def _summary(copies: Sequence[Copy]) -> str:
    measured = [copy for copy in copies if copy.origin != "modelled"]
    modelled = len(copies) - len(measured)
    if not measured:
        return f"{counted(modelled, 'copy')} of a simulated placement: modelled, not measured"
    outside = sum(copy.calls_per_step == 0 for copy in measured)
    inside = len(measured) - outside
    return "; ".join(
        filter(
            None,
            (
                f"{counted(inside, 'tensor')} {'crosses' if inside == 1 else 'cross'} devices in the step",
                f"{outside} outside of it" if outside else "",
                f"{modelled} more are modelled" if modelled else "",
            ),
        )
    )


# -- rows ----------------------------------------------------------------------------------------------------


def _copy(copy: Copy, scope: Scope) -> CopyView:
    return CopyView(
        src=scope.short(copy.src),
        dst=scope.short(copy.dst),
        src_device=source_memory(copy),
        dst_device=target_memory(copy),
        kind=_kind(copy),
        tensor=copy.tensor or "",
        events=_events(copy),
        reason=copy.reason or "",
        detail=scope.within(copy.detail or ""),
        at_fault="" if copy.at_fault in (None, copy.src, copy.dst) else scope.short(copy.at_fault),
        cells=(
            CopyCell(format_bytes(copy.bytes), copy.bytes),
            CopyCell(_time(copy.ns, copy.origin), copy.ns),
            CopyCell(format_count(copy.calls_per_step), copy.calls_per_step),
            CopyCell(format_share(copy.overlap_share), copy.overlap_share),
        ),
        critical={True: "yes", False: "no", None: ""}[copy.on_critical_path],
        modelled=copy.origin == "modelled",
    )


def _time(ns: int | None, origin: Origin) -> str:
    return (NOT_SEEN if origin == "measured" else UNKNOWN) if ns is None else format_ns(ns)


def _events(copy: Copy) -> str:
    where = "outside of the steps" if copy.calls_per_step == 0 else ""
    if not copy.events:
        return where
    size = "" if copy.event_bytes is None else format_bytes(copy.event_bytes)
    return ", ".join(filter(None, (f"{counted(copy.events, 'event')} in the profile", size, where)))


def _kind(copy: Copy) -> str:
    return KINDS.get(copy.kind or "", "")


# -- groups --------------------------------------------------------------------------------------------------


def _grouped(copies: Sequence[Copy]) -> list[list[Copy]]:
    """Collect copies of one direction, reason and origin; what was measured and took longest comes first."""
    groups: dict[tuple[str, str, str], list[Copy]] = {}
    for copy in copies:
        groups.setdefault((copy.origin, copy.kind or "", copy.reason or ""), []).append(copy)
    return sorted(groups.values(), key=_weight)


def _weight(group: Sequence[Copy]) -> tuple[bool, int, int, int]:
    modelled = group[0].origin == "modelled"
    ns, size = sum(copy.ns or 0 for copy in group), sum(_step_bytes(copy) or 0 for copy in group)
    return (modelled, -ns, -size, -len(group))


def _group(copies: Sequence[Copy], ops: OpRows, drawn: bool, step: StepTime | None) -> CopyGroup:
    critical = sum(copy.on_critical_path is True for copy in copies)
    unknown = sum(copy.on_critical_path is None for copy in copies)
    arrows = _figured(copies)
    hidden = len(copies) - sum(map(len, arrows.values()))
    return CopyGroup(
        kind=_kind(copies[0]) or "direction unknown",
        reason=copies[0].reason or NO_REASON,
        count=format_count(len(copies)),
        events=format_count(sum(copy.events for copy in copies)),
        size=_sum_of([_step_bytes(copy) for copy in copies], format_bytes, UNKNOWN),
        time=_sum_of([copy.ns for copy in copies], format_ns, _time(None, copies[0].origin))
        + _overlapping(copies, step),
        critical=UNKNOWN if unknown == len(copies) else format_count(critical),
        modelled=copies[0].origin == "modelled",
        figure=_figure(arrows, hidden, ops) if drawn else None,
        sizes={ends: crossing(members) for ends, members in arrows.items()},
        note=f"{counted(hidden, 'more copy')} of this group not drawn." if hidden else "",
    )


def _overlapping(copies: Sequence[Copy], step: StepTime | None) -> str:
    """Say that copies ran beside each other, where their times sum to more than the step."""
    return " in sum" if step is not None and sum(copy.ns or 0 for copy in copies) > step.median_ns else ""


def _step_bytes(copy: Copy) -> int | None:
    return None if copy.bytes is None or copy.calls_per_step is None else round(copy.bytes * copy.calls_per_step)


def _sum_of(values: Sequence[int | None], write: Callable[[int], str], nothing: str) -> str:
    """Write the sum of the known values, and say when some are not known."""
    known = [value for value in values if value is not None]
    if not known:
        return nothing
    missing = len(values) - len(known)
    return write(sum(known)) + (f" ({missing} unknown)" if missing else "")


def _figured(copies: Sequence[Copy]) -> dict[tuple[str, str], list[Copy]]:
    """Return the heaviest copies with two known ends, by the names of both; several of one pair are one arrow."""
    heaviest = sorted(copies, key=lambda copy: (-(copy.ns or 0), -(copy.bytes or 0)))
    known = [copy for copy in heaviest if copy.src and copy.dst]
    devices: dict[str, set[str]] = {}
    for copy in known:
        devices.setdefault(copy.src, set()).add(copy.src_device)
        devices.setdefault(copy.dst, set()).add(copy.dst_device)

    def unique(name: str, device: str) -> str:
        # Replicas have ops of one name on every device.
        return f"{name} ({short_device(device)})" if len(devices[name]) > 1 else name

    arrows: dict[tuple[str, str], list[Copy]] = {}
    for copy in known:
        ends = unique(copy.src, copy.src_device), unique(copy.dst, copy.dst_device)
        if ends in arrows or len(arrows) < FIGURE_ARROWS:
            arrows.setdefault(ends, []).append(copy)
    return arrows


def _figure(arrows: Mapping[tuple[str, str], Sequence[Copy]], hidden: int, ops: OpRows) -> Figure | None:
    """Return both ends of the copies as ops to draw; the makers of tensors are the subjects."""
    if not arrows:
        return None
    makers = {src: copies[0] for (src, _), copies in arrows.items()}
    readers = {dst: copies[0] for (_, dst), copies in arrows.items() if dst not in makers}
    nodes = (
        *(_maker(shown, copy, ops.find(copy.src)) for shown, copy in makers.items()),
        *(_reader(shown, copy, ops.find(copy.dst)) for shown, copy in readers.items()),
    )
    modelled = any(copy.origin == "modelled" for copies in arrows.values() for copy in copies)
    edges = tuple((src, dst, "transfer") for src, dst in arrows)
    return Figure("placed" if modelled else "executed", nodes, edges, hidden)


def _maker(shown: str, copy: Copy, row: OpRow | None) -> FigureNode:
    return FigureNode(shown, _type(row), "subject", _time_on(copy.src_device, row), source_memory(copy))


def _reader(shown: str, copy: Copy, row: OpRow | None) -> FigureNode:
    return FigureNode(shown, _type(row), "context", _time_on(copy.dst_device, row), target_memory(copy))


def _type(row: OpRow | None) -> str:
    return (row.executed_as or row.op) if row else ""


def _time_on(device: str, row: OpRow | None) -> int | None:
    """Return the time of an op, unless it ran on another device than a simulated placement puts it on."""
    if row is None or row.device is None:
        return None
    ran_on = {short_device(name) for name in row.device.split(", ")}  # the same op of a program runs on several
    return row.self_ns if short_device(device) in ran_on else None
