"""Rules about values that are computed more often than needed within one step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, judged_stage, origins
from graphlens.facts.patterns.invariants import invariants_by_loop, stands_open
from graphlens.facts.patterns.repeats import Repeat, repeats
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import HoistInvariant, Ops, ShareComputation
from graphlens.rules.needs import EXECUTED, TRACED
from graphlens.rules.phrases import known_sum, with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted

GROUPS_LISTED: Final = 20
# A value of fewer elements costs less to compute again than to carry into the loop.
FEWEST_ELEMENTS: Final = 64


@rule("GL209", "repeated-computation", needs=(EXECUTED,))
def repeated_computation(facts: Facts) -> Iterator[Finding]:
    """Ops that compute what another op has computed already in the same step.

    ## What it finds

    Ops of the executed graph with the same type, attributes, device and inputs, where the inputs are equal if they are
    the same tensor, equal constants, reads of a variable that the step never writes, or repeated computations.

    ## Why it costs

    The value is there; computing it again is work for nothing. Grappler shares equal ops, but not what is computed
    from two reads of one variable, since it cannot know that nobody writes it between them.

    ## Example

    ```bad
    x     = Placeholder() float32[64,64]
    once  = ReadVariableOp(kernel) float32[64,64]
    again = ReadVariableOp(kernel) float32[64,64]
    a     = MatMul(x, once) float32[64,64] 80us
    b     = MatMul(x, again) float32[64,64] 80us
    left  = Relu(a) float32[64,64] 10us
    right = Tanh(b) float32[64,64] 10us
    one   = _Retval(left)
    two   = _Retval(right)
    ```

    ```good
    x     = Placeholder() float32[64,64]
    once  = ReadVariableOp(kernel) float32[64,64]
    a     = MatMul(x, once) float32[64,64] 80us
    left  = Relu(a) float32[64,64] 10us
    right = Tanh(a) float32[64,64] 10us
    one   = _Retval(left)
    two   = _Retval(right)
    ```

    ## Fix

    Call the layer once and use its result twice.

    ## When it is fine

    When another part of the program writes the variable in the middle of a step.

    ## Source

    Value numbering of the executed graph. Ops with a state or a side effect (random numbers, tables, prints) are never
    equal; what never changes at all is counted by `unfolded-constant`.
    """
    groups = [group for group in facts(repeats) if _is_worth_it(facts, group)]
    again = [name for group in groups for name in group.ops[1:]]
    if not again:
        return
    graph = facts(judged_graph)
    yield found(
        title=f"{counted(len(again), 'op')} {'computes' if len(again) == 1 else 'compute'} what is computed already",
        nodes=dict.fromkeys(name for group in groups for name in group.ops),
        evidence={
            "groups": [_group(facts, group) for group in groups[:GROUPS_LISTED]],
            "op_types": dict(Counter(graph.op(name).type for name in again).most_common()),
        },
        reason="; ".join(dict.fromkeys(_why_not_shared(group) for group in groups)),
        saving=saving_without(facts, again),
        removes=again,
        fix=Fix("Compute it once and use the result twice", "exact", tuple(_edit(facts, group) for group in groups)),
    )


def _is_worth_it(facts: Facts, group: Repeat) -> bool:
    times = facts(timings)
    return not facts(attribution).timings or any(times.get(name) for name in group.ops[1:])


def _group(facts: Facts, group: Repeat) -> Mapping[str, Any]:
    again = group.ops[1:]
    times = facts(timings)
    return {
        "first": group.ops[0],
        "again": list(again),
        "type": facts(judged_graph).op(group.ops[0]).type,
        "ns": known_sum([timing.self_ns if (timing := times.get(name)) else None for name in again]),
    }


def _edit(facts: Facts, group: Repeat) -> ShareComputation:
    origin_of = facts(origins)
    written = tuple(sources[-1] for name in group.ops if (sources := origin_of.get(name)))
    return ShareComputation(Ops(group.ops, traced=written))


def _why_not_shared(group: Repeat) -> str:
    if group.through_reads:
        return "the inputs come from several reads of one variable, which Grappler must not take for equal"
    if group.waits_differ:
        return "the ops wait for different ops by control edges, so Grappler keeps both"
    if not group.same_inputs:
        return "their inputs are themselves computed twice"
    return "why Grappler did not share them was not established"


@rule("GL211", "loop-invariant-op", needs=(TRACED,))
def loop_invariant_op(facts: Facts) -> Iterator[Finding]:
    """Ops in the body of a loop that compute the same in every iteration.

    ## What it finds

    Ops of a `while` body that depend only on constants, on variables that the loop never writes, and on loop variables
    that the body hands on unchanged. Results below 64 elements are left out. One finding for each loop.

    ## Why it costs

    The work is done once for each iteration instead of once. Grappler moves such ops out of loops only when its loop
    optimizer is set to aggressive, which it is not by default.

    ## Example

    ```bad
    i    = Placeholder() int32[]
    x    = Placeholder() float32[8,64]
    w    = Placeholder() float32[64,64]
    loop = While(i, x, w) int32[] float32[8,64] float32[64,64] {cond: more, body: once}
    out  = _Retval(loop:1)
    function more:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    ten  = Const() int32[] = 10
    less = Less(i, ten) bool[]
    go   = _Retval(less)
    function once:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    one  = Const() int32[] = 1
    next = AddV2(i, one) int32[]
    soft = Softmax(w) float32[64,64]
    y    = MatMul(x, soft) float32[8,64]
    r0   = _Retval(next)
    r1   = _Retval(y)
    r2   = _Retval(w)
    ```

    ```good
    i    = Placeholder() int32[]
    x    = Placeholder() float32[8,64]
    w    = Placeholder() float32[64,64]
    soft = Softmax(w) float32[64,64] 20us
    loop = While(i, x, soft) int32[] float32[8,64] float32[64,64] {cond: more, body: once}
    out  = _Retval(loop:1)
    function more:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    ten  = Const() int32[] = 10
    less = Less(i, ten) bool[]
    go   = _Retval(less)
    function once:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    one  = Const() int32[] = 1
    next = AddV2(i, one) int32[]
    y    = MatMul(x, w) float32[8,64]
    r0   = _Retval(next)
    r1   = _Retval(y)
    r2   = _Retval(w)
    ```

    ## Fix

    Compute it before the loop, and use the result in the body.

    ## When it is fine

    When the loop mostly runs zero times or once, or memory is short: the result stays alive as long as the loop runs.

    ## Source

    The loop's body in the graph as written, for the ops that ran. Ops in loops are timed by a replay that inflates
    them, so the time per step is shown as such and no saving is promised from it.
    """
    for loop, names in facts(invariants_by_loop).items():
        ops = [name for name in names if _is_large(facts, name)]
        if ops:
            yield _invariant(facts, loop, ops)


def _is_large(facts: Facts, name: str) -> bool:
    elements = [spec.elements for spec in facts(judged_graph).op(name).outputs]
    return not elements or any(count is None or count >= FEWEST_ELEMENTS for count in elements)


def _invariant(facts: Facts, loop: str, ops: Sequence[str]) -> Finding:
    times = facts(timings)
    seen = [timing for name in ops if (timing := times.get(name))]
    iterations = max((timing.calls_per_step for timing in seen), default=None)
    verb = "computes" if len(ops) == 1 else "compute"
    graph = facts(judged_graph)
    return found(
        title=f"{counted(len(ops), 'op')} of a loop {verb} the same in every iteration",
        nodes=ops,
        evidence={
            "loop": loop,
            "op_types": dict(Counter(graph.op(name).type for name in ops).most_common()),
            "iterations_per_step": None if iterations is None else round(iterations),
            "ns_per_step": known_sum([timing.self_ns for timing in seen]),
            "timed_by": sorted({timing.source for timing in seen}),
        },
        reason=with_stage(
            facts,
            "their inputs do not change while the loop runs, and Grappler's loop optimizer leaves them in the body",
        ),
        saving=_saving(facts, ops, iterations),
        fix=Fix(
            "Compute it before the loop",
            "exact",
            _hoist(facts, loop, ops),
        ),
        floor="low",
    )


def _hoist(facts: Facts, loop: str, ops: Sequence[str]) -> tuple[HoistInvariant, ...]:
    if not stands_open(facts, loop):
        return ()  # nor has a loop of TensorFlow 1 an op of its own: only a person can rewrite these
    return (HoistInvariant(loop, Ops(tuple(ops), traced=tuple(_written(facts, ops)))),)


def _saving(facts: Facts, ops: Sequence[str], iterations: float | None) -> Saving:
    """All iterations but one, of what the profile itself timed; the replay's times rank ops and are no saving."""
    whole = saving_without(facts, ops)
    if whole.ns is None or whole.share is None or not iterations or iterations <= 1:
        return Saving()
    part = 1 - 1 / iterations
    return Saving(round(whole.ns * part), whole.share * part, whole.origin)


def _written(facts: Facts, ops: Sequence[str]) -> list[str]:
    if facts(judged_stage) == "traced":
        return list(ops)
    origin_of = facts(origins)
    return [sources[-1] for name in ops if (sources := origin_of.get(name))]
