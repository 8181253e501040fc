"""One stage of a program as columns, as a document holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

from graphlens.ir.nodes import Edge, TensorSpec

Stage = Literal["traced", "optimized", "executed"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Words:
    """A column of words, each distinct one once in ``values``; ``codes`` has a position among them for each op.

    A code is ``None`` where nothing is known of an op, and there are none where nothing is known of any.
    """

    values: tuple[str, ...] = ()
    codes: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, column: Sequence[str | None]) -> Words:
        """Return ``column`` with its distinct words apart."""
        values, codes = distinct(column)
        return cls(values, codes)

    def column(self, length: int) -> list[str | None]:
        """Return the word of each of ``length`` ops."""
        return [None if code is None else self.values[code] for code in self.codes] or [None] * length


@dataclass(frozen=True, slots=True)
class Tensors:
    """A column of what ops put out, each distinct list of tensors once in ``values``; ``codes`` are as in ``Words``."""

    values: tuple[tuple[TensorSpec, ...], ...] = ()
    codes: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of a DAG, those into its first op first: how many go into each op (``counts``), and for each edge the
    position of the op that it comes from (``sources``), and what it is, as a position in ``kinds`` (``codes``).
    """

    counts: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    kinds: tuple[Edge, ...] = ()
    codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dag:
    """One stage of a program, functions inlined: columns with one entry per op, empty where they tell nothing; edges.

    Attributes
    ----------
    program, stage
        The ``id`` of the program, and which of its graphs it is.
    name, op, device, outputs, source
        As the graph has them.
    self_ns, calls_per_step, timing
        The measured time of an op that ran on its own, as in the op rows; empty where nothing was timed.
    flops, bytes
        Of one execution, from the shapes.
    origin
        The ops as written that each op stands for; empty where every op is its own.
    executed_as
        The executed op that stands for each; in a traced graph of which the executed one is known, else empty.
    layer
        The layers of ops; in the judged graph only.
    """

    program: str
    stage: Stage
    name: tuple[str, ...]
    op: Words
    device: Words = field(default_factory=Words)
    outputs: Tensors = field(default_factory=Tensors)
    self_ns: tuple[int | None, ...] = ()
    calls_per_step: tuple[float | None, ...] = ()
    timing: Words = field(default_factory=Words)
    flops: tuple[int | None, ...] = ()
    bytes: tuple[int | None, ...] = ()
    origin: tuple[tuple[str, ...], ...] = ()
    executed_as: tuple[str | None, ...] = ()
    layer: Words = field(default_factory=Words)
    source: Words = field(default_factory=Words)
    edges: Edges = field(default_factory=Edges)

    def __post_init__(self) -> None:
        size, edges = len(self.name), self.edges
        coded = (self.op, self.device, self.outputs, self.timing, self.layer, self.source)
        plain = (self.self_ns, self.calls_per_step, self.flops, self.bytes, self.origin, self.executed_as)
        if any(len(column) not in (0, size) for column in (*plain, *(column.codes for column in coded))):
            raise ValueError("has columns of different lengths")
        if len(edges.counts) != size or min(edges.counts, default=0) < 0:
            raise ValueError("has edges that do not fit its ops")
        if not len(edges.codes) == len(edges.sources) == sum(edges.counts):
            raise ValueError("has edges that do not fit its ops")
        if len(set(self.name)) != size:
            raise ValueError("has several ops of one name")
        within = [*((column.codes, column.values) for column in coded), (edges.codes, edges.kinds)]
        if not all(_are_within(codes, values) for codes, values in (*within, (edges.sources, self.name))):
            raise ValueError("has codes that stand for nothing")


def _are_within(codes: Sequence[int | None], values: Sequence[Any]) -> bool:
    known = {code for code in set(codes) if code is not None}
    return not known or (min(known) >= 0 and max(known) < len(values))


def distinct(column: Sequence[Item | None]) -> tuple[tuple[Item, ...], tuple[int | None, ...]]:
    """Return the distinct values of ``column`` in the order in which they appear, and the position of each among them.

    Both are empty where no value is known.
    """
    values = tuple(value for value in dict.fromkeys(column) if value is not None)
    if not values:
        return (), ()
    code: dict[Item | None, int | None] = {value: position for position, value in enumerate(values)}
    code[None] = None
    return values, tuple(code[value] for value in column)


# -- made when it is asked for -----------------------------------------------------------------------------------


class Deferred(Sequence[Item]):
    """A sequence that is made when it is first looked at: only some reports need what is in it."""

    def __init__(self, make: Callable[[], Sequence[Item]]) -> None:
        self._make: Callable[[], Sequence[Item]] | None = make
        self._made: Sequence[Item] = ()

    def _items(self) -> Sequence[Item]:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made

    def __len__(self) -> int:
        return len(self._items())

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items()[index]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)  # what it is made of stays in this process

    def __repr__(self) -> str:
        return repr(self._items())
