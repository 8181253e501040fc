"""Small pieces of SVG: elements with escaped text and attributes, short numbers, and nice places for ticks.

Everything is text: equal input gives equal bytes, and no element carries a style, because the page allows none.
"""

from __future__ import annotations

from math import ceil, floor, log10

from markupsafe import escape

from graphlens.report.words import printable

# Mean width of a letter beside the font's size: what keeps labels apart without measuring any font.
LETTER_WIDTH = 0.6


def element(tag: str, *children: str, text: str = "", **attributes: object) -> str:
    """Return one element; ``text`` and attributes are escaped, ``children`` are elements.

    A trailing underscore in an attribute's name is left out, other underscores become dashes.

    >>> element("text", text="a<b", x=1.50, class_="tick")
    '<text x="1.5" class="tick">a&lt;b</text>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = str(escape(printable(text))) + "".join(children)
    return f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>"


def number(value: float) -> str:
    """Write a coordinate with at most one decimal, which is finer than a pixel of any screen.

    >>> number(12.04), number(0.25), number(-0.0), number(7)
    ('12', '0.2', '0', '7')
    """
    rounded = round(value, 1)
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded}"


def described(width: int, height: int, title: str, description: str, *children: str, class_: str) -> str:
    """Return a drawing with its name and what it shows in words, for those who do not see it."""
    # The name is an attribute and not a title element: browsers show that one over the whole drawing on hover.
    return element(
        "svg",
        element("desc", text=description),
        *children,
        class_=class_,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
    )


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten from ``low`` to ``high``, both positive.

    >>> decades(0.3, 250)
    [1, 10, 100]
    """
    return [10**power for power in range(ceil(log10(low)), floor(log10(high)) + 1)]


def text_width(text: str, size: float) -> float:
    """Estimate how wide ``text`` will be, rather too wide than too narrow."""
    return len(text) * size * LETTER_WIDTH


def _attribute(value: object) -> str:
    return number(value) if isinstance(value, (int, float)) else str(escape(printable(str(value))))
