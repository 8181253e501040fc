"""The events of a plane as columns, decoded from their bytes: a message object for each would take most of the time.

An ``XEvent`` is a number of its name, a start, a length, and statistics; each of these is read for all events at once.
What is written otherwise than serializers write it (fields in another order, a field twice, a statistic without its
key) is first brought to that form by protobuf, which also tells what is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.columns import Codes, Ints, looked_up, numbered
from graphlens.loaders.planes import PS_PER_NS
from graphlens.loaders.schema import xspace_part

# Fields of an event and of a statistic, as their first byte says: the field's number and how its value is written.
_NAME, _OFFSET, _DURATION, _STAT, _OCCURRENCES = 0x08, 0x10, 0x18, 0x22, 0x28
_KEY, _DOUBLE, _UNSIGNED, _SIGNED, _TEXT, _BYTES, _REFERENCE = 0x08, 0x11, 0x18, 0x20, 0x2A, 0x32, 0x38
_NO_VALUE: Final = 0
_IS_VALUE: Final = np.isin(np.arange(256), (_UNSIGNED, _SIGNED, _REFERENCE, _TEXT, _BYTES, _DOUBLE))

_PADDING: Final = bytes(16)  # behind the last event: numbers are looked up eight bytes at a time
_CONTINUES: Final = np.uint64(0x8080808080808080)  # the bit of each byte that says that a number goes on
_NOWHERE: Final = 1 << 62  # the place of what is damaged: behind every end

# Half of what 64 bits hold of picoseconds, 53 days: what lies beyond is damaged, and is cut so that sums stay right.
_FARTHEST_PS: Final = (1 << 62) - 1
_FARTHEST_NS: Final = 1 << 62  # the same of the moments that lines count from


class Stats:
    """Statistics of a plane's events, in the order of the events; one of which no event has any is in none.

    ``event`` is the position of the event that each belongs to, ``key`` the number of its name.
    """

    def __init__(self, data: bytes, columns: _Columns, names: Mapping[int, str]) -> None:
        self.event, self.key = columns.event, columns.key
        self._data, self._columns, self._names = data, columns, names

    def __len__(self) -> int:
        return len(self.event)

    def among(self, keys: Collection[int]) -> Stats:
        """Return those with one of ``keys``."""
        chosen = np.isin(self.key, np.fromiter(keys, np.int64, len(keys)))
        return Stats(self._data, self._columns.where(chosen), self._names)

    def of_events(self, events: NDArray[np.bool_]) -> Stats:
        """Return those of the events that ``events`` holds for."""
        return Stats(self._data, self._columns.where(events[self.event]), self._names)

    def numbers(self) -> Ints:
        """Return their values as 64-bit integers, of which those that do not fit keep their bits.

        A text that is a number stands for it, as traces write long ones; what else is no number is 0.
        """
        tags, numbers, ends = self._columns.tag, self._columns.value, self._columns.end
        told = np.flatnonzero((tags != _SIGNED) & (tags != _UNSIGNED))
        if not len(told):
            return numbers
        found: Ints = numbers.copy()
        found[told] = [_as_number(self._value(int(tags[at]), int(numbers[at]), int(ends[at]))) for at in told.tolist()]
        return found

    def values(self) -> list[Any]:
        """Return their values; a reference is the name that it refers to, ``None`` stands for bytes and for nothing."""
        tags, numbers, ends = self._columns.tag, self._columns.value, self._columns.end
        found: list[Any] = numbers.tolist()
        is_told = (tags == _SIGNED) | ((tags == _UNSIGNED) & (numbers >= 0))
        for index in np.flatnonzero(~is_told).tolist():
            found[index] = self._value(int(tags[index]), found[index], int(ends[index]))
        return found

    def _value(self, tag: int, number: int, end: int) -> Any:
        if tag == _UNSIGNED:
            return number & (1 << 64) - 1
        if tag == _REFERENCE:
            return self._names.get(number, "")
        if tag == _TEXT:
            return str(self._data[number:end], "utf-8")
        return struct.unpack_from("<d", self._data, number)[0] if tag == _DOUBLE else None

    def distinct(self) -> tuple[list[Any], Ints]:
        """Return the values that there are, and for each statistic which of them is its own."""
        tags, numbers = self._columns.tag, self._columns.value
        if np.all((tags == _SIGNED) | ((tags == _UNSIGNED) & (numbers >= 0))):
            values, own = np.unique(numbers, return_inverse=True)
            return values.tolist(), own
        codes = Codes[Any]()
        own = np.fromiter(map(codes, self.values()), np.int64, len(self))
        return list(codes.all), own

    def texts(self) -> list[str]:
        """Return their texts; a number is no text, and stands for the name that has no number."""
        tags, numbers, ends = self._columns.tag.tolist(), self._columns.value.tolist(), self._columns.end.tolist()
        known: dict[tuple[int, bytes], str] = {}
        names, data = self._names, self._data
        found = []
        for tag, number, end in zip(tags, numbers, ends, strict=True):
            if tag == _TEXT:
                written = data[number:end]
                text = known.get((tag, written))
                if text is None:
                    text = known[tag, written] = str(written, "utf-8")
                found.append(text or names.get(0, ""))
            else:
                found.append(names.get(number if tag == _REFERENCE else 0, ""))
        return found

    def alike(self) -> Ints:
        """Return a number for each: the same for those of one key whose values are written in the same way."""
        key, tag, value, end = self.key, self._columns.tag, self._columns.value, self._columns.end
        number = np.zeros_like(value)
        numbers: dict[tuple[int, bytes], int] = {}
        is_text = tag == _TEXT
        data = self._data
        number[is_text] = [
            numbers.setdefault((one, data[begin:stop]), len(numbers))
            for one, begin, stop in zip(
                key[is_text].tolist(), value[is_text].tolist(), end[is_text].tolist(), strict=True
            )
        ]
        number[~is_text] = len(numbers) + numbered(key[~is_text], tag[~is_text].astype(np.int64), value[~is_text])
        return number


def _as_number(value: Any) -> int:
    """Return a value as a number of 64 bits, 0 for what is none.

    >>> _as_number("-6046577156815887617"), _as_number("many"), _as_number(1 << 63) == -(1 << 63), _as_number(None)
    (-6046577156815887617, 0, True, 0)
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class _Columns(NamedTuple):
    """Whose each statistic is, its key, how its value is written, the value or where that begins, and where it ends."""

    event: Ints
    key: Ints
    tag: NDArray[np.uint8]
    value: Ints
    end: Ints

    def where(self, chosen: Any) -> _Columns:
        return _Columns(*(column[chosen] for column in self))


@dataclass(frozen=True, slots=True)
class PlaneEvents:
    """The events of lines of a plane, in their order.

    ``line`` is the position of an event's line among them, ``name``
    is the number of an event's name; ``start_ps`` and ``end_ps`` lie within the line, ``start_ns`` and ``end_ns`` on
    the clock of the profile.
    """

    line: Ints
    name: Ints
    start_ps: Ints
    end_ps: Ints
    start_ns: Ints
    end_ns: Ints
    stats: Stats

    def __len__(self) -> int:
        return len(self.name)


def read_events(
    lines: Sequence[Any],
    names: Mapping[int, str],
    wanted: Collection[int] = (),
    shift_ns: int = 0,
    silent: Collection[int] = (),
) -> PlaneEvents:
    """Return the events of ``lines``, whose messages hold them as bytes, with those statistics whose key is ``wanted``.

    Parameters
    ----------
    names
        Those of statistics, by key.
    shift_ns
        By how much the clock of the profile is behind that of the lines.
    silent
        The numbers of names whose events' statistics are not wanted whatever their key.

    Raises
    ------
    google.protobuf.message.DecodeError
        When an event is damaged.
    UnicodeDecodeError
        When the text of a statistic is, as soon as it is asked for.
    """
    written = [event for line in lines for event in line.events]
    lengths = np.fromiter((len(line.events) for line in lines), np.int64, len(lines))
    decoded = _Decoder(written, wanted, silent)
    if len(decoded.odd):
        for position in decoded.odd.tolist():
            written[position] = _as_serialized(written[position])
        decoded = _Decoder(written, wanted, silent)
    line_of = np.repeat(np.arange(len(lines)), lengths)
    origins = [min(max(line.timestamp_ns, -_FARTHEST_NS), _FARTHEST_NS) + shift_ns for line in lines]
    origin_ns = np.array(origins, np.int64)[line_of]
    start_ps = np.clip(decoded.offset_ps, -_FARTHEST_PS, _FARTHEST_PS)
    end_ps = start_ps + np.clip(decoded.duration_ps, 0, _FARTHEST_PS)  # none ends before it begins
    return PlaneEvents(
        line=line_of,
        name=decoded.name,
        start_ps=start_ps,
        end_ps=end_ps,
        start_ns=origin_ns + start_ps // PS_PER_NS,
        end_ns=origin_ns + end_ps // PS_PER_NS,
        stats=Stats(decoded.data, decoded.stats, names),
    )


class _Decoder:
    """Decodes events written one after the other; ``odd`` are the positions of those that it cannot read."""

    def __init__(self, events: Sequence[bytes], wanted: Collection[int], silent: Collection[int]) -> None:
        lengths = np.fromiter(map(len, events), np.int64, len(events))
        self.data = b"".join(events) + _PADDING
        self._bytes = np.frombuffer(self.data, np.uint8)
        self._words = np.ndarray((len(self.data) - 7,), "<u8", self.data, strides=(1,))
        self.ends = np.cumsum(lengths)
        at = self.ends - lengths
        self.name, at = self._field(_NAME, at)
        self.offset_ps, at = self._field(_OFFSET, at)
        self.duration_ps, at = self._field(_DURATION, at)
        self._odd: list[Ints] = [np.flatnonzero(at > self.ends)]
        at = np.where(looked_up(self.name, dict.fromkeys(silent, 1)) == 1, np.maximum(at, self.ends), at)
        self.stats = self._valued(_sorted(list(self._stats(at, np.fromiter(wanted, np.int64, len(wanted))))))
        self.odd = np.unique(np.concatenate(self._odd))

    def _field(self, tag: int, at: Ints) -> tuple[Ints, Ints]:
        """Return the value of a field that is a number, 0 where an event has none, and what comes behind it."""
        has = (self._bytes[np.minimum(at, self.ends)] == tag) & (at < self.ends)
        if has.all():
            return self._number(at + 1)
        value, behind = np.zeros_like(at), at.copy()
        value[has], behind[has] = self._number(at[has] + 1)
        return value, behind

    def _number(self, at: Ints) -> tuple[Ints, Ints]:
        """Return the numbers written at some places, and the places behind them; most are of one byte."""
        at = np.minimum(at, len(self.data) - len(_PADDING))
        first = self._bytes[at]
        value, behind = first.astype(np.int64), at + 1
        longer = np.flatnonzero(first >= 0x80)
        if len(longer):
            value[longer], behind[longer] = self._long_number(at[longer])
        return value, behind

    def _long_number(self, at: Ints) -> tuple[Ints, Ints]:
        """Return numbers of several bytes: seven bits of each, the lowest first, up to a byte that goes on no more."""
        word = self._words[at]
        stops = ~word & _CONTINUES
        last = stops & (~stops + np.uint64(1))
        value = _packed(word & (last | (last - np.uint64(1))))
        behind = at + (np.frexp(last.astype(np.float64))[1] >> 3)
        huge = np.flatnonzero(last == 0)  # of nine or ten bytes, as negative ones are
        if len(huge):
            ninth, tenth = (self._bytes[at[huge] + place].astype(np.uint64) for place in (8, 9))
            goes_on = ninth >= 0x80
            value[huge] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
            value[huge] |= np.where(goes_on, tenth, 0).astype(np.uint64) << np.uint64(63)
            behind[huge] = at[huge] + np.where(goes_on, np.where(tenth < 0x80, 10, _NOWHERE), 9)
        return value.view(np.int64), behind

    def _stats(self, at: Ints, wanted: Ints) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
        """Yield the first wanted statistic of each event that has one, then the second, …: event, key, begin and end of
        the value."""
        events = np.flatnonzero(at < self.ends)
        at, ends = at[events], self.ends[events]
        while len(events):
            tag = self._bytes[at]
            is_stat = tag == _STAT
            size, begin = self._number(at + 1)  # of the statistic, or how often the event occurred
            behind = np.where(is_stat, begin + np.clip(size, -1, _NOWHERE), begin)
            key, value = self._number(begin + 1)
            is_good = np.where(is_stat, (self._bytes[np.minimum(begin, ends)] == _KEY) & (value <= behind), True)
            is_good &= (behind <= ends) & (behind > at) & (is_stat | (tag == _OCCURRENCES))
            is_wanted = np.isin(key, wanted)
            skipped = np.flatnonzero(is_good & is_stat & ~is_wanted)  # one that has a second key may be wanted yet
            is_good[skipped] = self._read_value(value[skipped], behind[skipped])[3]
            if not is_good.all():
                self._odd.append(events[~is_good])
            chosen = np.flatnonzero(is_good & is_stat & is_wanted)
            if len(chosen):
                yield events[chosen], key[chosen], value[chosen], behind[chosen]
            goes_on = np.flatnonzero(is_good & (behind < ends))
            events, at, ends = events[goes_on], behind[goes_on], ends[goes_on]

    def _valued(self, stats: tuple[Ints, Ints, Ints, Ints]) -> _Columns:
        """Return the statistics with their values: numbers, or where a text or a float begins."""
        event, key, at, end = stats
        tag, begin, value, is_known = self._read_value(at, end)
        if not is_known.all():
            self._odd.append(event[~is_known])
        is_number = (tag != _TEXT) & (tag != _BYTES) & (tag != _DOUBLE)
        return _Columns(event, key, tag, np.where(is_number, value, begin), end)

    def _read_value(self, at: Ints, end: Ints) -> tuple[NDArray[np.uint8], Ints, Ints, NDArray[np.bool_]]:
        """Return how values are written, where texts and floats begin, what numbers are, and which of them are known to
        fill their statistic as serializers write it."""
        tag = np.where(at < end, self._bytes[at], _NO_VALUE).astype(np.uint8)
        value, behind = self._number(at + 1)
        is_text, is_float = (tag == _TEXT) | (tag == _BYTES), tag == _DOUBLE
        begin = np.where(is_float, at + 1, behind)
        behind = np.where(is_text, behind + value, np.where(is_float, at + 9, behind))
        is_known = _IS_VALUE[tag] & (behind == end)
        return tag, begin, value, is_known | (tag == _NO_VALUE)


def _packed(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the seven low bits of each byte next to each other."""
    for shift, low, high in (
        (1, 0x007F007F007F007F, 0x7F007F007F007F00),
        (2, 0x00003FFF00003FFF, 0x3FFF00003FFF0000),
        (4, 0x000000000FFFFFFF, 0x0FFFFFFF00000000),
    ):
        word = (word & np.uint64(low)) | ((word & np.uint64(high)) >> np.uint64(shift))
    return word


def _sorted(rounds: Sequence[tuple[Ints, Ints, Ints, Ints]]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return what was found in several rounds in the order of events, and of each in the order in which it has it."""
    if not rounds:
        return (np.zeros(0, np.int64),) * 4
    event, key, value, end = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    order = np.argsort(event, kind="stable")
    return event[order], key[order], value[order], end[order]


# -- what is written otherwise ------------------------------------------------------------------------------------


def _as_serialized(event: bytes) -> bytes:
    """Return an event as serializers write it.

    Raises
    ------
    google.protobuf.message.DecodeError
        When it is damaged.
    """
    message = xspace_part("XEvent").FromString(event)
    parts = [
        _numbered(_NAME, message.metadata_id),
        _numbered(_OFFSET, message.offset_ps),
        _numbered(_DURATION, message.duration_ps),
    ]
    return b"".join([*parts, *(_sized(_STAT, _stat(stat)) for stat in message.stats)])


def _stat(stat: Any) -> bytes:
    kind = stat.WhichOneof("value")
    key = _numbered(_KEY, stat.metadata_id)
    if kind is None:
        return key
    value = getattr(stat, kind)
    if kind == "double_value":
        return key + bytes([_DOUBLE]) + struct.pack("<d", value)
    if kind in ("str_value", "bytes_value"):
        return key + _sized(_TEXT if kind == "str_value" else _BYTES, value.encode() if kind == "str_value" else value)
    return key + _numbered({"uint64_value": _UNSIGNED, "int64_value": _SIGNED, "ref_value": _REFERENCE}[kind], value)


def _numbered(tag: int, value: int) -> bytes:
    return bytes([tag]) + _varint(value)


def _sized(tag: int, value: bytes) -> bytes:
    return bytes([tag]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded, value = b"", value & (1 << 64) - 1
    while value > 0x7F:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return encoded + bytes([value])
