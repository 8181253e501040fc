"""Ratios of a proof as small drawings on one logarithmic scale: the interval of a fix over the noise of the machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log

from graphlens.report.svg import element

WIDTH, HEIGHT = 220, 22
# Room at both ends, so that the first and the last tick's words stay inside.
MARGIN = 16
# Ends of a scale that would else be a point: what a quiet machine shows of a program against itself.
NARROWEST = (0.95, 1.05)
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# Ticks closer than this would run into each other.
TICK_DISTANCE = 36

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """From ``low`` to ``high``, both positive, with 1 between them."""

    low: float
    high: float

    def x(self, ratio: float) -> float:
        """Return where ``ratio`` is drawn; equal factors are equal distances."""
        share = log(min(max(ratio, self.low), self.high) / self.low) / log(self.high / self.low)
        return MARGIN + share * (WIDTH - 2 * MARGIN)


def scale_of(ratios: Iterable[float]) -> Scale:
    """Return the scale that holds all ``ratios``, and 1; what is no ratio is left out."""
    usable = [ratio for ratio in ratios if 0 < ratio < float("inf")]
    return Scale(min(*NARROWEST, *usable), max(*NARROWEST, *usable))


def ratio_axis(scale: Scale) -> str:
    """Draw the ticks of the scale; 1, which is no change, always among them."""
    shown = [1.0]
    for tick in TICKS:
        apart = all(abs(scale.x(tick) - scale.x(other)) >= TICK_DISTANCE for other in shown)
        if scale.low <= tick <= scale.high and apart:
            shown.append(tick)
    ticks = (element("text", text=f"{tick:g}×", class_="tick", x=scale.x(tick), y=15) for tick in sorted(shown))
    return _svg(*ticks)


def ratio_bar(scale: Scale, point: float, interval: Ends | None, noise: Ends | None) -> str:
    """Draw one ratio with its interval, over the interval of the unchanged program against itself."""
    one = scale.x(1)
    return _svg(
        *((_span(scale, noise, "noise", 1, HEIGHT - 2),) if noise else ()),
        element("line", class_="one", x1=one, y1=0, x2=one, y2=HEIGHT),
        *((_span(scale, interval, "interval", 8, 6),) if interval else ()),
        element("circle", class_="point", cx=scale.x(point), cy=HEIGHT / 2, r=4.5),
    )


def _span(scale: Scale, ends: Ends, class_: str, y: float, height: float) -> str:
    low, high = scale.x(ends[0]), scale.x(ends[1])
    return element("rect", class_=class_, x=low, y=y, width=max(high - low, 1.5), height=height, rx=2)


def _svg(*children: str) -> str:
    # The table beside it says the same in numbers.
    return element("svg", *children, class_="ratio", viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_hidden="true")
