"""What the model was fed in words: a line for each input, and what hangs on values that were made up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.inputs import MADE_UP, InputRow
from graphlens.report.words import shorten
from graphlens.units import counted

# A line of the terminal names this many inputs; the page and the JSON have all.
NAMED = 3
NAME_CHARACTERS = 24
# Digits that tell one range from another; more would only look exact.
DIGITS = 6

ORIGINS = {"given": "given", "example": "example", MADE_UP: "made up"}


@dataclass(frozen=True, slots=True)
class InputView:
    """One input: what it is, between which values, and where these came from."""

    name: str
    tensor: str
    range: str
    origin: str
    source: str
    decides: str


@dataclass(frozen=True, slots=True)
class InputsView:
    """All inputs: in a sentence, in a line, and as rows; ``warning`` names what hangs on values that were made up."""

    summary: str
    line: str
    warning: str
    rows: tuple[InputView, ...]


def inputs_view(document: Document) -> InputsView | None:
    """Return what was fed, ``None`` where nothing is known of it."""
    rows = document.inputs
    if not rows:
        return None
    counts = Counter(ORIGINS[row.origin] for row in rows)
    origins = ", ".join(f"{count} {origin}" if len(counts) > 1 else origin for origin, count in counts.items())
    return InputsView(
        summary=f"{counted(len(rows), 'input')}, {origins}",
        line=_line(rows),
        warning="; ".join(f"{row.name} decides {row.decides}" for row in rows if row.decides),
        rows=tuple(map(_view, rows)),
    )


def _view(row: InputRow) -> InputView:
    return InputView(row.name, tensor_words(row), range_words(row), ORIGINS[row.origin], row.source, row.decides)


def tensor_words(row: InputRow) -> str:
    """Return type and shape, as ``float32[1,224,224,3]``."""
    sizes = "?" if row.shape is None else ",".join("?" if size is None else str(size) for size in row.shape)
    return f"{row.dtype}[{sizes}]" if row.shape is None or row.shape else row.dtype


def range_words(row: InputRow) -> str:
    """Return the one value that an input holds, or from where to where they lie.

    >>> range_words(InputRow("n", "int32", (), (200, 200), "example"))
    '200'
    >>> range_words(InputRow("x", "float32", (9,), (0.00021, 0.99), "made-up"))
    '0.00021 to 0.99'
    """
    if row.range is None:
        return ""
    low, high = (f"{value:.{DIGITS}g}" if value % 1 else f"{value:.0f}" for value in row.range)
    return low if row.range[0] == row.range[1] else f"{low} to {high}"


def _line(rows: tuple[InputRow, ...]) -> str:
    """Name the first inputs, those first that decide about the work of a step."""
    first = sorted(rows, key=lambda row: not row.decides)[:NAMED]
    more = f"; and {len(rows) - len(first)} more" if len(rows) > len(first) else ""
    if len({_source(row) for row in rows}) == 1:
        return f"{'; '.join(map(_in_line, first))}{more} ({'all ' if len(rows) > 1 else ''}{_source(rows[0])})"
    return "; ".join(f"{_in_line(row)} ({_source(row)})" for row in first) + more


def _source(row: InputRow) -> str:
    return row.source or ("from the target" if row.origin == "example" else ORIGINS[row.origin])


def _in_line(row: InputRow) -> str:
    value = f" = {range_words(row)}" if row.range and not row.shape and row.shape is not None else ""
    return f"{shorten(row.name, NAME_CHARACTERS)} {tensor_words(row)}{value}"
