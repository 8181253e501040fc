"""The events of a profile as columns: a million of them are read, sorted and summed as arrays, not as objects.

Each is a sequence of the events that ``graphlens.ir.run`` defines, made when they are asked for.  What events share
(names, threads) is stored once and referred to by a code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.run import DeviceEvent, Kernel, OpEvent, Span

Ints = NDArray[np.int64]
Chosen = Any  # what chooses rows of an array: a mask, positions, or a slice

_DENSE: Final = 1 << 22  # up to this number values are looked up in an array: 32 MB at most
_AT_ONCE: Final = 65_536  # events that are made objects in one go


@dataclass(frozen=True, eq=False)
class OpEvents(Sequence[OpEvent]):
    """Events of ops, in their order.

    ``kinds`` are node and type by code, ``threads`` the threads by the number in ``thread``.
    """

    kinds: Sequence[tuple[str, str]]
    threads: Sequence[int]
    code: Ints
    start_ns: Ints
    end_ns: Ints
    self_ns: Ints
    thread: Ints
    run: Ints
    resumed: NDArray[np.bool_]

    @staticmethod
    def of(events: Iterable[OpEvent]) -> OpEvents:
        """Return ``events`` as columns; themselves where they are that already."""
        if isinstance(events, OpEvents):
            return events
        kinds, threads = Codes[tuple[str, str]](), Codes[int]()
        rows = [
            (kinds((node, op)), start_ns, end_ns, self_ns, threads(thread), run, resumed)
            for node, op, start_ns, end_ns, self_ns, thread, run, resumed in events
        ]
        code, start_ns, end_ns, self_ns, thread, run, resumed = columns(rows, 7)
        return OpEvents(kinds.all, threads.all, code, start_ns, end_ns, self_ns, thread, run, resumed.astype(bool))

    @staticmethod
    def joined(parts: Sequence[OpEvents]) -> OpEvents:
        """Return the events of several, one after the other."""
        kinds, threads = Codes[tuple[str, str]](), Codes[int]()
        codes = [kinds.renumbered(part.kinds, part.code) for part in parts]
        thread = [threads.renumbered(part.threads, part.thread) for part in parts]
        rest = ([getattr(part, name) for part in parts] for name in ("start_ns", "end_ns", "self_ns"))
        start_ns, end_ns, self_ns = (concatenated(column) for column in rest)
        return OpEvents(
            kinds.all,
            threads.all,
            concatenated(codes),
            start_ns,
            end_ns,
            self_ns,
            concatenated(thread),
            concatenated([part.run for part in parts]),
            np.concatenate([np.zeros(0, bool), *(part.resumed for part in parts)]),
        )

    def where(self, chosen: Chosen) -> OpEvents:
        """Return some of the events: those of a mask, or of positions, in their order."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _OP_COLUMNS})

    def kinds_by_last(self) -> Iterator[tuple[str, str]]:
        """Yield node and type of what ran, each once; that of which the last event is the latest comes last."""
        yield from (self.kinds[code] for code in reversed(in_order(self.code[::-1])))

    def first_after(self, moments_ns: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        """Yield the first event of every op after each of some moments, and before the next: node, moment and start."""
        moment = np.searchsorted(np.array(moments_ns, np.int64), self.start_ns, side="right") - 1
        nodes = Codes[str]()
        node = np.fromiter((nodes(node) for node, _ in self.kinds), np.int64, len(self.kinds))[self.code]
        place = np.flatnonzero(moment >= 0)
        first = place[np.sort(first_of(numbered(node[place], moment[place])))]
        names = nodes.all
        rows = (column[first].tolist() for column in (node, moment, self.start_ns))
        yield from ((names[own], number, start_ns) for own, number, start_ns in zip(*rows, strict=True))

    def by_run(self) -> Iterator[tuple[int, str, str]]:
        """Yield run, node and type of what ran, each once."""
        first = first_of(numbered(self.code, self.run))
        for code, run in zip(self.code[first].tolist(), self.run[first].tolist(), strict=True):
            yield (run, *self.kinds[code])

    def of_threads(self, number: Callable[[int], int]) -> Ints:
        """Return for each what ``number`` says of its thread; it is asked once for each thread."""
        return np.fromiter(map(number, self.threads), np.int64, len(self.threads))[self.thread]

    def of_runs(self, runs: Collection[int]) -> OpEvents:
        """Return those that are part of one of ``runs``."""
        return self.where(np.isin(self.run, list(runs)))

    def __len__(self) -> int:
        return len(self.code)

    def __iter__(self) -> Iterator[OpEvent]:
        kinds, threads = self.kinds, self.threads
        for part in _parts(self, _OP_COLUMNS):
            for code, start_ns, end_ns, self_ns, thread, run, resumed in part:
                node, op = kinds[code]
                yield OpEvent(node, op, start_ns, end_ns, self_ns, threads[thread], run, resumed)

    @overload
    def __getitem__(self, index: int) -> OpEvent: ...
    @overload
    def __getitem__(self, index: slice) -> OpEvents: ...
    def __getitem__(self, index: int | slice) -> OpEvent | OpEvents:
        return _item(self, index)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # what equals a tuple of events would need its hash


_OP_COLUMNS: Final = ("code", "start_ns", "end_ns", "self_ns", "thread", "run", "resumed")


@dataclass(frozen=True, eq=False)
class DeviceEvents(Sequence[DeviceEvent]):
    """Kernels on devices, in their order; ``kinds`` is what those of one code share."""

    kinds: Sequence[Kernel]
    code: Ints
    start_ns: Ints
    end_ns: Ints
    device: Ints
    run: Ints

    @staticmethod
    def of(events: Iterable[DeviceEvent]) -> DeviceEvents:
        """Return ``events`` as columns; themselves where they are that already."""
        if isinstance(events, DeviceEvents):
            return events
        kinds = Codes[Kernel]()
        rows = [
            (
                kinds(Kernel(*event[:3], event.stream, event.category, event.flops, event.nbytes, event.made_of)),
                event.start_ns,
                event.end_ns,
                event.device,
                event.run,
            )
            for event in events
        ]
        return DeviceEvents(kinds.all, *columns(rows, 5))

    @staticmethod
    def joined(parts: Sequence[DeviceEvents]) -> DeviceEvents:
        """Return the events of several, one after the other."""
        kinds = Codes[Kernel]()
        codes = [kinds.renumbered(part.kinds, part.code) for part in parts]
        rest = ([getattr(part, name) for part in parts] for name in _DEVICE_COLUMNS[1:])
        return DeviceEvents(kinds.all, concatenated(codes), *map(concatenated, rest))

    def where(self, chosen: Chosen) -> DeviceEvents:
        """Return some of the events: those of a mask, or of positions, in their order."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _DEVICE_COLUMNS})

    def of_kinds(self, chosen: Callable[[Kernel], bool]) -> DeviceEvents:
        """Return those of the kinds that ``chosen`` holds for; it is asked once for each."""
        holds = np.fromiter(map(chosen, self.kinds), bool, len(self.kinds))
        return self if holds.all() else self.where(holds[self.code])

    def of_devices(self, numbers: Sequence[int]) -> Ints:
        """Return for each what ``numbers`` have for its device."""
        return np.array(numbers, np.int64)[self.device] if len(self) else self.device

    def lengths_ns(self, since_ns: int, until_ns: int) -> list[int]:
        """Return how long those take that begin in an interval."""
        inside = (self.start_ns >= since_ns) & (self.start_ns < until_ns)
        return (self.end_ns - self.start_ns)[inside].tolist()

    @cached_property
    def by_device(self) -> Mapping[int, DeviceEvents]:
        """The events of each device that has any, in their order."""
        order = np.argsort(self.device, kind="stable")
        devices, first = np.unique(self.device[order], return_index=True)
        borders = [*first.tolist(), len(order)]
        parts = zip(devices.tolist(), pairwise(borders), strict=True)
        return {device: self.where(order[begin:end]) for device, (begin, end) in parts}

    def totals(self) -> Iterator[tuple[Kernel, int, int, int]]:
        """Yield what kernels of a device share, the device, how many there are, and how long they take in all.

        Those of which one comes first are first.
        """
        group = numbered(self.code, self.device)
        first = first_of(group)
        count, total_ns = np.bincount(group, minlength=len(first)), sums(group, self.end_ns - self.start_ns, len(first))
        for place, number in sorted(zip(first.tolist(), range(len(first)), strict=True)):
            yield self.kinds[self.code[place]], int(self.device[place]), int(count[number]), int(total_ns[number])

    def __len__(self) -> int:
        return len(self.code)

    def __iter__(self) -> Iterator[DeviceEvent]:
        kinds = self.kinds
        for part in _parts(self, _DEVICE_COLUMNS):
            for code, start_ns, end_ns, device, run in part:
                name, node, op, stream, *work = kinds[code]
                yield DeviceEvent(name, node, op, start_ns, end_ns, device, stream, run, *work)

    @overload
    def __getitem__(self, index: int) -> DeviceEvent: ...
    @overload
    def __getitem__(self, index: slice) -> DeviceEvents: ...
    def __getitem__(self, index: int | slice) -> DeviceEvent | DeviceEvents:
        return _item(self, index)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # what equals a tuple of events would need its hash


_DEVICE_COLUMNS: Final = ("code", "start_ns", "end_ns", "device", "run")


@dataclass(frozen=True, eq=False)
class Spans(Sequence[Span]):
    """Named intervals, in their order; ``kinds`` are name and step id of those of one code."""

    kinds: Sequence[tuple[str, int]]
    threads: Sequence[int]
    code: Ints
    start_ns: Ints
    end_ns: Ints
    thread: Ints
    iteration: Ints
    run: Ints

    @staticmethod
    def of(events: Iterable[Span]) -> Spans:
        """Return ``events`` as columns; themselves where they are that already."""
        if isinstance(events, Spans):
            return events
        kinds, threads = Codes[tuple[str, int]](), Codes[int]()
        rows = [
            (
                kinds((event.name, event.step_id)),
                event.start_ns,
                event.end_ns,
                threads(event.thread),
                event.iteration,
                event.run,
            )
            for event in events
        ]
        return Spans(kinds.all, threads.all, *columns(rows, 6))

    @staticmethod
    def joined(parts: Sequence[Spans]) -> Spans:
        """Return the events of several, one after the other."""
        kinds, threads = Codes[tuple[str, int]](), Codes[int]()
        codes = [kinds.renumbered(part.kinds, part.code) for part in parts]
        thread = [threads.renumbered(part.threads, part.thread) for part in parts]
        rest = ([getattr(part, name) for part in parts] for name in ("start_ns", "end_ns", "iteration", "run"))
        start_ns, end_ns, iteration, run = map(concatenated, rest)
        return Spans(
            kinds.all, threads.all, concatenated(codes), start_ns, end_ns, concatenated(thread), iteration, run
        )

    def where(self, chosen: Chosen) -> Spans:
        """Return some of them: those of a mask, or of positions, in their order."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _SPAN_COLUMNS})

    def of_threads(self, number: Callable[[int], int]) -> Ints:
        """Return for each what ``number`` says of its thread; it is asked once for each thread."""
        return np.fromiter(map(number, self.threads), np.int64, len(self.threads))[self.thread]

    def of_runs(self, runs: Collection[int]) -> Spans:
        """Return those that are part of one of ``runs``."""
        return self.where(np.isin(self.run, list(runs)))

    def __len__(self) -> int:
        return len(self.code)

    def __iter__(self) -> Iterator[Span]:
        kinds, threads = self.kinds, self.threads
        for part in _parts(self, _SPAN_COLUMNS):
            for code, start_ns, end_ns, thread, iteration, run in part:
                name, step_id = kinds[code]
                yield Span(name, start_ns, end_ns, threads[thread], step_id, iteration, run)

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> Spans: ...
    def __getitem__(self, index: int | slice) -> Span | Spans:
        return _item(self, index)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # what equals a tuple of events would need its hash


_SPAN_COLUMNS: Final = ("code", "start_ns", "end_ns", "thread", "iteration", "run")

Columns = TypeVar("Columns", OpEvents, DeviceEvents, Spans)


def by_start(events: Columns) -> Columns:
    """Return the events in the order of their starts; those that start together stay in theirs."""
    if np.all(events.start_ns[1:] >= events.start_ns[:-1]):
        return events
    return events.where(np.argsort(events.start_ns, kind="stable"))


def later(events: Columns, ns: Ints) -> Columns:
    """Return the events, each moved by its own time, in the order of their starts."""
    return by_start(replace(events, start_ns=events.start_ns + ns, end_ns=events.end_ns + ns))


def alone(borders: Ints, starts: Ints, ends: Ints) -> NDArray[np.bool_]:
    """Tell which intervals of a thread overlap no other of it.

    Each thread begins at one of ``borders``, which end with the number of all, and has its intervals sorted by start.
    """
    until = np.empty_like(ends)
    for first, last in pairwise(borders.tolist()):
        np.maximum.accumulate(ends[first:last], out=until[first:last])
    opens = np.ones(len(starts) + 1, bool)
    opens[1:-1] = starts[1:] >= until[:-1]
    opens[borders] = True
    return opens[:-1] & opens[1:]


# -- codes and columns ---------------------------------------------------------------------------------------------

Coded = TypeVar("Coded", bound=Hashable)


class Codes(Generic[Coded]):
    """Numbers what is called, in the order in which it first is: ``codes(value)``."""

    def __init__(self) -> None:
        self.numbers: dict[Coded, int] = {}

    def __call__(self, value: Coded) -> int:
        """Return the number of ``value``."""
        return self.numbers.setdefault(value, len(self.numbers))

    @property
    def all(self) -> tuple[Coded, ...]:
        """What has a number, by it."""
        return tuple(self.numbers)

    def renumbered(self, values: Sequence[Coded], codes: Ints) -> Ints:
        """Return ``codes``, which refer to ``values``, as codes of this."""
        return np.fromiter(map(self, values), np.int64, len(values))[codes] if len(codes) else codes


def numbered(*columns: Ints) -> Ints:
    """Return a number for each row: from 0 on, the same for equal ones."""
    number = np.zeros_like(columns[0])
    for column in columns:
        own = _dense(column)
        number = _dense(number * (own.max(initial=0) + 1) + own)
    return number


def _dense(values: Ints) -> Ints:
    """Return the position of each value among those that there are."""
    least, most = values.min(initial=0), values.max(initial=0)
    if least < 0 or most > _DENSE:
        return np.unique(values, return_inverse=True)[1]
    seen = np.zeros(most + 1, bool)
    seen[values] = True
    return (np.cumsum(seen) - 1)[values]


def first_of(numbers: Ints) -> Ints:
    """Return where each of the numbers, from 0 on, comes first."""
    first = np.zeros(numbers.max(initial=-1) + 1, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first


def looked_up(keys: Ints, table: Mapping[int, int]) -> Ints:
    """Return what ``table`` has for each of ``keys``, -1 where it has nothing."""
    known = np.fromiter(sorted(table), np.int64, len(table))
    if not len(known):
        return np.full(len(keys), -1)
    values = np.fromiter((table[key] for key in known.tolist()), np.int64, len(known))
    if known[0] >= 0 and known[-1] < _DENSE:
        dense = np.full(known[-1] + 2, -1)
        dense[known] = values
        return dense[np.where((keys >= 0) & (keys <= known[-1]), keys, known[-1] + 1)]
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], -1)


def in_order(codes: Ints) -> list[int]:
    """Return the codes that there are, in the order in which each comes first."""
    present = np.flatnonzero(np.bincount(codes)) if len(codes) else codes
    places = np.zeros(codes.max(initial=-1) + 1, np.int64)
    places[codes[::-1]] = np.arange(len(codes))[::-1]
    return present[np.argsort(places[present])].tolist()


def sums(number: Ints, values: Ints, count: int) -> Ints:
    """Return the sum of the values of each of ``count`` numbers."""
    total = np.zeros(count, np.int64)
    np.add.at(total, number, values)
    return total


def columns(rows: Sequence[tuple[int, ...]], count: int) -> Iterator[Ints]:
    """Yield the ``count`` columns of ``rows``."""
    for position in range(count):
        yield np.fromiter((row[position] for row in rows), np.int64, len(rows))


def concatenated(parts: Iterable[Ints]) -> Ints:
    """Return the parts one after the other; none of them make an empty column."""
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _parts(events: Any, names: Sequence[str]) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Yield the rows of some columns, as many as are made objects at once."""
    for first in range(0, len(events), _AT_ONCE):
        yield zip(*(getattr(events, name)[first : first + _AT_ONCE].tolist() for name in names), strict=True)


def _item(events: Any, index: int | slice) -> Any:
    if isinstance(index, slice):
        return events.where(index)
    position = range(len(events))[index]
    return next(iter(events.where(slice(position, position + 1))))


def _equal(events: Sequence[Any], other: object) -> bool:
    return isinstance(other, Sequence) and len(events) == len(other) and all(map(_same, events, other))


def _same(one: object, other: object) -> bool:
    return one == other
