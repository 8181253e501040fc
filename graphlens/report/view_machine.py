"""The roofline and the memory of a step in words, formatted numbers and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from graphlens.ir.analysis import Document
from graphlens.ir.devices import LiveTensor, Memory, Roof, RoofPoint
from graphlens.report.plots import memory_curve
from graphlens.report.roofline_plot import Dot, roofline_plot
from graphlens.report.scopes import Scope, scope_of
from graphlens.report.words import shorten
from graphlens.units import UNKNOWN, counted, format_byte_rate, format_bytes, format_flop_rate, format_ns, format_share

# More dots hide each other, and each costs 200 bytes of the page.
DOT_LIMIT = 80
NAMED_DOTS = 6
LABEL_CHARACTERS = 30
# Rows of tables that a person reads; the JSON has all.
POINT_LIMIT = 15
ALIVE_LIMIT = 15
# Tensors smaller than this share of the peak do not explain it.
ALIVE_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class PointView:
    """One op under the roof; ``width`` is the bar of what it reached, in per mille of what is attainable."""

    op: str
    type: str
    time: str
    intensity: str
    rate: str
    share: str
    width: float
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class RooflineView:
    """The roof in words, the drawing, and the ops that took longest; names leave out ``scope``.

    ``above`` says that some op exceeds the roof.
    """

    roof: str
    memory: str
    basis: str
    drawing: Markup | None
    points: tuple[PointView, ...]
    scope: Scope
    above: bool
    notes: tuple[str, ...]
    more: str


@dataclass(frozen=True, slots=True)
class AliveView:
    """A tensor that is alive at the peak; ``width`` is its bar in per mille of the peak."""

    op: str
    tensor: str
    size: str
    share: str
    width: float


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Live bytes over the step, an estimate; names leave out ``scope``."""

    peak: str
    at_op: str
    weights: str | None
    drawing: Markup | None
    alive: tuple[AliveView, ...]
    scope: Scope
    alive_note: str
    notes: tuple[str, ...]


# -- roofline ------------------------------------------------------------------------------------------------


def roofline_view(document: Document) -> RooflineView | None:
    """Return the ops under the roof, or ``None`` where no roof was measured or no op has a place under it."""
    roofline = document.roofline
    if roofline is None or not roofline.points:
        return None
    roof, points = roofline.roof, roofline.points
    scope, below = scope_of(point.op for point in points), len(points) - POINT_LIMIT
    drawable = [point for point in points if point.flops > 0 and point.bytes > 0 and point.ns > 0]
    return RooflineView(
        roof=format_flop_rate(roof.flops_per_s),
        memory=format_byte_rate(roof.bytes_per_s),
        basis=_basis(roof),
        drawing=_drawing(roof, drawable[:DOT_LIMIT], scope),
        points=tuple(_point(point, scope) for point in points[:POINT_LIMIT]),
        scope=scope,
        above=any(point.share > 1 for point in drawable),
        notes=_point_notes(points, drawable),
        more=f"and {counted(below, 'more op')}, listed in the JSON report" if below > 0 else "",
    )


def _basis(roof: Roof) -> str:
    threads = "" if roof.threads is None else f" with {counted(roof.threads, 'thread')}"
    origin = "as the profile states" if roof.origin == "static" else roof.origin
    return f"{roof.dtype}{threads}, {origin}"


def _drawing(roof: Roof, points: Sequence[RoofPoint], scope: Scope) -> Markup | None:
    if not points or roof.flops_per_s <= 0 or roof.bytes_per_s <= 0:
        return None
    longest_ns = max(point.ns for point in points)
    dots = [
        Dot(
            intensity=point.flops / point.bytes,
            flops_per_s=point.flops / point.ns * 1e9,
            weight=point.ns / longest_ns,
            name=scope.short(point.op),
            words=f"{point.type}, {format_ns(point.ns)} alone, {format_share(point.share)} of what is attainable",
            label=shorten(scope.short(point.op).removeprefix(scope.mark), LABEL_CHARACTERS, "…")
            if index < NAMED_DOTS
            else "",
        )
        for index, point in enumerate(points)
    ]
    peak, memory = format_flop_rate(roof.flops_per_s), format_byte_rate(roof.bytes_per_s)
    return Markup(roofline_plot(dots, roof.flops_per_s, roof.bytes_per_s, peak, memory))


def _label(name: str) -> str:
    return shorten(name, LABEL_CHARACTERS, "…")


def _point(point: RoofPoint, scope: Scope) -> PointView:
    intensity = point.flops / point.bytes if point.bytes else None
    rate = point.flops / point.ns * 1e9 if point.ns else None
    return PointView(
        op=scope.short(point.op),
        type=point.type,
        time=format_ns(point.ns),
        intensity=UNKNOWN if intensity is None else f"{intensity:.3g}",
        rate=_reached(point),
        share=format_share(point.share),
        width=round(1000 * min(max(point.share, 0.0), 1.0), 1),
        values=(point.ns, intensity, rate, point.share),
    )


def _reached(point: RoofPoint) -> str:
    """Write operations per second, or bytes per second of an op that only moves data."""
    if not point.ns:
        return UNKNOWN
    if not point.flops:
        return format_byte_rate(point.bytes / point.ns * 1e9)
    return format_flop_rate(point.flops / point.ns * 1e9)


def _point_notes(points: Sequence[RoofPoint], drawable: Sequence[RoofPoint]) -> tuple[str, ...]:
    flat, hidden = len(points) - len(drawable), len(drawable) - DOT_LIMIT
    return (
        *((f"{counted(flat, 'op')} without operations or bytes not drawn.",) if flat else ()),
        *((f"The {DOT_LIMIT} ops that took longest are drawn, {hidden:,} more are not.",) if hidden > 0 else ()),
    )


# -- memory --------------------------------------------------------------------------------------------------


def memory_view(document: Document) -> MemoryView | None:
    """Return the curve and what is alive at its peak, or ``None`` where it is not known."""
    memory = document.memory
    if memory is None:
        return None
    shown = [tensor for tensor in memory.alive if tensor.bytes >= ALIVE_SHARE * memory.peak_bytes][:ALIVE_LIMIT]
    hidden = len(memory.alive) - len(shown)
    scope = scope_of((memory.at_op, *(tensor.op for tensor in memory.alive)))
    return MemoryView(
        peak=format_bytes(memory.peak_bytes),
        at_op=scope.short(memory.at_op),
        weights=None if memory.weights_bytes is None else format_bytes(memory.weights_bytes),
        drawing=_curve(memory, scope.short(memory.at_op)),
        alive=tuple(_alive(tensor, scope, memory.peak_bytes) for tensor in shown),
        scope=scope,
        alive_note=f"and {counted(hidden, 'smaller tensor')}, listed in the JSON report" if hidden > 0 else "",
        notes=(f"{counted(memory.unknown, 'op')} of unknown output size left out.",) if memory.unknown else (),
    )


def _curve(memory: Memory, at_op: str) -> Markup | None:
    if len(memory.curve) < 2:
        return None
    return Markup(memory_curve(memory.curve, memory.peak_bytes, shorten(at_op, 2 * LABEL_CHARACTERS, "…")))


def _alive(tensor: LiveTensor, scope: Scope, peak_bytes: int) -> AliveView:
    share = tensor.bytes / peak_bytes if peak_bytes else None
    return AliveView(
        op=scope.short(tensor.op),
        tensor=tensor.tensor,
        size=format_bytes(tensor.bytes),
        share=format_share(share),
        width=round(1000 * min(share or 0.0, 1.0), 1),
    )
