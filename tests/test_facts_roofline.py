"""Ops under the roof, against hand counts: work over the roof is the least time, over the measured time the share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.work.roofline import is_under, roofline, time_at_roof_ns
from graphlens.ir.devices import Roof, RoofPoint
from graphlens.ir.run import OpEvent
from graphlens.testing.sketch import sketch

ROOF = "roof: 100 GFLOP/s 20 GB/s\n"


def points(text: str) -> dict[str, RoofPoint]:
    compared = Facts(sketch(ROOF + text))(roofline)
    assert compared is not None
    return {point.op: point for point in compared.points}


def test_a_product_is_limited_by_its_operations() -> None:
    """2 * 512^3 operations take 2.68 ms at 100 GFLOP/s, 3 MiB take 0.16 ms at 20 GB/s: the longer one counts."""
    point = points("x = Placeholder() float32[512,512]\ny = MatMul(x, x) float32[512,512] 10ms")["y"]
    assert (point.flops, point.bytes, point.ns) == (2 * 512**3, 3 * 512 * 512 * 4, 10_000_000)
    assert point.share == pytest.approx(2 * 512**3 / 100e9 / 10e-3)


def test_a_sum_is_limited_by_its_bytes() -> None:
    point = points("x = Placeholder() float32[1000,1000]\ny = AddV2(x, x) float32[1000,1000] 1ms\nz = Relu(y) 1us")["y"]
    assert point.share == pytest.approx(12e6 / 20e9 / 1e-3)


def test_what_only_moves_data_has_a_share_of_the_bandwidth() -> None:
    point = points("x = Placeholder() int32[1000,500]\np = Const() int32[2]\ny = Transpose(x, p) int32[500,1000] 1ms")[
        "y"
    ]
    assert point.flops == 0
    assert point.share == pytest.approx((4e6 + 8) / 20e9 / 1e-3)


def test_a_share_above_one_is_reported_as_it_is() -> None:
    point = points("x = Placeholder() float32[1000]\ny = Relu(x) float32[1000] 100ns\nz = Tanh(y) float32[1000] 9us")[
        "y"
    ]
    assert point.share == pytest.approx(4.0)  # 8,000 bytes in 100 ns: they came from a cache


def test_executions_of_one_step_are_added_up() -> None:
    point = points("x = Placeholder() float32[1000]\ny = Relu(x) float32[1000] 40us x10")["y"]
    assert (point.flops, point.bytes) == (10_000, 80_000)
    assert point.share == pytest.approx(0.1)


def test_the_steepness_of_the_roof_changes_where_both_limits_meet() -> None:
    roof = Roof(flops_per_s=100e9, bytes_per_s=20e9)
    assert time_at_roof_ns(roof, 5000, 1000) == pytest.approx(50)  # five operations per byte: both take 50 ns
    assert time_at_roof_ns(roof, 5000, 2000) == pytest.approx(100)
    assert time_at_roof_ns(roof, 10_000, 1000) == pytest.approx(100)


def test_ops_that_ran_beside_each_other_share_the_machine() -> None:
    """Two ops run from 0 to 100 us on two threads: each had the machine for half of the time."""
    text = ROOF + "x = Placeholder() float32[1000]\na = Relu(x) float32[1000] 100us\nb = Tanh(x) float32[1000] 1us"
    evidence = sketch(text)
    assert evidence.profile is not None
    beside = tuple(
        event._replace(thread=event.thread + 1, start_ns=first.start_ns, end_ns=first.end_ns, self_ns=first.self_ns)
        if event.node == "b"
        else event
        for first, event in _with_the_one_before(evidence.profile.ops)
    )
    profile = replace(evidence.profile, ops=tuple(sorted(beside, key=lambda event: event.start_ns)))
    compared = Facts(replace(evidence, profile=profile))(roofline)
    assert compared is not None
    assert {point.op: point.ns for point in compared.points} == {"a": 50_000, "b": 50_000}


def _with_the_one_before(events: tuple[OpEvent, ...]) -> list[tuple[OpEvent, OpEvent]]:
    return list(zip((events[0], *events[:-1]), events, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "y = Relu(x) float32[1000] not-seen",  # not timed
        "y = MyCustomOp(x) float32[1000] 9us",  # no formula
        "y = Softmax(x) float32[?] 9us",  # no shape
        "y = Reshape(x) float32[1000] 9us",  # nothing to do
        "y = AddV2(x, x) int32[1000] 9us",  # the roof is that of float32
        "y = Relu(x) float32[1000] 9us @GPU:0",  # the roof is that of the processor
    ],
)
def test_what_cannot_be_compared_is_not(text: str) -> None:
    assert "y" not in points(f"x = Placeholder() float32[1000]\n{text}\nz = Tanh(x) float32[1000] 1us")


def test_logical_processors_are_one_machine_and_accelerators_are_not() -> None:
    processor, accelerator = Roof(1, 1, device="CPU:0"), Roof(1, 1, device="GPU:0")
    assert [is_under(processor, device) for device in ("", "/device:CPU:1", "/device:GPU:0")] == [True, True, False]
    assert [is_under(accelerator, device) for device in ("", "/device:GPU:0", "/device:GPU:1")] == [False, True, False]


def test_rows_show_the_share() -> None:
    facts = Facts(sketch(ROOF + "x = Placeholder() float32[1000]\ny = Relu(x) float32[1000] 4us\nz = Foo(y) 1us"))
    assert {row.name: row.roof_share for row in facts(op_rows)} == {"x": None, "y": pytest.approx(0.1), "z": None}


def test_without_a_measured_roof_nothing_is_compared() -> None:
    facts = Facts(sketch("x = Placeholder() float32[1000]\ny = Relu(x) float32[1000] 4us"))
    assert facts(roofline) is None
    assert all(row.roof_share is None for row in facts(op_rows))


def test_a_profile_from_elsewhere_is_not_compared_with_the_roof_of_this_machine() -> None:
    evidence = sketch(ROOF + "x = Placeholder() float32[1000]\ny = Relu(x) float32[1000] 4us")
    assert Facts(replace(evidence, profile_path="other.xplane.pb"))(roofline) is None
