"""Rules about ops that the machine could run faster than it does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.flat.scopes import is_gradient
from graphlens.facts.graphs import is_training, judged_graph, weights
from graphlens.facts.patterns.relayout import needless_transposes
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.savings import saving_at
from graphlens.facts.work.roofline import roofline, time_at_roof_ns
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.devices import Roof, RoofPoint
from graphlens.ir.ops import runtime_type
from graphlens.rules.execution.granularity import CHEAP_OP_NS
from graphlens.rules.execution.op_forms import Form, Kind, form_of
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
# More phrases about what the ops are than these nobody reads; the evidence has one per type.
FORMS_TOLD: Final = 3

# What helps ops of a kind; of those that are not named, what helps any kernel.
_ADVICE: Final[Mapping[Kind, str]] = {
    "product": "write what is a matrix product as one (tf.matmul of reshaped tensors), where that is measured to pay",
    "reshape": "write the transpose as a reshape, which moves nothing",
    "move": "move less: let neighbours agree on a layout, cut before the work instead of after it, join moves to one",
    "vector": "compute several inputs in one call, so that each weight that is read is used more than once",
    "small-products": "join small products to a large one",
    "lookup": "look up each row once, and keep the table in a type of fewer bytes",
}
GENERAL_ADVICE: Final = (
    "give the kernel shapes that it is fast on, fixed weights or fused neighbours, or replace the op"
)

SEVERAL_STEPS = Need(
    f"{FEWEST_STEPS} profiled steps",
    lambda facts: len(facts(attribution).wall_ns) >= FEWEST_STEPS,
    lambda facts: f"only {counted(len(facts(attribution).wall_ns), 'step')} were profiled; record with more --steps",
)


@rule("GL505", "slow-op", needs=(EXECUTED, PROFILE, SEVERAL_STEPS, ROOF))
def slow_op(facts: Facts) -> Iterator[Finding]:
    """Ops that take a notable time and reach less than a tenth of what this machine can do.

    ## What it finds

    Ops that take ten times as long and longer than their operations and bytes would at the machine's measured roof, of
    all types of op that lose a hundredth of the step and more in that way. It is one finding, behind those that say
    what to change; it tells what the ops are besides their type, where their shapes say it.

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
    (`op-overhead-bound`). A transpose that nobody needs is not one of these either (`redundant-transpose`), nor is work
    on weights alone, which is better not done in every step (`unfolded-constant`, `weight-preparation`).

    ## Source

    FLOPs and bytes from the shapes, times from the profile (an op that ran beside others counts with its part of the
    processor), the roof from products of large matrices and a sum of large tensors that were timed after the model, in
    the same process and threads; of a TPU, work and peaks as its profile states them. The saving is a bound: the time
    above the roof. An op can also be above it: its tensors came from a cache, or its algorithm needs fewer operations
    (Winograd convolution).
    """
    compared = facts(roofline)
    assert compared is not None  # its need is met
    slow: dict[str, list[RoofPoint]] = defaultdict(list)
    needless = {name for region in facts(needless_transposes) for name in region.vanishing}
    for point in compared.points:
        if point.op not in needless and _is_slow(facts, compared.roof, point):
            slow[runtime_type(point.type).removeprefix("_")].append(point)
    notable = {kind: points for kind, points in slow.items() if _is_notable(_saving(facts, points))}
    if notable:
        yield _finding(facts, compared.roof, notable)


def _is_slow(facts: Facts, roof: Roof, point: RoofPoint) -> bool:
    timing = facts(timings).get(point.op)
    calls = timing.calls_per_step if timing else 1
    notable_ns = CHEAP_OP_NS * calls
    is_slow = point.share < FAR_BELOW_SHARE and time_at_roof_ns(roof, point.flops, point.bytes) >= notable_ns
    return is_slow and point.op not in facts(weights).ops  # no shape helps what is better not done in every step


def _saving(facts: Facts, points: Sequence[RoofPoint]) -> Saving:
    """Return the time above the roof, as a share of the steps that were profiled: never more than the ops took."""
    saving, step = saving_at(facts, {point.op: point.share for point in points}), facts(step_time)
    if saving.share is None or step is None:
        return saving
    above_ns = sum(point.ns * (1 - point.share) for point in points)
    share = min(saving.share, above_ns / step.profiled_ns)
    return Saving(round(share * step.median_ns), share, "bound")


def _is_notable(saving: Saving) -> bool:
    return saving.share is not None and saving.share >= NOTABLE_SHARE


def _finding(facts: Facts, roof: Roof, slow: Mapping[str, Sequence[RoofPoint]]) -> Finding:
    points = sorted((point for points in slow.values() for point in points), key=lambda point: -point.ns)
    forms = {point.op: _form(facts, point.op) for point in points}
    ns, at_roof_ns = _ns(points), _at_roof_ns(roof, points)
    return found(
        title=f"{_called(slow)} {'reaches' if len(points) == 1 else 'reach'} "
        f"{format_share(at_roof_ns / ns)} of what this machine can do",
        nodes=[point.op for point in points],
        evidence={
            "reached_share": at_roof_ns / ns,
            "ns": ns,
            "at_roof_ns": at_roof_ns,
            "roof_flops_per_s": roof.flops_per_s,
            "roof_bytes_per_s": roof.bytes_per_s,
            "types": [_of_type(roof, kind, of_kind, forms) for kind, of_kind in _by_time(slow)],
            "ops": [_listed(facts, roof, point) for point in points[:OPS_LISTED]],
        },
        reason=_reason(roof, points, forms),
        saving=_saving(facts, points),
        fix=Fix(_advice(form.kind if form else None for form in forms.values()), "manual"),
        general=True,
    )


def _called(slow: Mapping[str, Sequence[RoofPoint]]) -> str:
    """Name the ops by their type, or by how many types they are of."""
    count = sum(map(len, slow.values()))
    if len(slow) == 1:
        return counted(count, f"{next(iter(slow))} op")
    return f"{counted(count, 'op')} of {len(slow)} types"


def _form(facts: Facts, name: str) -> Form | None:
    graph = facts(judged_graph)
    return form_of(graph, name, trains=facts(is_training) or is_gradient(name)) if name in graph else None


def _by_time(slow: Mapping[str, Sequence[RoofPoint]]) -> list[tuple[str, Sequence[RoofPoint]]]:
    return sorted(slow.items(), key=lambda item: -_ns(item[1]))


def _ns(points: Iterable[RoofPoint]) -> int:
    return sum(point.ns for point in points)


def _at_roof_ns(roof: Roof, points: Iterable[RoofPoint]) -> int:
    return round(sum(time_at_roof_ns(roof, point.flops, point.bytes) for point in points))


# -- in words -----------------------------------------------------------------------------------------------------


def _reason(roof: Roof, points: Sequence[RoofPoint], forms: Mapping[str, Form | None]) -> str:
    known = "were measured on" if roof.origin == "measured" else "the profile states of"
    what = _commonest(form.words for form in forms.values() if form)
    return (
        f"{_work(points)} would take {format_ns(_at_roof_ns(roof, points))} at the {_rates(roof, points)} that "
        f"{known} {roof.device or 'this machine'}; they took {format_ns(_ns(points))} per step, which their work does "
        f"not explain" + (f". What they are: {what}" if what else "")
    )


def _work(points: Sequence[RoofPoint]) -> str:
    """Say what there is to do; who only moves data has no operations to be told of."""
    flops, nbytes = sum(point.flops for point in points), sum(point.bytes for point in points)
    return f"{format_flops(flops)} and {format_bytes(nbytes)}" if flops else f"{format_bytes(nbytes)} to be moved"


def _rates(roof: Roof, points: Sequence[RoofPoint]) -> str:
    of_bytes = format_byte_rate(roof.bytes_per_s)
    return f"{format_flop_rate(roof.flops_per_s)} and {of_bytes}" if any(point.flops for point in points) else of_bytes


def _commonest(phrases: Iterable[str]) -> str:
    counts = Counter(phrases)
    return "; ".join(
        f"{counted(count, 'op')}: {phrase}" if len(counts) > 1 else phrase
        for phrase, count in counts.most_common(FORMS_TOLD)
    )


def _advice(kinds: Iterable[Kind | None]) -> str:
    """Say what helps ops of these kinds: the commonest first."""
    counts = Counter(_ADVICE.get(kind, GENERAL_ADVICE) if kind else GENERAL_ADVICE for kind in kinds)
    text = "; ".join(advice for advice, _ in counts.most_common())
    return text[:1].upper() + text[1:]


def _of_type(roof: Roof, kind: str, points: Sequence[RoofPoint], forms: Mapping[str, Form | None]) -> dict[str, Any]:
    ns, at_roof_ns = _ns(points), _at_roof_ns(roof, points)
    return {
        "type": kind,
        "ops": len(points),
        "ns": ns,
        "at_roof_ns": at_roof_ns,
        "reached_share": at_roof_ns / ns,
        "what_they_are": _commonest(form.words for point in points if (form := forms[point.op])) or None,
    }


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
