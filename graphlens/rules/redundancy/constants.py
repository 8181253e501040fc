"""Rules about values that are computed in every step although they never change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import constant_ops, is_training, judged_graph, judged_stage, layer_of_op, origins
from graphlens.facts.patterns.affine import affine_chains
from graphlens.facts.patterns.exclusive import computed_frozen_groups, depends_on_variables
from graphlens.facts.patterns.input_affine import input_chains
from graphlens.facts.patterns.invariants import invariants_by_loop
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.edits import FoldConstant, Ops
from graphlens.ir.graph import data_consumers, data_inputs
from graphlens.ir.ops import UNTRACED
from graphlens.rules.needs import GRAPH
from graphlens.rules.phrases import CAPTURED, known_sum, with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import format_count

# Grappler keeps an op whose folded result is over 100 kB and larger than what it is computed from, because the model
# would grow; the same bound is used here.
LARGEST_GROWN_RESULT_BYTES: Final = 100 * 1024
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

    When another function of the same program writes the variables between steps. A result larger than its inputs and
    than 100 kB is left alone, as Grappler leaves it.

    ## Source

    Data dependencies of the judged graph. What belongs to a batch normalization or an input scale that can be folded as
    a whole is counted by `unfolded-batch-norm` or `unfolded-input-scale` and not here, and what a loop computes anew by
    `loop-invariant-op`.
    """
    claimed = set() if facts(is_training) else _folded_with_layers(facts)
    claimed |= {name for invariant in facts(invariants_by_loop).values() for name in invariant}
    alike: dict[tuple[bool, tuple[str, ...]], list[tuple[str, ...]]] = defaultdict(list)
    graph = facts(judged_graph)
    for group in computed_frozen_groups(facts, claimed):
        constant = all(name in facts(constant_ops) for name in group)
        if _costs_something(facts, group, constant) and not _grows(facts, group):
            types = tuple(sorted(graph.op(name).type for name in group))
            alike[constant, types].append(group)
    for (constant, _), groups in alike.items():
        yield _constant_finding(facts, groups, constant)


def _folded_with_layers(facts: Facts) -> set[str]:
    behind = {name for chain in facts(affine_chains) for name in chain.folded}
    return behind | {name for chain in facts(input_chains) for name in chain.folded}


def _costs_something(facts: Facts, group: Sequence[str], constant: bool) -> bool:
    graph = facts(judged_graph)
    if all(graph.op(name).type in UNTRACED for name in group):
        return False
    if facts(judged_stage) == "traced":
        return not constant  # Grappler computes what depends on constants alone when the model is loaded
    times = facts(timings)
    return not facts(attribution).timings or any(times.get(name) for name in group)


def _grows(facts: Facts, group: Sequence[str]) -> bool:
    inside = set(group)
    graph = facts(judged_graph)
    results = [name for name in group if any(dst not in inside for dst in data_consumers(graph, name))]
    sources = {src for name in group for src in data_inputs(graph, name) if src not in inside}
    made = known_sum([spec.nbytes for name in results for spec in graph.op(name).outputs]) or 0
    read = known_sum([spec.nbytes for name in sources for spec in graph.op(name).outputs[:1]]) or 0
    return made > LARGEST_GROWN_RESULT_BYTES and made > read


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


def _types_in_words(facts: Facts, group: Sequence[str]) -> str:
    graph = facts(judged_graph)
    types = [graph.op(name).type for name in group]
    shown = list(dict.fromkeys(types))[:3]
    rest = len(types) - len(shown)
    return " and ".join(shown) + (f" and {format_count(rest)} more ops" if rest > 0 else "")
