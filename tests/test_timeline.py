"""The picture of a step: each thread does one thing at a time, and nothing lies outside of the step."""

from __future__ import annotations

from itertools import pairwise

from graphlens.facts.core import Facts
from graphlens.facts.rows.timeline import MOST_SPANS, timeline
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import Activity, Mark, OpEvent, Profile, Run, Span
from graphlens.ir.training import Timeline

PYTHON, COMPUTE, MORE, GET_NEXT, MAP = 1, 7, 8, 9, 10
STEP = "__inference_step_12"
STAGE = "Iterator::Root::ParallelMapV2"


def profile(count: int = 4, ops: int = 1) -> Profile:
    """Steps of 100 ns: called for 60, of which executors work from 20 to 50; an element is awaited, one prepared."""
    runs, executed, executors, activities, marks = [], [], [], [], []
    for number in range(count):
        at = 100 * number
        runs.append(Run(STEP, at, at + 60, PYTHON, traced=False))
        executors.append(Span("ExecutorState::Process", at + 20, at + 50, COMPUTE, run=number))
        executed.append(OpEvent("send", "_Send", at + 22, at + 48, 16, COMPUTE, number))
        executed.append(OpEvent("inner", "MatMul", at + 30, at + 40, 10, COMPUTE, number))
        for n in range(ops):  # each on a thread of its own, the first thousand twice as long
            begun, ns = at + 20 + n % 70, 1 + (n < 1000)
            executed.append(OpEvent(f"m{n}", "Mul", begun, begun + ns, ns, MORE + 100 * n, number))
        activities.append(Activity("input", "input", at + 5, at + 20, GET_NEXT, number))
        activities.append(Activity("eager", "OptionalHasValue", at + 65, at + 75, PYTHON))
        marks.append(Mark("read", at + 70, at + 95, PYTHON, "float(loss)"))
    mapped = OpEvent("GatherV2", "GatherV2", 110, 130, 20, MAP, count)
    runs.append(Run(STAGE, 100, 140, MAP))
    return Profile(
        runs=tuple(runs),
        ops=(*executed, mapped),
        executors=tuple(executors),
        activities=tuple(activities),
        marks=tuple(marks),
    )


def timeline_of(profile: Profile | None) -> Timeline | None:
    facts = Facts(Evidence(Target("t", "script"), profile=profile))
    found = facts(timeline)
    assert not facts.errors
    return found


def lanes(found: Timeline | None) -> dict[str, list[tuple[str, str, int, int]]]:
    assert found is not None
    return {lane.name: [(span.name, span.kind, span.start_ns, span.ns) for span in lane.spans] for lane in found.lanes}


def test_each_thread_is_a_lane_of_what_it_did_innermost() -> None:
    found = lanes(timeline_of(profile()))
    assert found["Python"] == [
        ("step", "call", 0, 20),
        ("step", "wait", 20, 30),
        ("step", "call", 50, 10),
        ("Python", "python", 60, 5),
        ("OptionalHasValue", "op", 65, 5),
        ("float(loss)", "wait", 70, 25),
        ("Python", "python", 95, 5),
    ]
    assert found["executor 1"] == [("send", "op", 22, 8), ("inner", "op", 30, 10), ("send", "op", 40, 8)]
    assert found["executor 2"] == [("m0", "op", 20, 2)]
    assert found["input 1"] == [("GatherV2", "input", 10, 20)]
    assert found["input 2"] == [("input", "wait", 5, 15)]


def test_a_step_that_traces_says_so_until_its_executors_work() -> None:
    traced = profile()
    runs = tuple(run._replace(traced=run.program == STEP) for run in traced.runs)
    found = lanes(timeline_of(Profile(runs=runs, ops=traced.ops, executors=traced.executors)))
    assert found["Python"][:2] == [("step", "trace", 0, 20), ("step", "wait", 20, 30)]


def test_spans_of_a_lane_lie_within_the_step_and_never_overlap() -> None:
    found = timeline_of(profile(ops=30))
    assert found is not None
    assert found.ns == 100
    for lane in found.lanes:
        assert lane.spans[0].start_ns >= 0
        assert lane.spans[-1].start_ns + lane.spans[-1].ns <= found.ns
        assert all(one.start_ns + one.ns <= after.start_ns for one, after in pairwise(lane.spans))


def test_of_too_many_spans_the_longest_are_drawn_and_the_others_counted() -> None:
    found = timeline_of(profile(ops=2 * MOST_SPANS))
    assert found is not None
    drawn = sum(len(lane.spans) for lane in found.lanes)
    others = len(lanes(found)["Python"]) + 3 + 2  # of the executor that runs another op within one, and of the input
    assert (drawn, found.omitted) == (1000 + others, 2 * MOST_SPANS - 1000)
    assert all(lane.spans for lane in found.lanes)


def test_without_steps_there_is_no_picture() -> None:
    assert timeline_of(None) is None
    assert timeline_of(profile(count=1)) is None
