"""Evidence of a finding as a small tree of readable cells; units come from the suffix of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from graphlens.units import (
    UNKNOWN,
    format_byte_rate,
    format_bytes,
    format_count,
    format_flop_rate,
    format_flops,
    format_ns,
    format_share,
)

Format = Callable[[Any], str]

# Endings of keys that are a unit, which is left out of the label.
_UNITS = ("_ns", "_bytes", "_flops")
# Rates, which are told before amounts; the words for them stay in the label.
_RATES: Mapping[str, tuple[Format, str]] = {
    "flops_per_s": (format_flop_rate, "operation rate"),
    "bytes_per_s": (format_byte_rate, "transfer rate"),
}
# A word of a key that is a unit, and what it is called where it stands alone or before others.
_WORDS: Mapping[str, tuple[Format, str]] = {
    "ns": (format_ns, "time"),
    "bytes": (format_bytes, "bytes"),
    "flops": (format_flops, "FLOPs"),
}
# What is a name of the program's own parts is no name of ours: an op's type keeps its underscore.
_OWN_KEY = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

# Longer lists are cut with a note: a reader needs the first ones, the JSON has all.
LIST_LIMIT = 200

# Words in a key that say that its number is a share; they stay in the label.
_SHARES = ("share", "rate", "fraction", "coverage", "utilization")


@dataclass(frozen=True, slots=True)
class Cell:
    """A node of the tree.

    Attributes
    ----------
    kind
        ``value`` has ``text``; ``names`` has ``items``; ``rows`` has ``headers`` and ``rows``;
        ``group`` has ``parts``; ``list`` has ``cells``.
    total, note
        How many items a list has, and what is said where not all are in it.
    """

    kind: Literal["value", "names", "rows", "group", "list"]
    text: str = ""
    items: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    parts: tuple[tuple[str, Cell], ...] = ()
    cells: tuple[Cell, ...] = ()
    total: int = 0
    note: str = ""


def cells_of(evidence: Mapping[str, Any]) -> tuple[tuple[str, Cell], ...]:
    """Turn evidence into pairs of a label in words and a cell."""
    return tuple((label_of(key), _cell(value, _format_for(key))) for key, value in evidence.items())


def label_of(key: str) -> str:
    """Return the key in words, without the suffix that names its unit.

    >>> label_of("measured_self_ns"), label_of("layers"), label_of("share_of_step")
    ('measured self time', 'layers', 'share of step')
    >>> label_of("roof_flops_per_s"), label_of("ns_per_step"), label_of("_FusedMatMul")
    ('roof operation rate', 'time per step', '_FusedMatMul')
    """
    if not _OWN_KEY.fullmatch(key):
        return key
    for suffix, (_, called) in _RATES.items():
        if key.endswith(suffix):
            return f"{key.removesuffix(suffix).replace('_', ' ')}{called}"
    for suffix in _UNITS:
        if key.endswith(suffix) and len(key) > len(suffix):
            stem = key.removesuffix(suffix).replace("_", " ")
            return {"_ns": _as_time(stem), "_bytes": stem, "_flops": f"{stem} FLOPs"}[suffix]
    return " ".join(_WORDS[word][1] if word in _WORDS else word for word in key.split("_"))


def _as_time(stem: str) -> str:
    return f"{stem} time" if stem in ("self", "total") or stem.endswith((" self", " total")) else stem


def _format_for(key: str) -> Format:
    for suffix, (rate, _) in _RATES.items():
        if key.endswith(suffix):
            return _rounded(rate)
    words = key.split("_")
    unit = next((_WORDS[word][0] for word in words if word in _WORDS), None) if _OWN_KEY.fullmatch(key) else None
    if unit is not None:
        return _rounded(unit)
    if any(word in _SHARES for word in words):
        return _share
    return format_number


def _rounded(format_unit: Format) -> Format:
    """Let a formatter of whole numbers take means too; a part of a nanosecond says nothing."""
    return lambda number: format_unit(round(number))


def _share(number: float) -> str:
    return format_share(number) if 0 <= number <= 1 else format_number(number)


def format_number(number: float) -> str:
    """Write a number that has no unit: whole ones with separators, others with four significant digits.

    >>> format_number(12345), format_number(0.00123456), format_number(2.0), format_number(1234567.8)
    ('12,345', '0.001235', '2', '1,234,568')
    """
    if isinstance(number, int) or (abs(number) < 1e15 and number == int(number)):
        return format_count(number)
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.4g}"


def _cell(value: Any, write: Format) -> Cell:
    if isinstance(value, Mapping):
        return _group(value, write)
    if isinstance(value, (list, tuple)):
        return _sequence(value, write)
    return Cell("value", _text(value, write))


def _text(value: Any, write: Format) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return write(value) if isinstance(value, (int, float)) else str(value) or "none"


def _group(value: Mapping[str, Any], write: Format) -> Cell:
    if not value:
        return Cell("value", "none")
    # A unit in the outer key holds for inner keys that have none: step_ns: {median, p90}.
    parts = ((key, item, _format_for(key)) for key, item in value.items())
    return Cell(
        "group",
        parts=tuple((label_of(key), _cell(item, write if own is format_number else own)) for key, item, own in parts),
    )


def _sequence(values: Sequence[Any], write: Format) -> Cell:
    if not values:
        return Cell("value", "none")
    shown = _shown(values, write)
    return replace(shown, total=len(values), note=_hidden_note(len(values) - LIST_LIMIT))


def _hidden_note(hidden: int) -> str:
    return f"and {hidden:,} more, listed in the JSON report" if hidden > 0 else ""


def _shown(values: Sequence[Any], write: Format) -> Cell:
    values = values[:LIST_LIMIT]
    if all(isinstance(item, Mapping) and item for item in values):
        return _rows(values, write)
    if any(isinstance(item, (Mapping, list, tuple)) for item in values):
        return Cell("list", cells=tuple(_cell(item, write) for item in values))
    if all(isinstance(item, str) for item in values):
        return Cell("names", items=tuple(values))
    return Cell("value", ", ".join(_text(item, write) for item in values))


def _rows(values: Sequence[Mapping[str, Any]], write: Format) -> Cell:
    keys = tuple(dict.fromkeys(key for value in values for key in value))
    formats = {key: _format_for(key) for key in keys}
    chosen = {key: write if own is format_number else own for key, own in formats.items()}
    return Cell(
        "rows",
        headers=tuple(label_of(key) for key in keys),
        rows=tuple(
            tuple(_cell(value[key], chosen[key]) if key in value else Cell("value") for key in keys) for value in values
        ),
    )
