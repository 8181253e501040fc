"""Lanes of devices and the memory curve as drawings: pure functions from formatted facts to SVG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from graphlens.report.svg import described, element, number, text_width
from graphlens.units import format_bytes

LANE_HEIGHT = 20
# A stretch with any work at all stays visible.
LEAST_HEIGHT = 2.0

WIDTH, HEIGHT = 1000, 260
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 26, 30
FONT = 12


def lane(busy: Sequence[float], tone: str, title: str, description: str) -> str:
    """Draw how busy a lane was over time, as steps from left to right; it is stretched to the width of its place."""
    bins = max(len(busy), 1)
    svg = described(bins, LANE_HEIGHT, title, description, _steps(busy, tone), class_="lane")
    return svg.replace("<svg ", '<svg preserveAspectRatio="none" ', 1)


def _steps(busy: Sequence[float], tone: str) -> str:
    """Return the area under the shares as one path; equal neighbours are one step."""
    parts, start = [f"M0 {LANE_HEIGHT}"], 0
    heights = [0.0 if share <= 0 else max(LEAST_HEIGHT, min(share, 1.0) * LANE_HEIGHT) for share in busy]
    for height, members in groupby(heights):
        start += len(list(members))
        parts.append(f"V{number(LANE_HEIGHT - height)}H{start}")
    return element("path", class_=f"tone-{tone}", d="".join([*parts, f"V{LANE_HEIGHT}z"]))


def memory_curve(curve: Sequence[int], peak_bytes: int, at_op: str) -> str:
    """Draw live bytes over the order of ops, with the peak marked and named."""
    top = HEIGHT - BOTTOM
    peak = max(range(len(curve)), key=curve.__getitem__)
    highest = max(peak_bytes, curve[peak], 1)
    across = (WIDTH - LEFT - RIGHT) / max(len(curve) - 1, 1)
    points = [(LEFT + across * index, top - (top - TOP) * value / highest) for index, value in enumerate(curve)]
    line = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return described(
        WIDTH,
        HEIGHT,
        "Memory over the step",
        f"Live bytes in the order in which ops run; the peak of {format_bytes(peak_bytes)} is at {at_op}.",
        *(_level(level, top - (top - TOP) * level / highest) for level in _levels(highest)),
        element("path", class_="area", d=f"M{LEFT} {top}L{line}L{number(points[-1][0])} {top}z"),
        element("path", class_="curve", d=f"M{line}"),
        element("line", class_="axis", x1=LEFT, y1=top, x2=WIDTH - RIGHT, y2=top),
        *_peak(points[peak], f"{format_bytes(peak_bytes)} at {at_op}"),
        element("text", text="first op", class_="tick", x=LEFT, y=HEIGHT - 10),
        element("text", text="last op", class_="tick end", x=WIDTH - RIGHT, y=HEIGHT - 10),
        class_="plot",
    )


def _levels(highest: int) -> range:
    """Return three to six round sizes below ``highest``."""
    step = 1 << max((highest // 3).bit_length() - 1, 0)
    return range(step, highest + 1, step)


def _level(level: int, y: float) -> str:
    size = re.sub(r"\.0+ ", " ", format_bytes(level))
    return element(
        "g",
        element("line", class_="grid", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y),
        element("text", text=size, class_="tick end", x=LEFT - 8, y=y + 4),
    )


def _peak(point: tuple[float, float], words: str) -> tuple[str, ...]:
    x, y = point
    wide = text_width(words, FONT)
    place = "end" if x + 10 + wide > WIDTH - RIGHT else ""
    return (
        element("circle", class_="peak", cx=x, cy=y, r=4.5),
        element("text", text=words, class_=f"mark {place}".strip(), x=x - 10 if place else x + 10, y=max(y - 8, FONT)),
    )
