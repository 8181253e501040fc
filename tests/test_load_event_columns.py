"""Events as columns: the same as protobuf reads them, however they are written."""

from __future__ import annotations

from bisect import bisect_left
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from graphlens.errors import TargetError
from graphlens.loaders.event_columns import PlaneEvents, read_events
from graphlens.loaders.nesting import nested
from graphlens.loaders.schema import xspace_part
from graphlens.loaders.xplane import read_profile
from tests.big_profile import content, number

NAMES = {1: "one", 2: "two", 300: "far", 7: "told by a reference"}
int64 = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300)

keys = st.sampled_from([1, 2, 300, 5]).map(lambda key: number(1, key))
values = st.one_of(
    st.floats(allow_nan=False).map(lambda value: xspace_part("XStat")(double_value=value).SerializeToString()),
    int64.map(lambda value: number(3, value)),
    int64.map(lambda value: number(4, value)),
    st.text(max_size=200).map(lambda text: content(5, text.encode())),
    st.binary(max_size=9).map(lambda data: content(6, data)),
    st.sampled_from([7, 8]).map(lambda key: number(7, key)),
)
as_serialized = st.tuples(keys, values).map(b"".join)
as_nobody_does = st.lists(keys | values, max_size=4).map(b"".join)
stats = st.lists((as_serialized | as_nobody_does).map(lambda stat: content(4, stat)), max_size=4)
times = st.integers(-(2**61), 2**61) | st.integers(0, 300)


@st.composite
def written(draw: Any) -> bytes:
    """An event as serializers write it, without what is 0; some in another order, or with a field twice."""
    fields = [number(1, draw(st.sampled_from([1, 129, 2**40]))), number(2, draw(times)), number(3, draw(times))]
    fields = [field for field in fields if draw(st.integers(0, 9))] + draw(stats)
    if not draw(st.integers(0, 4)):
        fields = draw(st.permutations([*fields, *fields[:1], number(5, 1)]))
    return b"".join(fields)


def read(*events: bytes, wanted: tuple[int, ...] = (1, 2, 300)) -> PlaneEvents:
    return read_events([SimpleNamespace(events=events, timestamp_ns=5)], NAMES, wanted)


def as_protobuf_reads(event: bytes) -> tuple[int, int, int, list[tuple[int, Any]]]:
    message = xspace_part("XEvent").FromString(event)
    told = []
    for stat in message.stats:
        kind = stat.WhichOneof("value")
        value = getattr(stat, kind) if kind and kind != "bytes_value" else None
        if stat.metadata_id in (1, 2, 300):
            told.append((stat.metadata_id, NAMES.get(value, "") if kind == "ref_value" else value))
    end_ps = message.offset_ps + min(2**62 - 1, max(0, message.duration_ps))
    return message.metadata_id, message.offset_ps, end_ps, told


@given(st.lists(written(), max_size=5))
@example([number(5, 1), content(4, number(1, 5) + number(1, 1))])
@example([content(4, number(1, 5) + number(4, 9) + number(1, 2)), content(4, number(1, 1) + number(1, 5))])
def test_events_are_what_protobuf_reads(events: list[bytes]) -> None:
    found = read(*events)
    told: list[list[tuple[int, Any]]] = [[] for _ in events]
    rows = zip(found.stats.event.tolist(), found.stats.key.tolist(), found.stats.values(), strict=True)
    for event, key, value in rows:
        told[event].append((key, value))
    columns = found.name.tolist(), found.start_ps.tolist(), found.end_ps.tolist(), told
    assert list(zip(*columns, strict=True)) == [as_protobuf_reads(event) for event in events]
    assert found.start_ns.tolist() == [5 + start_ps // 1000 for start_ps in found.start_ps.tolist()]


@given(st.lists(written(), min_size=1, max_size=3), st.data())
def test_damaged_events_are_an_error_or_other_events(events: list[bytes], data: st.DataObject) -> None:
    victim = bytearray(events[0])
    for _ in range(data.draw(st.integers(1, 3))):
        if victim:
            victim[data.draw(st.integers(0, len(victim) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(victim)))
    try:
        found = read(bytes(victim[:cut]), *events[1:])
        found.stats.values()
    except (DecodeError, UnicodeDecodeError):
        return
    if len(events) > 1:
        assert found.name[-1] == as_protobuf_reads(events[-1])[0]


@given(st.lists(written(), max_size=5))
def test_statistics_that_are_alike_have_the_same_text(events: list[bytes]) -> None:
    stats = read(*events).stats
    by_number: dict[int, set[tuple[int, str]]] = {}
    for alike, key, text in zip(stats.alike().tolist(), stats.key.tolist(), stats.texts(), strict=True):
        by_number.setdefault(alike, set()).add((key, text))
    assert all(len(told) == 1 for told in by_number.values())
    values, own = stats.distinct()
    assert [values[number] for number in own.tolist()] == stats.values()


def test_a_damaged_event_damages_the_profile() -> None:
    cut_off = content(4, number(1, 1) + b"\x22\x7f")
    line = content(3, number(1, 1) + cut_off)
    plane = content(1, content(2, b"/host:CPU") + line)
    with pytest.raises(TargetError, match=r"the profile is damaged .*record it again"):
        read_profile(plane)


def test_only_what_is_written_oddly_is_read_by_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for each of a million events would take longer than all the rest."""
    asked: list[str] = []
    monkeypatch.setattr(
        "graphlens.loaders.event_columns.xspace_part", lambda name: asked.append(name) or xspace_part(name)
    )
    usual = number(1, 1) + number(2, 10**12) + number(3, 10**6) + content(4, number(1, 1) + number(3, 2**63))
    read(*[usual] * 50)
    assert asked == []
    read(usual, number(2, 1) + number(1, 1), usual)
    assert asked == ["XEvent"]


# -- what lies in what ---------------------------------------------------------------------------------------------

nesting = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=14)


@given(nesting)
@example([(0, 0, 20, True), (0, 1, 2, True), (0, 4, 5, False), (0, 5, 1, False), (0, 5, 1, True), (1, 6, 1, False)])
def test_events_are_nested_as_they_open_and_close(events: list[tuple[int, int, int, bool]]) -> None:
    """Time of events within an op is told from its own, and an op is part of the last executor that is not over."""
    rows = sorted((line, start, -(start + length), is_executor) for line, start, length, is_executor in events)
    lines, starts, negative_ends, executors = zip(*rows, strict=True) if rows else ((), (), (), ())
    numbers = [index if is_executor else -1 for index, is_executor in enumerate(executors)]
    borders = [bisect_left(lines, line) for line in range(3)]
    columns = (np.array(column, np.int64) for column in (borders, starts, negative_ends, numbers))
    of_lines, start_ps, negative_end_ps, number = columns
    inner_ps, within = nested(of_lines, start_ps, -negative_end_ps, number)
    of_ops = np.where(number < 0, within, -1)
    assert (inner_ps.tolist(), of_ops.tolist()) == opened_and_closed(rows)


def opened_and_closed(rows: list[tuple[int, int, int, bool]]) -> tuple[list[int], list[int]]:
    """What `nested` has to be equal to, one event after the other."""
    inner_ps, within = [0] * len(rows), [-1] * len(rows)
    for line in {row[0] for row in rows}:
        opened: list[tuple[int, int]] = []
        executors: list[tuple[int, int]] = []
        for index, (own, start, negative_end, is_executor) in enumerate(rows):
            if own != line:
                continue
            while executors and executors[-1][0] <= start:
                executors.pop()
            if is_executor:
                executors.append((-negative_end, index))
                continue
            while opened and opened[-1][0] <= start:
                opened.pop()
            within[index] = executors[-1][1] if executors else -1
            if opened and opened[-1][0] >= -negative_end:
                inner_ps[opened[-1][1]] += -negative_end - start
            opened.append((-negative_end, index))
    return inner_ps, within
