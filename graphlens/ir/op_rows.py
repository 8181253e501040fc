"""The op rows of a document as columns: a row is made when it is asked for, a column with nothing in it is not held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, overload

from graphlens.ir.measured import OpRow

NAMES: Final = tuple(field.name for field in fields(OpRow))
# What a column that is not held stands for; the columns without such a value are always held.
DEFAULTS: Final = MappingProxyType({f.name: f.default for f in fields(OpRow) if f.default is not MISSING})


class OpRows(Sequence[OpRow]):
    """The rows of a document's ops, equal to any other sequence of the same rows.

    Parameters
    ----------
    columns
        Field of :class:`OpRow` -> its values, one per row.  Fields that are left out have their default in every row.

    Attributes
    ----------
    columns
        The columns that say something: those that hold nothing but their default are left out here as well.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._length = len(columns["name"])
        if any(len(values) != self._length for values in columns.values()):
            raise ValueError("the columns of the op rows differ in length")
        self.columns: Mapping[str, Sequence[Any]] = MappingProxyType(
            {name: columns[name] for name in NAMES if name in columns and _says_something(name, columns[name])}
        )

    @classmethod
    def of(cls, rows: Iterable[OpRow]) -> OpRows:
        """Return ``rows`` as columns; the same object where they are already."""
        if isinstance(rows, OpRows):
            return rows
        values = list(zip(*map(attrgetter(*NAMES), rows), strict=True)) or [()] * len(NAMES)
        return cls(dict(zip(NAMES, values, strict=True)))

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of field ``name``, one per row."""
        return self.columns[name] if name in self.columns else (DEFAULTS[name],) * self._length

    def in_order(self, positions: Sequence[int]) -> OpRows:
        """Return the rows at ``positions``, in that order."""
        return OpRows({name: list(map(values.__getitem__, positions)) for name, values in self.columns.items()})

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Name of an op -> the position of its row; of several rows with one name, that of the last."""
        return {name: position for position, name in enumerate(self.column("name"))}

    def find(self, name: str) -> OpRow | None:
        """Return the row of op ``name``, or ``None`` where there is none."""
        position = self.positions.get(name)
        return None if position is None else self[position]

    # -- as a sequence --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> OpRow: ...
    @overload
    def __getitem__(self, index: slice) -> OpRows: ...
    def __getitem__(self, index: int | slice) -> OpRow | OpRows:
        if isinstance(index, slice):
            return OpRows({name: values[index] for name, values in self.columns.items()})
        values: dict[str, Any] = {name: values[index] for name, values in self.columns.items()}
        return OpRow(**values)

    def __iter__(self) -> Iterator[OpRow]:
        return map(OpRow, *map(self.column, NAMES))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == their for mine, their in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return OpRows, (dict(self.columns),)

    def __repr__(self) -> str:
        return f"OpRows.of({list(self)!r})"


def _says_something(name: str, values: Sequence[Any]) -> bool:
    return name not in DEFAULTS or values.count(DEFAULTS[name]) != len(values)
