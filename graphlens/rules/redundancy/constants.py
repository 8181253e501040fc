"""Rules about values that are computed in every step although they never change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import constant_ops, judged_graph, origins, weights, written_by_others
from graphlens.facts.patterns.weight_work import (
    WeightWork,
    depends_on_variables,
    frozen_work,
    result_bytes,
    weight_work,
)
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.edits import FoldConstant, Ops
from graphlens.ir.ops import UNTRACED
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.phrases import CAPTURED, with_stage, wrapper_of
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_count

GROUPS_LISTED: Final = 20


@rule("GL210", "unfolded-constant", needs=(GRAPH,))
def unfolded_constant(facts: Facts) -> Iterator[Finding]:
    """The same value computed in every step, from constants and variables that nobody writes.

    ## What it finds

    Groups of ops that depend only on constants, on variables this graph never writes, and on tensors that a
    `tf.function` has captured: casts of weights, scales computed from statistics, tables built anew. Groups with the
    same ops are one finding.

    ## Why it costs

    The result is the same in every step; it could be stored instead of the inputs.

    ## Example

    ```bad
    x       = Placeholder() float32[8,64]
    weights = ReadVariableOp(w) float32[64,64]
    soft    = Softmax(weights) float32[64,64] 40us
    y       = MatMul(x, soft) float32[8,64] 60us
    out     = _Retval(y)
    ```

    ```good
    x    = Placeholder() float32[8,64]
    soft = Const() float32[64,64]
    y    = MatMul(x, soft) float32[8,64] 60us
    out  = _Retval(y)
    ```

    ## Fix

    Compute it once, before the model is exported, and store the result; or freeze the variables to constants, and
    Grappler does it when the model is loaded. A tensor made outside of a `tf.function` (`tf.constant`) is captured by
    it: an argument, to Grappler. Make it inside, or from a NumPy array, and it is a constant.

    ## When it is fine

    When another function of the same program writes the variables between steps; in a step that trains, what is made
    of a learning rate or another small variable that Python may set is not reported. A result larger than its inputs
    and than 100 kB is left alone, as Grappler leaves it: the evidence lists what is, and what is work on weights is
    counted by `weight-preparation`.

    ## Source

    Data dependencies of the judged graph. What belongs to a batch normalization or an input scale that can be folded as
    a whole is counted by `unfolded-batch-norm` or `unfolded-input-scale` and not here, and what a loop computes anew by
    `loop-invariant-op`.
    """
    alike: dict[tuple[bool, tuple[str, ...]], list[tuple[str, ...]]] = defaultdict(list)
    graph = facts(judged_graph)
    for group in facts(frozen_work).folded:
        constant = facts(constant_ops).issuperset(group)
        alike[constant, tuple(sorted(graph.op(name).type for name in group))].append(group)
    for (constant, _), groups in alike.items():
        yield _constant_finding(facts, groups, constant)


def _constant_finding(facts: Facts, groups: Sequence[tuple[str, ...]], constant: bool) -> Finding:
    ops = [name for group in groups for name in group]
    where = layer_of_op(facts, ops[-1])
    times = f", {len(groups)} times" if len(groups) > 1 else ""
    return found(
        title=f"{_types_in_words(facts, groups[0])} on frozen values, computed anew every step{times}",
        nodes=ops,
        evidence={
            "groups": [list(group) for group in groups[:GROUPS_LISTED]],
            "group_count": len(groups),
            "ops": len(ops),
            "layer": where,
            "from_constants_only": constant,
            "left_out_for_size": [
                {"ops": list(group), "bytes": result_bytes(facts, group)}
                for group in facts(frozen_work).left_out[:GROUPS_LISTED]
            ],
        },
        reason=with_stage(facts, _cause(facts, ops, constant)),
        saving=saving_without(facts, ops),
        removes=ops,
        fix=Fix(
            "Freeze the variables, so that Grappler folds it"
            if not constant and depends_on_variables(facts, ops)
            else "Store the result instead of its inputs",
            "exact",
            tuple(FoldConstant(_as_written(facts, group), freeze=not constant) for group in groups),
        ),
    )


def _cause(facts: Facts, ops: Sequence[str], constant: bool) -> str:
    if constant:
        return (
            "it depends on constants alone, but Grappler did not fold it: the op is not among those it folds, or a "
            "control input or a device kept it"
        )
    if depends_on_variables(facts, ops):
        return "it depends on variables; this graph never writes them, but Grappler cannot know that nobody does"
    return f"it depends on {CAPTURED}"


def _as_written(facts: Facts, group: Sequence[str]) -> Ops:
    """Name a group as the graph that is edited does: Grappler may have given its ops other names and types."""
    sources = facts(origins)
    return Ops(tuple(group), traced=tuple(dict.fromkeys(name for op in group for name in sources.get(op, ()))) or None)


@rule("GL215", "weight-preparation", needs=(GRAPH, INFERENCE))
def weight_preparation(facts: Facts) -> Iterator[Finding]:
    """Weights that are masked, quantized, clustered or normalized in every step, before a layer uses them.

    ## What it finds

    In a graph that does not train, groups of ops that no input has anything to do with and that `unfolded-constant`
    does not report: because the graph writes the weights itself (the wrappers of a pruned or clustered model, a moving
    average of weights), because another signature of the model's file does (one that trains), or because the result is
    larger than the weights. Groups with the same ops are one finding.

    ## Why it costs

    A layer's weights are used once in each step, but preparing them costs as much as they have elements, whatever the
    batch: models exported with the wrappers of the TensorFlow Model Optimization Toolkit were 2 to 16 times slower than
    the same models without, with outputs that were the same to the last bit.

    ## Example

    ```bad
    x     = Placeholder() float32[1,64]
    w     = ReadVariableOp(kernel) float32[64,64]
    mask  = ReadVariableOp(pruned) float32[64,64]
    kept  = Mul(w, mask) float32[64,64] 40us
    put   = AssignVariableOp(kernel, kept) 20us
    again = ReadVariableOp(kernel, ^put) float32[64,64]
    y     = MatMul(x, again) float32[1,64] 20us
    out   = _Retval(y)
    ```

    ```good
    x   = Placeholder() float32[1,64]
    w   = ReadVariableOp(kernel) float32[64,64]
    y   = MatMul(x, w) float32[1,64] 20us
    out = _Retval(y)
    ```

    ## Fix

    Prepare the weights once, before the model is exported, and export it without what prepares them: strip the wrappers
    (`strip_pruning`, `strip_clustering`). Where nobody writes the weights, the result can be stored as it is; so it can
    in a file of its own, without the signature that trains.

    ## When it is fine

    When the weights are kept small on purpose (a large result made of few numbers), and memory is dearer than time.

    ## Source

    Data dependencies of the judged graph. A variable that is written from an input, drawn or counted up is state, and
    nothing that is made of it is reported; nor is what only moves numbers, or gives fewer than 64 of them.
    """
    alike: dict[tuple[bool, tuple[str, ...]], list[WeightWork]] = defaultdict(list)
    graph = facts(judged_graph)
    for work in facts(weight_work):
        alike[bool(work.frozen), tuple(sorted(graph.op(name).type for name in work.ops))].append(work)
    for (can_be_stored, _), works in alike.items():
        yield _preparation(facts, works, can_be_stored)


def _preparation(facts: Facts, works: Sequence[WeightWork], can_be_stored: bool) -> Finding:
    ops = [name for work in works for name in work.ops]
    layers = list(dict.fromkeys(layer for work in works if (layer := layer_of_op(facts, work.ops[-1]))))
    wrapper = wrapper_of(layers)
    gone = [name for work in works for name in (work.frozen if can_be_stored else work.ops)]
    where = f" in '{layers[0]}'" if len(layers) == 1 else f" in {counted(len(layers), 'layer')}" if layers else ""
    strip = f"Strip {wrapper.name} before the model is exported" if wrapper else "Prepare the weights before the export"
    return found(
        title=f"Weights are prepared anew every step by {_types_in_words(facts, works[0].ops)}{where}",
        nodes=ops,
        evidence={
            "groups": [list(work.ops) for work in works[:GROUPS_LISTED]],
            "group_count": len(works),
            "layers": layers[:GROUPS_LISTED],
            "wrapper": wrapper.name if wrapper else None,
            "ops": len(ops),
            "that_never_change": len([name for work in works for name in work.frozen]),
        },
        reason=with_stage(facts, _why_prepared(facts, works, can_be_stored)),
        saving=saving_without(facts, gone),
        removes=gone,
        fix=Fix(
            f"{strip}; or store the result in place of what it is made from" if can_be_stored else strip,
            "exact" if can_be_stored else "manual",
            tuple(FoldConstant(_as_written(facts, work.frozen), freeze=True) for work in works if work.frozen),
            wrapper.snippet if wrapper else None,
        ),
    )


def _why_prepared(facts: Facts, works: Sequence[WeightWork], can_be_stored: bool) -> str:
    if not can_be_stored and not facts(weights).written:
        writers = ", ".join(f"'{name}'" for name in sorted(set(facts(written_by_others).values())))
        return (
            "no input has anything to do with them, but another signature of the file writes weights that they are "
            f"made from ({writers}): export this one alone, and they can be stored"
        )
    if not can_be_stored:
        return "no input has anything to do with them, but the graph writes weights that they are made from"
    if all(len(work.frozen) == len(work.ops) for work in works):
        return (
            "no input has anything to do with them, and nobody writes what they are made from, but the result is larger"
        )
    return "no input has anything to do with them; a part is made from weights that the graph writes"


def _types_in_words(facts: Facts, group: Sequence[str]) -> str:
    graph = facts(judged_graph)
    types = [kind for name in group if (kind := graph.op(name).type) not in UNTRACED]
    shown = list(dict.fromkeys(types))[:3]
    rest = len(types) - len(shown)
    return " and ".join(shown) + (f" and {format_count(rest)} more ops" if rest > 0 else "")
