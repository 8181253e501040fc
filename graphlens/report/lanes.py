"""Lanes over time as drawings as wide as their place, in which nothing is stretched: all places are percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Final

from markupsafe import Markup

from graphlens.report.phases import percent
from graphlens.report.svg import element
from graphlens.units import format_ns

HEIGHT: Final = 22
RULER_HEIGHT: Final = 18
TICKS_MOST: Final = 9


def lane(words: str, children: Sequence[str]) -> Markup:
    """Draw one lane with what is on it; ``words`` say the same to those who do not see it."""
    ground = element("rect", class_="ground", width="100%", height=HEIGHT)
    return _drawing(HEIGHT, "thread", {"role": "img", "aria_label": words}, [ground, *children])


def place(value: float) -> str:
    """Write a place or a width in percent.

    >>> place(12.5), place(0.0)
    ('12.5%', '0%')
    """
    return f"{value:g}%"


def _drawing(height: int, kind: str, label: Mapping[str, str], children: Sequence[str]) -> Markup:
    return Markup(element("svg", *children, class_=kind, width="100%", height=height, **label))


def ruler(whole_ns: int) -> Markup:
    """Draw round times above lanes, from their start to ``whole_ns``."""
    step_ns = tick_ns(whole_ns)
    children = []
    for at_ns in range(0, whole_ns - step_ns // 3, step_ns):
        x = place(percent(at_ns, whole_ns))
        children.append(element("line", x1=x, x2=x, y1=4, y2=RULER_HEIGHT))
        children.append(element("text", text=short_ns(at_ns), x=x, dx=4, y=12))
    return _drawing(RULER_HEIGHT, "ruler", {"aria_hidden": "true"}, children)


def tick_ns(whole_ns: int) -> int:
    """Return a round distance between ticks: 1, 2 or 5 times a power of ten.

    >>> tick_ns(24_000_000), tick_ns(7)
    (5000000, 1)
    """
    least = max(whole_ns / TICKS_MOST, 1.0)
    power: int = 10 ** int(log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least), 10 * power)


def short_ns(ns: int) -> str:
    """Write a round time without zeros that say nothing.

    >>> short_ns(5_000_000), short_ns(1_500_000), short_ns(0), short_ns(20_000_000)
    ('5 ms', '1.5 ms', '0', '20 ms')
    """
    number, _, unit = format_ns(ns).partition(" ")
    if not ns:
        return "0"
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"
