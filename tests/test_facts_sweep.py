"""What is divided and summed as columns, against loops that take one event after the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graphlens.facts.clock.device_time import Busy
from graphlens.facts.clock.devices import binned, merged
from graphlens.facts.clock.division import STATES
from graphlens.facts.clock.layers import divide
from graphlens.facts.clock.step_events import StepEvents
from graphlens.facts.clock.sweep import Intervals, Windows, divide_among, pairs
from graphlens.facts.flat.names import Names
from graphlens.ir.columns import DeviceEvents, OpEvents, Spans, by_start
from graphlens.ir.run import NO_RUN, DeviceEvent, OpEvent, Profile, Span

OUTSIDE = 99

moments = st.integers(0, 30)
stretches = st.tuples(moments, st.integers(0, 12)).map(lambda item: (item[0], item[0] + item[1]))
intervals = st.lists(st.tuples(stretches, st.integers(0, 4)), max_size=12)


def columns(layer: Sequence[tuple[tuple[int, int], int]]) -> Intervals:
    rows = np.array([(start, end, key) for (start, end), key in layer], np.int64).reshape(-1, 3)
    return Intervals(rows[:, 0], rows[:, 1], rows[:, 2])


def spans(found: Sequence[tuple[int, int]]) -> list[Span]:
    return [Span("step", start, end, 0) for start, end in found]


def instant_by_instant(
    windows: Sequence[tuple[int, int]], layers: Sequence[Sequence[tuple[tuple[int, int], int]]]
) -> dict[int, float]:
    """Divide the windows by walking over everything that begins and ends: what `divide_among` has to be equal to."""
    borders = [(time, -1, change, 0) for window in windows for time, change in zip(window, (1, -1), strict=True)]
    for number, layer in enumerate(layers):
        lasting = [item for item in layer if item[0][0] < item[0][1]]
        borders += [
            (time, number, change, key) for span, key in lasting for time, change in zip(span, (1, -1), strict=True)
        ]
    active: list[Counter[int]] = [Counter() for _ in layers]
    shares: dict[int, float] = defaultdict(float)
    inside, last = 0, 0
    for time, number, change, key in sorted(borders):
        if inside and time > last:
            running = next((counter for counter in active if counter), Counter({OUTSIDE: 1}))
            for one in running:
                shares[one] += (time - last) / len(running)
        last = time
        if number < 0:
            inside += change
        else:
            active[number][key] += change
            active[number] = +active[number]
    return dict(shares)


@given(st.lists(stretches, max_size=4), st.lists(intervals, max_size=3))
@example([(0, 30)], [[((0, 7), 0), ((0, 7), 1), ((0, 7), 2), ((3, 11), 0)], [((5, 20), 0), ((5, 20), 3), ((5, 9), 4)]])
def test_every_instant_is_given_to_what_ran_in_it(
    windows: list[tuple[int, int]], layers: list[list[tuple[tuple[int, int], int]]]
) -> None:
    """To the last digit, and in the order in which they first had a share: sums of fractions depend on it."""
    found = divide_among(Windows.of(spans(windows)), [columns(layer) for layer in layers], OUTSIDE)
    expected = instant_by_instant(windows, layers)
    assert {share.key: share.ns for share in found} == expected
    since = {share.key: share.first[0] for share in found}
    assert [since[key] for key in expected] == sorted(since.values())


nested = st.lists(st.tuples(stretches, st.integers(0, 1), st.booleans()), max_size=12)


@given(nested, st.lists(stretches, max_size=2))
@example([((0, 20), 0, False), ((2, 12), 0, True), ((4, 8), 0, False), ((5, 6), 0, True)], [(0, 30)])
def test_an_op_has_the_time_in_which_nothing_runs_in_it(
    events: list[tuple[tuple[int, int], int, bool]], windows: list[tuple[int, int]]
) -> None:
    """Whatever executors lie around it; one that runs in it takes its time."""
    ops = [OpEvent(f"op{n}", "Relu", *span, 0, thread) for n, (span, thread, is_op) in enumerate(events) if is_op]
    others = [Span("e", *span, thread) for span, thread, is_op in events if not is_op]
    profile = Profile(ops=tuple(ops), executors=tuple(others), steps=tuple(spans(windows)))
    expected: dict[str, float] = defaultdict(float)
    for instant in (time for time in range(45) if any(start <= time < end for start, end in windows)):
        running = list(filter(None, (last_opened(profile, thread, instant) for thread in (0, 1))))
        for op in running:
            expected[op] += 1 / len(running)
    found = divide(profile, OpEvents.of(ops), spans(windows), Names(None)).active_ns
    assert {name: ns for name, ns in found.items() if name not in STATES} == pytest.approx(expected)


def last_opened(profile: Profile, thread: int, instant: int) -> str | None:
    """The op that runs at an instant on a thread, unless an executor was begun in it: by opening and closing all."""
    items = [(e.start_ns, -e.end_ns, isinstance(e, OpEvent), e) for e in (*profile.executors, *profile.ops)]
    opened: list[OpEvent | Span] = []
    for start, _, _, event in sorted((item for item in items if item[3].thread == thread), key=lambda item: item[:3]):
        if start > instant:
            break
        while opened and opened[-1].end_ns <= start:
            opened.pop()
        opened.append(event)
    while opened and opened[-1].end_ns <= instant:
        opened.pop()
    return opened[-1].node if opened and isinstance(opened[-1], OpEvent) else None


runs = st.sampled_from([NO_RUN, 0, 1, 2])
steps = st.lists(st.tuples(stretches, runs), max_size=5)


@given(steps, st.lists(st.tuples(moments, runs), max_size=12))
def test_an_event_is_in_the_step_of_its_run_that_it_begins_in(
    windows: list[tuple[tuple[int, int], int]], begun: list[tuple[int, int]]
) -> None:
    marked = [Span("step", start, end, 0, run=run) for (start, end), run in windows]
    ops = tuple(OpEvent(f"op{n}", "Relu", start, start + 1, 1, 0, run) for n, (start, run) in enumerate(sorted(begun)))
    found = StepEvents.of(Profile(ops=ops), OpEvents.of(ops), marked, Names(None))
    expected: list[list[str]] = [[] for _ in marked]
    for op in ops:
        own = [step for step in marked if step.run == op.run] or [step for step in marked if step.run == NO_RUN]
        before = [step for step in sorted(own, key=lambda step: step.start_ns) if step.start_ns <= op.start_ns]
        if before and op.start_ns < before[-1].end_ns:
            expected[max(n for n, step in enumerate(marked) if step is before[-1])].append(op.node)
    assert [sorted(nodes) for nodes in found.nodes()] == [sorted(nodes) for nodes in expected]
    assert [event.node for event in found.ops] == [node for nodes in expected for node in nodes]


def kernels_of(found: Sequence[tuple[int, int]]) -> DeviceEvents:
    return DeviceEvents.of(DeviceEvent("k", "a", "Relu", start, end, 0, "s") for start, end in found)


@given(st.lists(stretches, max_size=9), st.lists(stretches, max_size=4))
def test_a_device_is_busy_for_the_union_of_its_kernels(
    kernels: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    one_by_one, at_once = Busy(kernels), Busy.of(kernels_of(kernels))
    assert (one_by_one.starts_ns, one_by_one.ends_ns) == (at_once.starts_ns, at_once.ends_ns)
    assert at_once.all_within_ns(asked) == sum(one_by_one.within_ns(*interval) for interval in asked)


@pytest.mark.parametrize("first_ns", [0, 1_790_000_000_123_456_789])
@given(found=st.lists(stretches, min_size=1, max_size=9), bins=st.integers(1, 7))
def test_bins_are_filled_by_what_lies_in_them(first_ns: int, found: list[tuple[int, int]], bins: int) -> None:
    """Times since 1970 do not fit the digits of a fraction: borders of bins are then off by up to 128 ns, times not."""
    scale = 1_000_003
    moved = [(first_ns + start * scale, first_ns + end * scale) for start, end in found]
    whole = min(start for start, _ in moved), max(end for _, end in moved) + 1
    width = (whole[1] - whole[0]) / bins
    expected = [0.0] * bins
    for start, end in merged(moved):
        for number in range(bins):
            left, right = number * width, (number + 1) * width
            expected[number] += max(0.0, min(end - whole[0], right) - max(start - whole[0], left))
    shares = [min(1.0, value / width) for value in expected]
    assert binned(pairs(moved), whole, bins) == pytest.approx(shares, abs=1e-3)


# -- columns are sequences of events -------------------------------------------------------------------------------

ops = st.builds(
    OpEvent,
    st.sampled_from("ab"), st.sampled_from(["Relu", "Mul"]), moments, moments, moments,
    st.sampled_from([-5, 7, 2 << 64]), runs, st.booleans(),
)  # fmt: skip
kernels = st.builds(
    DeviceEvent,
    st.sampled_from("kl"), st.sampled_from("ab"), st.just("Relu"), moments, moments, st.integers(0, 2),
    st.sampled_from("st"), runs, st.sampled_from(["", "loop fusion"]), st.none() | moments, st.none() | moments,
)  # fmt: skip
executors = st.builds(Span, st.just("e"), moments, moments, st.sampled_from([-5, 7]), st.integers(), moments, runs)


@given(st.lists(ops), st.lists(kernels), st.lists(executors), st.data())
def test_columns_hold_the_events_that_they_were_made_of(
    some_ops: list[OpEvent], some_kernels: list[DeviceEvent], some_spans: list[Span], data: st.DataObject
) -> None:
    for kind, events in ((OpEvents, some_ops), (DeviceEvents, some_kernels), (Spans, some_spans)):
        held = kind.of(events)
        assert kind.of(held) is held
        assert list(held) == events
        assert held == tuple(events)
        assert tuple(events) == held
        assert list(by_start(held)) == sorted(events, key=lambda event: event.start_ns)
        cut = data.draw(st.integers(0, len(events)))
        assert list(held[cut:]) == events[cut:]
        assert kind.joined([held[:cut], held[cut:]]) == events
        if events:
            assert (held[0], held[-1]) == (events[0], events[-1])
    assert dict(OpEvents.of(some_ops).kinds_by_last()) == {op.node: op.op for op in some_ops}
    assert set(OpEvents.of(some_ops).by_run()) == {(op.run, op.node, op.op) for op in some_ops}
    totals = list(DeviceEvents.of(some_kernels).totals())
    assert sum(times for _, _, times, _ in totals) == len(some_kernels)
    assert sum(ns for _, _, _, ns in totals) == sum(kernel.end_ns - kernel.start_ns for kernel in some_kernels)
    by_device = {device: list(own) for device, own in DeviceEvents.of(some_kernels).by_device.items()}
    assert by_device == {
        number: [kernel for kernel in some_kernels if kernel.device == number]
        for number in {kernel.device for kernel in some_kernels}
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 9), st.booleans()), max_size=14))
def test_an_op_takes_the_median_of_the_steps_that_it_was_seen_in(events: list[tuple[int, str, int, bool]]) -> None:
    windows = spans([(10 * step, 10 * step + 10) for step in range(4)])
    ran = [
        OpEvent(node, "Relu", 10 * step + 1, 10 * step + 2, self_ns, 0, resumed=resumed)
        for step, node, self_ns, resumed in sorted(events)
    ]
    found = StepEvents.of(Profile(ops=tuple(ran)), OpEvents.of(ran), windows, Names(None)).on_host(Names(None))
    totals: dict[str, Counter[int]] = defaultdict(Counter)
    for step, node, self_ns, _ in events:
        totals[node][step] += self_ns
    calls = Counter(node for _, node, _, resumed in events if not resumed)
    assert {node: (seen.median_ns, seen.calls) for node, seen in found.items()} == {
        node: (round(median(per_step.values())), calls[node]) for node, per_step in totals.items()
    }
