"""Op rows as JSON text and back, a column at a time: the text is that of a list of objects, one on each line.

A record at a time, as :mod:`graphlens.ir.codec` has it, costs several times as much, and a large graph has a million
rows.  What does not fit as a column is left to that module, which says in which row it is.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from graphlens.ir import codec
from graphlens.ir.codec import MismatchError
from graphlens.ir.measured import OpRow
from graphlens.ir.op_rows import DEFAULTS, NAMES, OpRows

# Rows whose text is made at a time: enough for a column to pay, and a few megabytes.
CHUNK_ROWS: Final = 4096

Write = Callable[[Any], str]

_encode: Final[Write] = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _types() -> Mapping[str, Any]:
    """Return the type of each field, without the ``None`` that stands for what is not known."""
    hints = get_type_hints(OpRow)
    known = {name: [part for part in get_args(hint) if part is not NoneType] for name, hint in hints.items()}
    return {name: known[name][0] if NoneType in get_args(hint) else hint for name, hint in hints.items()}


_TYPES: Final = _types()
_EMPTY: Final = {name: DEFAULTS.get(name) for name in NAMES}


# -- writing -------------------------------------------------------------------------------------------------


def row_texts(rows: OpRows) -> Iterator[Sequence[str]]:
    """Yield the objects of ``rows`` as JSON texts, some thousand at a time.

    Raises
    ------
    MismatchError
        If a value cannot be said in JSON.
    """
    template = "{" + ", ".join(f'"{name}": {_slot(rows, name)}' for name in NAMES) + "}"
    for start in range(0, len(rows), CHUNK_ROWS):
        stop = start + CHUNK_ROWS
        try:
            texts = [_texts(_TYPES[name], values[start:stop]) for name, values in rows.columns.items()]
            lines = list(map(template.__mod__, zip(*texts, strict=True)))
        except (TypeError, ValueError):
            lines = [_text(number, row) for number, row in enumerate(rows[start:stop], start)]
        yield lines


def _slot(rows: OpRows, name: str) -> str:
    """Return where the value of a column goes, or the one value of a column that is not held."""
    return "%s" if name in rows.columns else _encode(DEFAULTS[name])


def _text(number: int, row: OpRow) -> str:
    try:
        return _encode(codec.encode(row))
    except MismatchError as error:
        raise error.inside(number) from None


class _Remembered(dict[Any, str]):
    """The texts of the values of one column: most columns repeat a few of them."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, value: Any) -> str:
        text = self[value] = self._write(value)
        return text


def _texts(kind: Any, values: Sequence[Any]) -> Iterator[str]:
    if kind is float:  # they hardly repeat, and 0.0 equals -0.0
        return map(_write_float, values)
    return map(_Remembered(_write_int if kind is int else _encode).__getitem__, values)


def _write_int(value: Any) -> str:
    return "null" if value is None else int.__repr__(operator.index(value))


def _write_float(value: Any) -> str:
    return "null" if value is None or not math.isfinite(value) else float.__repr__(float(value))


# -- reading -------------------------------------------------------------------------------------------------


def rows_of(data: Any) -> OpRows:
    """Return the rows that JSON data, a list of objects, holds.

    Raises
    ------
    MismatchError
        If a value does not fit its field, or one that must be there is missing.
    """
    if not isinstance(data, list):
        raise MismatchError(f"is {codec.briefly(data)}, expected array")
    try:
        _if(data, set(map(type, data)) <= {dict})
        return OpRows({name: _fitting(name, values) for name, values in _columns(data).items()})
    except _UnfitError:
        return OpRows.of([_row(number, item) for number, item in enumerate(data)])


def _row(number: int, item: Any) -> OpRow:
    try:
        return codec.decode(OpRow, item)
    except MismatchError as error:
        raise error.inside(number) from None


class _UnfitError(Exception):
    """A column holds what its type has no place for."""


def _columns(data: Sequence[dict[str, Any]]) -> Mapping[str, Sequence[Any]]:
    columns: Mapping[str, list[Any]] = {name: [] for name in NAMES}
    for start in range(0, len(data), CHUNK_ROWS):  # so many rows fit into the caches of a processor
        chunk = zip(*_rows(data[start : start + CHUNK_ROWS]), strict=True)
        for column, values in zip(columns.values(), chunk, strict=True):
            column.extend(values)
    return columns


def _rows(data: Sequence[dict[str, Any]]) -> Iterable[Iterable[Any]]:
    """Return the values of each object, in the order of the fields."""
    if set(map(tuple, data)) == {NAMES}:  # as this version writes them: no name has to be looked for
        return map(dict.values, data)
    return ([row.get(name, default) for name, default in _EMPTY.items()] for row in data)


def _fitting(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of one field as its type has them."""
    found, kind = set(map(type, values)), _TYPES[name]
    if name in DEFAULTS and DEFAULTS[name] is None:
        found.discard(NoneType)
    if get_origin(kind) is tuple:
        return _words(values, found)
    if get_origin(kind) is Literal:
        return _if(values, found <= {str} and set(values) <= {None, *get_args(kind)})
    if kind is float:
        return _floats(values, found)
    _if(values, found <= {kind})
    return _if(values, kind is not int or all(abs(number) < codec.BEYOND_FLOATS for number in filter(None, values)))


def _if(values: Sequence[Any], fits: bool) -> Sequence[Any]:
    if not fits:
        raise _UnfitError
    return values


def _floats(values: Sequence[Any], found: set[type]) -> Sequence[Any]:
    _if(values, found <= {int, float})
    try:
        numbers = [None if value is None else float(value) for value in values]
    except OverflowError:
        raise _UnfitError from None
    return _if(numbers, all(map(math.isfinite, filter(None, numbers))))


def _words(values: Sequence[Any], found: set[type]) -> Sequence[Any]:
    _if(values, found <= {list, tuple} and set(map(type, chain.from_iterable(values))) <= {str})
    return list(map(tuple, values))
