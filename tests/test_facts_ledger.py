"""The ledger conserves time: against a naive division of every nanosecond, on random profiles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.facts.clock.division import COPY, DISPATCH, EXECUTOR, HANDOFF
from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import attribute
from graphlens.facts.time.ledger import apportion, ledger, step_time
from graphlens.facts.time.savings import call_share, saving_without
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.ops import family
from graphlens.ir.run import CopyEvent, DeviceEvent, OpEvent, Profile, ProfiledDevice, Span
from graphlens.testing.sketch import sketch

STEP_NS = 40


def spans(name: str, most: int) -> st.SearchStrategy[list[Span]]:
    bounds = st.tuples(st.integers(0, 2 * STEP_NS), st.integers(1, STEP_NS))
    return st.lists(bounds.map(lambda b: Span(name, b[0], b[0] + b[1], 99)), max_size=most)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Two adjacent steps with overlapping ops on several threads, executors, function runs, kernels and copies."""
    bounds = st.tuples(st.sampled_from(["Conv2D", "MatMul", "Relu"]), st.integers(0, 79), st.integers(1, 20))
    ops = [
        OpEvent(f"op{index}", kind, start, start + length, length, index)
        for index, (kind, start, length) in enumerate(draw(st.lists(bounds, max_size=8)))
    ]
    # A kernel may be that of an op that ran on the host as well.
    kernels = [
        DeviceEvent("kernel", f"op{index}", kind, start, start + length, 0, "Stream #1(Compute)")
        for index, (kind, start, length) in enumerate(draw(st.lists(bounds, max_size=3)))
    ]
    copies = [
        CopyEvent("host-to-device", "", "", start, start + length, 0, "Stream #2(MemcpyH2D)")
        for _, start, length in draw(st.lists(bounds, max_size=3))
    ]
    steps = (Span("graphlens_step", 0, STEP_NS, 0), Span("graphlens_step", STEP_NS, 2 * STEP_NS, 0))
    return Profile(
        devices=(ProfiledDevice("GPU:0"),),
        kernels_on_device=tuple(kernels),
        copies=tuple(copies),
        ops=tuple(sorted(ops, key=lambda event: event.start_ns)),
        steps=steps,
        executors=tuple(draw(spans("ExecutorState::Process", 4))),
        functions=tuple(draw(spans("FunctionRun", 3))),
    )


def evidence(profile: Profile, unprofiled_ns: tuple[int, ...] = ()) -> Evidence:
    return Evidence(Target("model", "saved_model"), profile=profile, unprofiled_ns=unprofiled_ns)


def naive_division(profile: Profile) -> Counter[str]:
    """Ask of every single nanosecond what was active in it."""
    shares: Counter[str] = Counter()
    for instant in range(2 * STEP_NS):
        kernels = {event.node for event in profile.kernels_on_device if event.start_ns <= instant < event.end_ns}
        running = {event.node for event in profile.ops if event.start_ns <= instant < event.end_ns}
        if kernels:
            for node in kernels:
                shares[node] += Fraction(1, len(kernels))
        elif any(copy.start_ns <= instant < copy.end_ns for copy in profile.copies):
            shares[COPY] += 1
        elif running:
            for node in running:
                shares[node] += Fraction(1, len(running))
        elif any(span.start_ns <= instant < span.end_ns for span in profile.executors):
            shares[EXECUTOR] += 1
        elif any(span.start_ns <= instant < span.end_ns for span in profile.functions):
            shares[HANDOFF] += 1
        else:
            shares[DISPATCH] += 1
    return shares


@given(profiles())
def test_every_nanosecond_of_a_step_is_given_once(profile: Profile) -> None:
    found = attribute(evidence(profile), profile, None).active_ns
    expected = naive_division(profile)
    assert set(found) == set(expected)
    assert all(found[key] == pytest.approx(float(expected[key])) for key in expected)
    assert sum(found.values()) == pytest.approx(2 * STEP_NS)


def test_what_runs_nested_in_an_op_is_not_the_ops_own() -> None:
    """A `_Send` of 30 ns runs a receiver for 20 ns, in which a MatMul takes 15 ns."""
    profile = Profile(
        ops=(OpEvent("send", "_Send", 5, 35, 10, 1), OpEvent("matmul", "MatMul", 12, 27, 15, 1)),
        steps=(Span("graphlens_step", 0, 40, 0),),
        executors=(Span("ExecutorState::Process", 5, 38, 1), Span("ExecutorState::Process", 10, 30, 1)),
    )
    found = attribute(evidence(profile), profile, None).active_ns
    assert found == {"send": 10, "matmul": 15, EXECUTOR: 8, DISPATCH: 7}


@given(profiles(), st.lists(st.integers(1, 10**9), max_size=5))
def test_the_rows_sum_to_the_step_exactly(profile: Profile, unprofiled_ns: list[int]) -> None:
    case = evidence(profile, tuple(unprofiled_ns))
    facts = Facts(case)
    step, rows = facts(step_time), facts(ledger)
    assert step is not None
    assert sum(row.ns for row in rows) == step.median_ns
    assert all(row.ns >= 0 for row in rows)
    ops = {row.category for row in rows if row.kind == "op"}
    assert ops <= {family(event.op) for event in (*profile.ops, *profile.kernels_on_device)} | {"copy"}


@given(st.integers(0, 10**12), st.lists(st.floats(0.001, 1e9), min_size=1, max_size=20))
def test_apportioned_parts_are_close_and_sum(total: int, weights: list[float]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    exact = [Fraction(total) * Fraction(weight) / sum(map(Fraction, weights)) for weight in weights]
    assert all(abs(part - value) <= 1 + total * 1e-12 for part, value in zip(parts, exact, strict=True))


def test_what_can_be_divided_without_a_rest_is() -> None:
    assert apportion(39, [1, 1, 1, 5, 7, 11, 13]) == [1, 1, 1, 5, 7, 11, 13]


DISPATCHED = """
gap: 20us
a = Placeholder() float32[8]
b = Tanh(a) float32[8] 40us
c = Tanh(b) float32[8] 40us
out = _Retval(c)
"""


def test_an_op_that_vanishes_takes_its_part_of_the_call_with_it() -> None:
    """Beyond what an empty call takes; unmeasured, nothing is claimed."""
    unmeasured = Facts(sketch(DISPATCHED))
    (dispatch_ns,) = [row.ns for row in unmeasured(ledger) if row.category.startswith("dispatch")]
    assert unmeasured(step_time) is not None
    assert unmeasured(call_share) == 0.0
    measured = Facts(replace(unmeasured.evidence, empty_call_ns=dispatch_ns // 4))
    assert measured(call_share) == pytest.approx(0.75 * dispatch_ns / unmeasured(step_time).median_ns, rel=1e-3)
    before, after = saving_without(unmeasured, ["b"]).share, saving_without(measured, ["b"]).share
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(measured(call_share) / len(measured(judged_graph)))


def test_an_empty_call_that_takes_longer_than_the_dispatch_leaves_nothing() -> None:
    assert Facts(replace(sketch(DISPATCHED), empty_call_ns=10**9))(call_share) == 0.0


def test_without_a_profile_the_step_is_unattributed() -> None:
    case = Evidence(Target("model", "saved_model"), unprofiled_ns=(10, 20, 30))
    assert [(row.category, row.ns) for row in Facts(case)(ledger)] == [("unattributed", 20)]


def test_nothing_measured_has_no_step() -> None:
    facts = Facts(Evidence(Target("model", "saved_model")))
    assert facts(step_time) is None
    assert facts(ledger) == ()
