"""Loops: what their ops compute and how often they ran, against counts by hand."""

from __future__ import annotations

import re

from graphlens.facts.core import Facts
from graphlens.facts.flat.shapes import fill_shapes
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.attribution import attribute
from graphlens.facts.work.costs import Cost, cost_of
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.run import OpEvent, Profile, ReplayRecord, Span
from graphlens.testing.sketch import sketch

STEP_NS = 100_000

# A recurrent layer of 64 units with four gates, as the runtime lowers it: one row of state, times 64 x 256 weights.
LSTM = """
    zeros   = Const() float32[1,64]
    limit   = Const() int32[]
    enter   = Enter(zeros)
    merge   = Merge(enter)
    kernel  = ReadVariableOp(weights) float32[64,256]
    cond    = LoopCond(limit) bool[]
    switch  = Switch(merge, cond) float32[1,64]
    net/while/body/_9/net/while/MatMul_1 = MatMul(switch:1, kernel) float32[1,256]
    net/while/body/_9/net/while/Tanh     = Tanh(net/while/body/_9/net/while/MatMul_1) float32[1,256]
    exit    = Exit(switch:0)
"""


def test_the_state_of_a_loop_has_the_shape_that_its_switch_handed_on() -> None:
    """A run tells of a switch the output that was alive; by hand: 2 * 64 * 256 operations, 4 bytes an element."""
    graph = fill_shapes(sketch(LSTM).traced.main.graph)
    assert [graph.op(name).outputs[0].shape for name in ("enter", "merge", "exit")] == [(1, 64)] * 3
    product = cost_of(graph, "net/while/body/_9/net/while/MatMul_1")
    assert product == Cost(32_768, 4 * (64 + 64 * 256 + 256))


def test_a_merge_has_no_shape_that_only_its_first_iteration_tells() -> None:
    """A loop may give its variable another shape each time around."""
    grows = sketch(
        """
        once   = Const() float32[1,4]
        enter  = Enter(once) float32[1,4]
        merge  = Merge(enter)
        more   = Neg(merge)
        """
    )
    graph = fill_shapes(grows.traced.main.graph)
    assert [graph.op(name).outputs for name in ("merge", "more")] == [(), ()]


# -- calls ---------------------------------------------------------------------------------------------------------


def loop_profile(steps: int, seen: dict[str, int], seen_last: dict[str, int]) -> Profile:
    """Steps in which ops ran as often as told; in the last one the profiler saw less of them."""
    ops = []
    for step in range(steps):
        counts = seen_last if step == steps - 1 else seen
        for thread, (name, count) in enumerate(counts.items()):
            for number in range(count):
                start = step * STEP_NS + 1_000 * number
                ops.append(OpEvent(name, "MatMul", start, start + 100, 100, thread))
    spans = tuple(Span("graphlens_step", step * STEP_NS, (step + 1) * STEP_NS, 99) for step in range(steps))
    return Profile(ops=tuple(sorted(ops, key=lambda event: event.start_ns)), steps=spans)


BODY = "net/while/body/_9/net/while"
PRODUCT, CHEAP, RARE = f"{BODY}/MatMul_1", f"{BODY}/Tanh", f"{BODY}/Less"
BRANCH, CONDITION = f"{BODY}/cond/then/_20/Neg", "net/while/cond/_8/net/while/Less"
# The first of 31 steps is left out; 590 of the 600 executions of the rest are 19.67 a step.
SEEN = {PRODUCT: 20, CHEAP: 20, RARE: 3, BRANCH: 20, CONDITION: 21}
SEEN_LAST = {**SEEN, CHEAP: 10, BRANCH: 10}


def calls_of(profile: Profile, replay: dict[str, ReplayRecord], graph: Graph | None = None) -> dict[str, float]:
    evidence = Evidence(Target("net", "profile"), profile=profile, replay=replay, traced=graph)
    found = attribute(evidence, profile, graph.main.graph if graph else None)
    return {name: timing.calls_per_step for name, timing in found.timings.items()}


def test_an_op_of_a_loop_ran_as_often_as_the_loop_though_some_executions_left_no_event() -> None:
    calls = calls_of(loop_profile(31, SEEN, SEEN_LAST), {})
    assert (calls[PRODUCT], calls[CHEAP], calls[CONDITION]) == (20.0, 20.0, 21.0)


def test_the_same_holds_by_the_names_of_the_graph_as_written() -> None:
    """A profile that is joined to another recording of the model has the names of its functions, without numbers."""
    unnumbered = {re.sub(r"/_\d+(?=/)", "", name): name for name in SEEN}
    seen = {name: SEEN[numbered] for name, numbered in unnumbered.items()}
    last = {name: SEEN_LAST[numbered] for name, numbered in unnumbered.items()}
    calls = {unnumbered[name]: count for name, count in calls_of(loop_profile(31, seen, last), {}).items()}
    assert (calls[PRODUCT], calls[CHEAP], calls[CONDITION]) == (20.0, 20.0, 21.0)
    assert calls[BRANCH] == 590 / 30


def test_what_ran_in_some_iterations_only_or_was_hardly_seen_is_counted_as_it_was_seen() -> None:
    """A branch is not taken in every iteration, and what is missing of an op's time must not be counted."""
    calls = calls_of(loop_profile(31, SEEN, SEEN_LAST), {})
    assert calls[RARE] == 3.0
    assert calls[BRANCH] == 590 / 30


def test_where_a_replay_saw_every_execution_its_count_is_the_one() -> None:
    """All ops of the body are cheap, so that the profile alone cannot tell how often the loop ran."""
    graph = Graph("net", {"net": sketch(f"x = Placeholder() float32[2]\n{CHEAP} = Tanh(x) float32[2]").traced.main})
    replay = {CHEAP: ReplayRecord(CHEAP, 20, (90_000,))}
    assert calls_of(loop_profile(31, {CHEAP: 20}, {CHEAP: 10}), replay, graph) == {CHEAP: 20.0}
    few = attribute(
        Evidence(Target("net", "profile"), replay=replay),
        loop_profile(31, {CHEAP: 9}, {CHEAP: 9}),
        graph.main.graph,
    ).timings[CHEAP]
    assert (few.calls_per_step, few.source, few.self_ns) == (20.0, "replay", 90_000), "too few were seen to be timed"


def test_the_rows_of_a_loop_say_what_one_execution_computes_and_how_often_it_ran() -> None:
    evidence = sketch(LSTM.replace("float32[1,256]\n    net", "float32[1,256] 3us x20\n    net"))
    row = Facts(evidence)(op_rows).find(PRODUCT)
    assert row is not None
    assert (row.flops, row.calls_per_step) == (32_768, 20.0)
