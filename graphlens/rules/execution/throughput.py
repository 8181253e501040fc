"""Rules about ops that the machine could run faster than it does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.savings import saving_at
from graphlens.facts.work.roofline import roofline, time_at_roof_ns
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import Roof, RoofPoint
from graphlens.ir.ops import runtime_type
from graphlens.rules.execution.granularity import CHEAP_OP_NS
from graphlens.rules.needs import EXECUTED, PROFILE, ROOF, Need
from graphlens.rules.registry import found, rule
from graphlens.units import (
    counted,
    format_byte_rate,
    format_bytes,
    format_flop_rate,
    format_flops,
    format_ns,
    format_share,
)

# An order of magnitude.  What separates a sound kernel from the roof is less: an output that is not in the cache is
# read before it is written (two thirds of the roof remain), and on a shared machine half of the processor may be gone.
FAR_BELOW_SHARE: Final = 0.10
# Below that, making the ops of one kind as fast as the machine saves less than a hundredth of the step.
NOTABLE_SHARE: Final = 0.01
# A median over fewer steps is none.
FEWEST_STEPS: Final = 3
OPS_LISTED: Final = 20

SEVERAL_STEPS = Need(
    f"{FEWEST_STEPS} profiled steps",
    lambda facts: len(facts(attribution).wall_ns) >= FEWEST_STEPS,
    lambda facts: f"only {counted(len(facts(attribution).wall_ns), 'step')} were profiled; record with more --steps",
)


@rule("GL505", "slow-op", needs=(EXECUTED, PROFILE, SEVERAL_STEPS, ROOF))
def slow_op(facts: Facts) -> Iterator[Finding]:
    """Ops that take a notable time and reach less than a tenth of what this machine can do.

    ## What it finds

    Ops that take ten times as long and longer than their operations and bytes would at the machine's measured roof, one
    finding for each type of op that loses a hundredth of the step and more in that way.

    ## Why it costs

    No work makes these ops slow, so they can be faster as they are. The kernel was made for other shapes: an innermost
    dimension of 1 or 3, a broadcast along it, a product with one row, a filter that is reordered in every call because
    it is a variable.

    ## Example

    ```bad
    roof: 100 GFLOP/s 20 GB/s
    x = Placeholder() float32[1000,1000]
    m = Const() float32[1,1000]
    y = Sub(x, m) float32[1000,1000] 9ms
    z = Relu(y) float32[1000,1000] 500us
    ```

    ```good
    roof: 100 GFLOP/s 20 GB/s
    x = Placeholder() float32[1000,1000]
    m = Const() float32[1,1000]
    y = Sub(x, m) float32[1000,1000] 600us
    z = Relu(y) float32[1000,1000] 500us
    ```

    ## Fix

    Give the kernel a shape that it is fast on (join small dimensions, move the long one to the end, put the channels of
    images last), freeze the weights, let the op be fused with its neighbours, or write it with other ops.

    ## When it is fine

    Where the op is more work than its formula says: a transcendental function counts as one operation per element.
    An op whose work would take less than 3 us at the roof is not reported: dispatching it is dearer
    (`op-overhead-bound`).

    ## Source

    FLOPs and bytes from the shapes, times from the profile (an op that ran beside others counts with its part of the
    processor), the roof from products of large matrices and a sum of large tensors that were timed after the model, in
    the same process and threads; of a TPU, work and peaks as its profile states them. The saving is a bound: the time
    above the roof. An op can also be above it: its tensors came from a cache, or its algorithm needs fewer operations
    (Winograd convolution).
    """
    compared = facts(roofline)
    assert compared is not None  # its need is met
    kinds: dict[str, list[RoofPoint]] = defaultdict(list)
    for point in compared.points:
        if _is_slow(facts, compared.roof, point):
            kinds[runtime_type(point.type).removeprefix("_")].append(point)
    for kind, points in kinds.items():
        saving = saving_at(facts, {point.op: point.share for point in points})
        if saving.share is not None and saving.share >= NOTABLE_SHARE:
            yield replace(_slow_finding(facts, compared.roof, kind, points), saving=replace(saving, origin="bound"))


def _is_slow(facts: Facts, roof: Roof, point: RoofPoint) -> bool:
    timing = facts(timings).get(point.op)
    calls = timing.calls_per_step if timing else 1
    return point.share < FAR_BELOW_SHARE and time_at_roof_ns(roof, point.flops, point.bytes) >= CHEAP_OP_NS * calls


def _slow_finding(facts: Facts, roof: Roof, kind: str, points: Sequence[RoofPoint]) -> Finding:
    ns = sum(point.ns for point in points)
    at_roof_ns = round(sum(time_at_roof_ns(roof, point.flops, point.bytes) for point in points))
    return found(
        title=f"{counted(len(points), f'{kind} op')} {'reaches' if len(points) == 1 else 'reach'} "
        f"{format_share(at_roof_ns / ns)} of what this machine can do",
        nodes=[point.op for point in points],
        evidence={
            "reached_share": at_roof_ns / ns,
            "ns": ns,
            "at_roof_ns": at_roof_ns,
            "roof_flops_per_s": roof.flops_per_s,
            "roof_bytes_per_s": roof.bytes_per_s,
            "ops": [_listed(facts, roof, point) for point in points[:OPS_LISTED]],
        },
        reason=_reason(roof, points, ns, at_roof_ns),
        fix=Fix(
            "Give the kernel shapes that it is fast on, fixed weights or fused neighbours, or replace the op", "manual"
        ),
    )


def _reason(roof: Roof, points: Sequence[RoofPoint], ns: int, at_roof_ns: int) -> str:
    flops, nbytes = sum(point.flops for point in points), sum(point.bytes for point in points)
    rates = f"{format_flop_rate(roof.flops_per_s)} and {format_byte_rate(roof.bytes_per_s)}"
    known = "were measured on" if roof.origin == "measured" else "the profile states of"
    return (
        f"{format_flops(flops)} and {format_bytes(nbytes)} would take {format_ns(at_roof_ns)} at the {rates} that "
        f"{known} {roof.device or 'this machine'}; they took {format_ns(ns)} per step, which their work does not "
        "explain"
    )


def _listed(facts: Facts, roof: Roof, point: RoofPoint) -> dict[str, Any]:
    by_bytes = point.bytes / roof.bytes_per_s >= point.flops / roof.flops_per_s
    graph = facts(judged_graph)
    return {
        "op": point.op,
        "ns": point.ns,
        "reached_share": point.share,
        "limit": "memory bandwidth" if by_bytes else "arithmetic",
        "output": ", ".join(map(str, graph.op(point.op).outputs)) if point.op in graph else None,
    }
