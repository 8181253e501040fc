"""The roofline as a drawing: ops by operations per byte and per second, under what the machine can reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import atan2, degrees, log10, sqrt

from graphlens.report.svg import decades, described, element, text_width

WIDTH, HEIGHT = 1000, 440
LEFT, RIGHT, TOP, BOTTOM = 92, 24, 24, 50
FONT = 12
LEAST_RADIUS, GREATEST_RADIUS = 3.5, 13.0
# Dots of at least this weight may not be covered by a label.
OBSTACLE = 0.05
# Labels that find no room beside their dot stand up to so many rows (of so many pixels) away from it.
FARTHEST, ROW = 14, 17
# Room beyond the outermost point, as a factor: points stay clear of the frame.
MARGIN = 2.0

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Dot:
    """One op under the roof: operations per byte and per second, its part of the time from 0 to 1, and its words."""

    intensity: float
    flops_per_s: float
    weight: float
    name: str
    words: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class _Scale:
    """The corners of the plot in the units of its axes, both logarithmic."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        part = log10(value / self.low_x) / log10(self.high_x / self.low_x)
        return LEFT + (WIDTH - LEFT - RIGHT) * part

    def y(self, value: float) -> float:
        part = log10(value / self.low_y) / log10(self.high_y / self.low_y)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part


def roofline_plot(dots: Sequence[Dot], flops_per_s: float, bytes_per_s: float, roof: str, memory: str) -> str:
    """Draw ``dots`` under the roof; ``roof`` and ``memory`` name its two parts."""
    scale = _scale(dots, flops_per_s, bytes_per_s)
    return described(
        WIDTH,
        HEIGHT,
        "Roofline",
        f"Ops by operations per byte and operations per second, below the roof of {roof} and {memory}. "
        "The table below holds the same numbers.",
        *_axes(scale),
        *_roof(scale, flops_per_s, bytes_per_s, roof, memory),
        # Large dots first, so that small ones stay visible and can be pointed at.
        *(_dot(scale, dot) for dot in sorted(dots, key=lambda dot: -dot.weight)),
        *_labels(scale, dots, _along_roof(scale, flops_per_s / bytes_per_s, flops_per_s)),
        class_="plot",
    )


def _scale(dots: Sequence[Dot], flops_per_s: float, bytes_per_s: float) -> _Scale:
    ridge = flops_per_s / bytes_per_s
    intensities = [dot.intensity for dot in dots]
    rates = [dot.flops_per_s for dot in dots]
    return _Scale(
        min([*intensities, ridge / 10]) / MARGIN,
        max([*intensities, ridge * 10]) * MARGIN,
        min([*rates, flops_per_s / 100]) / MARGIN,
        max([*rates, flops_per_s]) * MARGIN,
    )


def short_rate(flops_per_s: float) -> str:
    """Write a power of ten as the label of a tick.

    >>> short_rate(1e9), short_rate(1e11), short_rate(10)
    ('1 GFLOP/s', '100 GFLOP/s', '10 FLOP/s')
    """
    size, prefix = next(((size, prefix) for size, prefix in _PREFIXES if flops_per_s >= size), (1, ""))
    return f"{flops_per_s / size:g} {prefix}FLOP/s"


def _axes(scale: _Scale) -> list[str]:
    floor_y, end_x = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in decades(scale.low_y, scale.high_y):
        y = scale.y(value)
        parts.append(element("line", class_="grid", x1=LEFT, y1=y, x2=end_x, y2=y))
        parts.append(element("text", text=short_rate(value), class_="tick end", x=LEFT - 8, y=y + 4))
    for value in decades(scale.low_x, scale.high_x):
        x = scale.x(value)
        parts.append(element("line", class_="grid", x1=x, y1=TOP, x2=x, y2=floor_y))
        parts.append(element("text", text=f"{value:g}", class_="tick middle", x=x, y=floor_y + 18))
    parts.append(element("line", class_="axis", x1=LEFT, y1=floor_y, x2=end_x, y2=floor_y))
    words = "operations per byte moved (FLOP/B)"
    parts.append(element("text", text=words, class_="tick middle", x=(LEFT + end_x) / 2, y=HEIGHT - 10))
    return parts


def _roof(scale: _Scale, flops_per_s: float, bytes_per_s: float, roof: str, memory: str) -> list[str]:
    """Draw slope and flat part; the slope starts where it enters the plot, at its left or its lower edge."""
    start = max(scale.low_x, scale.low_y / bytes_per_s)
    ridge_x, ridge_y = scale.x(flops_per_s / bytes_per_s), scale.y(flops_per_s)
    start_x, start_y = scale.x(start), scale.y(start * bytes_per_s)
    end_x, floor_y = WIDTH - RIGHT, HEIGHT - BOTTOM
    line = f"{start_x:.1f} {start_y:.1f}L{ridge_x:.1f} {ridge_y:.1f}L{end_x} {ridge_y:.1f}"
    angle = degrees(atan2(ridge_y - start_y, ridge_x - start_x))
    # The words of the slope end shortly before the ridge, above the line.
    along_x, along_y = ridge_x - (ridge_x - start_x) * 0.06, ridge_y - (ridge_y - start_y) * 0.06
    turned = f"rotate({angle:.1f} {along_x:.1f} {along_y:.1f}) translate(0 -8)"
    return [
        element("path", class_="under", d=f"M{start_x:.1f} {floor_y}L{line}L{end_x} {floor_y}z"),
        element("path", class_="roof", d=f"M{line}"),
        element("text", text=roof, class_="mark end", x=end_x - 4, y=ridge_y - 8),
        element("text", text=memory, class_="mark end", x=along_x, y=along_y, transform=turned),
    ]


def _radius(dot: Dot) -> float:
    return LEAST_RADIUS + (GREATEST_RADIUS - LEAST_RADIUS) * sqrt(dot.weight)


def _dot(scale: _Scale, dot: Dot) -> str:
    heat = min(4, int(dot.weight * 5))
    return element(
        "circle",
        element("title", text=f"{dot.name}: {dot.words}"),
        class_=f"dot heat{heat}",
        cx=scale.x(dot.intensity),
        cy=scale.y(dot.flops_per_s),
        r=_radius(dot),
    )


# -- labels --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        apart = self.right < other.left or other.right < self.left or self.bottom < other.top or other.bottom < self.top
        return not apart


def _labels(scale: _Scale, dots: Sequence[Dot], roof: _Box) -> list[str]:
    """Name the dots that have a label, each at the first place where it is clear of dots, roof and other labels."""
    taken = [roof, *(_around(scale, dot) for dot in dots if dot.weight >= OBSTACLE)]
    parts = []
    for dot in dots:
        for x, y, anchor in _places(scale, dot) if dot.label else ():
            box = _label_box(x, y, anchor, text_width(dot.label, FONT))
            if _inside(box) and not any(box.meets(other) for other in taken):
                taken.append(box)
                parts += [*_leader(scale, dot, x, y), element("text", text=dot.label, class_=_class(anchor), x=x, y=y)]
                break
    return parts


def _class(anchor: str) -> str:
    return f"name {anchor}".strip()


def _leader(scale: _Scale, dot: Dot, x: float, y: float) -> list[str]:
    """Tie a label that stands away from its dot to it."""
    from_x, from_y = scale.x(dot.intensity), scale.y(dot.flops_per_s)
    if abs(y - from_y) <= _radius(dot) + 5 + FONT:
        return []
    return [element("line", class_="leader", x1=from_x, y1=from_y, x2=x, y2=y - FONT / 3)]


def _along_roof(scale: _Scale, ridge: float, flops_per_s: float) -> _Box:
    """Return the strip of the flat part, with its words above."""
    y = scale.y(flops_per_s)
    return _Box(scale.x(ridge), y - 2 * FONT, WIDTH - RIGHT, y + 2)


def _around(scale: _Scale, dot: Dot) -> _Box:
    x, y, radius = scale.x(dot.intensity), scale.y(dot.flops_per_s), _radius(dot)
    return _Box(x - radius, y - radius, x + radius, y + radius)


def _places(scale: _Scale, dot: Dot) -> Iterator[tuple[float, float, str]]:
    """Yield where a label may stand: beside its dot, below, above, then further away."""
    x, y, away = scale.x(dot.intensity), scale.y(dot.flops_per_s), _radius(dot) + 5
    yield from ((x + away, y + 4, ""), (x - away, y + 4, "end"))
    yield from ((x, y + away + FONT, "middle"), (x, y - away, "middle"))
    for rows in range(2, FARTHEST):
        for below in (rows, -rows):
            yield from ((x + away, y + below * ROW, ""), (x - away, y + below * ROW, "end"))


def _label_box(x: float, y: float, anchor: str, width: float) -> _Box:
    left = {"": x, "end": x - width, "middle": x - width / 2}[anchor]
    return _Box(left, y - FONT, left + width, y + 3)


def _inside(box: _Box) -> bool:
    return box.left > LEFT and box.right < WIDTH - RIGHT and box.top > TOP and box.bottom < HEIGHT - BOTTOM
