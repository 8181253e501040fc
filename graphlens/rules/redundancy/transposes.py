"""Rule about transposes that nobody would need if the ops between them worked on the order of axes that comes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.relayout import needless_transposes
from graphlens.facts.time.savings import saving_at, saving_without
from graphlens.facts.work.costs import cost_of
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import Ops, RemoveTransposes
from graphlens.ir.ops import runtime_type
from graphlens.ir.relayout import Relayout
from graphlens.rules.needs import GRAPH
from graphlens.rules.phrases import known_sum, with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import format_share

KINDS_NAMED: Final = 4
FEW_LEFT_SHARE: Final = 0.01  # of the elements transposed; less is not worth a word


@rule("GL207", "redundant-transpose", needs=(GRAPH,))
def redundant_transpose(facts: Facts) -> Iterator[Finding]:
    """Transposes that undo each other, whatever lies between them that may as well work on the other order of axes.

    ## What it finds

    `Transpose` ops with known permutations that are not needed once the ops between them work on the order of axes that
    comes in. Such ops are those that compute elementwise (also with two inputs, or with one tensor on two ways),
    with constants, and with weights per channel; pads, slices, splits, concatenations; reductions, cumulative sums
    and softmax along axes; and reshapes that join or split neighbouring axes. Single transposes whose permutation is
    the identity are found too, and two in turn that are one.

    ## Why it costs

    Each one reads and writes its whole tensor, against the order in which memory is laid out. They appear where
    channels-first code meets a channels-last runtime, and around converted layers: small networks that came through
    ONNX took 1.1 to 1.4 times as long with them, for the same outputs.

    ## Example

    ```bad
    x     = Placeholder() float32[1,8,8,3]
    perm  = Const() int32[4] = 0,3,1,2
    back  = Const() int32[4] = 0,2,3,1
    shift = Const() float32[1,3,1,1]
    a     = Transpose(x, perm) float32[1,3,8,8] 30us
    b     = AddV2(a, shift) float32[1,3,8,8] 10us
    c     = Transpose(b, back) float32[1,8,8,3] 30us
    out   = _Retval(c)
    ```

    ```good
    x     = Placeholder() float32[1,8,8,3]
    shift = Const() float32[1,1,1,3]
    b     = AddV2(x, shift) float32[1,8,8,3] 10us
    out   = _Retval(b)
    ```

    ## Fix

    Remove them; the ops between them work on the layout that comes in, with constants and axes permuted as the tensors
    are.

    ## When it is fine

    When ops whose axes are fixed (a convolution, a matrix product, a reshape across axes that are not neighbours)
    need the tensor in both orders. A transpose that only such ops read is not counted, and where some would
    have to be put in elsewhere, all together must move fewer elements than before.

    ## Source

    The permutations are constants of the judged graph. What is moved is the minimum cut between ops that work on the
    order that comes in and those that stay as they are, by the elements that are transposed between both. Grappler
    removes pairs without anything between them and identity permutations by itself, so these are not reported where
    nothing was executed.
    """
    regions = facts(needless_transposes)
    vanishing = [name for region in regions for name in region.vanishing]
    if not vanishing:
        return
    graph = facts(judged_graph)
    is_exact = all(region.is_exact for region in regions)
    yield found(
        title=f"{len(vanishing)} transposes move data that is moved back"
        if len(vanishing) > 1
        else "A transpose moves data for nothing",
        nodes=dict.fromkeys(name for region in regions for name in (*region.moved, *region.turned)),
        evidence={
            "regions": [_region(region) for region in regions],
            "bytes_moved": known_sum([cost_of(graph, name).bytes for name in vanishing]),
        },
        reason=with_stage(facts, _reason(facts, regions)),
        saving=_saving(facts, regions),
        removes=vanishing,
        fix=Fix(
            "Remove the transposes, and let the ops between them work on the order of axes that comes in",
            "exact" if is_exact else "tolerance",
            tuple(RemoveTransposes(Ops(region.vanishing)) for region in regions),
        ),
    )


def _region(region: Relayout) -> dict[str, Any]:
    return {
        "vanishing": list(region.vanishing),
        "between": list(region.between),
        "turned": list(region.turned),
        "elements_transposed_before": region.elements_before,
        "elements_transposed_after": region.elements_after,
    }


def _reason(facts: Facts, regions: Sequence[Relayout]) -> str:
    graph = facts(judged_graph)
    kinds = Counter(runtime_type(graph.op(name).type) for region in regions for name in region.between)
    if not kinds:
        return _of_transposes_alone(regions)
    named = ", ".join(kind for kind, _ in kinds.most_common(KINDS_NAMED))
    left = sum(region.elements_after for region in regions) / max(1, sum(region.elements_before for region in regions))
    rest = f"; {format_share(left)} of what is transposed would be left" if left > FEW_LEFT_SHARE else ""
    return (
        f"what lies between them ({named}) can work on the other order of axes, with its constants and axes permuted, "
        f"and Grappler does not look past it{rest}"
    )


def _of_transposes_alone(regions: Sequence[Relayout]) -> str:
    if any(region.turned for region in regions):
        return "one transpose does what several in turn do"
    if all(region.moved[region.vanishing[-1]].outputs[0] is not None for region in regions):
        return "only the shape of what they give is asked for"
    return "the permutations cancel"


def _saving(facts: Facts, regions: Sequence[Relayout]) -> Saving:
    """Model the time of the transposes that go, less that of those which are put in elsewhere, by their elements."""
    left = {name: region.replaced_share for region in regions for name in region.vanishing}
    return saving_at(facts, left) if any(left.values()) else saving_without(facts, left)
