"""The graphs that are judged, flat, and how the ops of the one are joined to those of the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat import constants, executed, renames
from graphlens.facts.flat import scopes as flat
from graphlens.facts.flat.carried import carried_readers
from graphlens.facts.flat.inlining import inline
from graphlens.facts.flat.origins import operations, resolve
from graphlens.facts.programs.judged_program import judged_profile, loops_within_tf_data
from graphlens.ir.graph import Graph, topological_order
from graphlens.ir.ops import DATASET_LOOPS
from graphlens.ir.table import NO_OPS, Table

Stage = Literal["executed", "traced"]

# Graphs here are *flat*: functions are inlined, so that a node's name is the path of call sites plus the op's name
# (``StatefulPartitionedCall/model/conv/Conv2D``), which is also how the runtime names inlined ops.


@fact
def traced_graph(facts: Facts) -> Table | None:
    """The graph as written; ``None`` where only a profile is known."""
    traced = facts.evidence.traced
    return inline(traced, in_datasets=_is_looped_in(traced, facts)) if traced else None


@fact
def optimized_graph(facts: Facts) -> Table | None:
    """The graph after Grappler; ``None`` where it was not recorded."""
    optimized = facts.evidence.optimized
    return inline(optimized, in_datasets=_is_looped_in(optimized, facts)) if optimized else None


@fact
def executed_graph(facts: Facts) -> Table | None:
    """The graph that ran (all devices); ``None`` when nothing was executed."""
    ran = facts.evidence.executed
    in_datasets = ran is not None and _is_looped_in(ran, facts)
    return executed.executed_graph(facts.evidence, facts(traced_graph), facts(judged_profile), in_datasets=in_datasets)


def _is_looped_in(graph: Graph, facts: Facts) -> bool:
    """Whether steps are those of a loop in the graph that tf.data runs."""
    kinds = (op.type for function in graph.functions.values() for op in function.graph.kinds)
    return any(kind in DATASET_LOOPS for kind in kinds) and facts(loops_within_tf_data)


@fact
def judged_stage(facts: Facts) -> Stage:
    """Which graph is judged: the executed one where there is one."""
    return "executed" if facts.evidence.executed or facts.evidence.hlo else "traced"


@fact
def judged_graph(facts: Facts) -> Table:
    """The judged graph (see ``judged_stage``); empty when neither is known."""
    ran, written = facts(executed_graph), facts(traced_graph)
    if ran is not None:
        return ran
    return written if written is not None else NO_OPS


@fact
def op_order(facts: Facts) -> Mapping[str, int]:
    """Position of every op of the judged graph in a topological order."""
    return {name: index for index, name in enumerate(topological_order(facts(judged_graph)))}


@fact
def is_training(facts: Facts) -> bool:
    """Whether the target trains: it writes variables through an optimizer, or computes gradients.

    What a compiled function writes is seen in the graph as written alone.
    """
    graphs = (facts(judged_graph), facts(traced_graph))
    return any(flat.is_training(graph, facts.evidence.training) for graph in graphs if graph is not None)


# -- joins --------------------------------------------------------------------------------------------------------


@fact
def renamed(facts: Facts) -> Mapping[str, str | None]:
    """Runtime name -> name as written of the ops that do not run under their own names."""
    return renames.renamed_ops(facts.evidence)


@fact
def origins(facts: Facts) -> Mapping[str, tuple[str, ...]]:
    """Executed op -> the traced ops that it stands for (empty tuple: none could be resolved; never a guess)."""
    ran, written = facts(executed_graph), facts(traced_graph)
    return resolve(ran, written, facts(renamed)) if ran is not None and written is not None else {}


@fact
def operations_of_origins(facts: Facts) -> Mapping[str, Mapping[str | None, int]]:
    """Instruction of XLA -> how many operations it does for each traced op that it stands for; ``None`` for unknown."""
    ran, written = facts(executed_graph), facts(traced_graph)
    return operations(ran, written, facts(renamed)) if ran is not None and written is not None else {}


@fact
def executed_by(facts: Facts) -> Mapping[str, str]:
    """Traced op -> the executed op that stands for it; ops that Grappler removed or folded are absent."""
    return {written: name for name, sources in facts(origins).items() for written in sources}


@fact
def joined_loosely(facts: Facts) -> bool:
    """Whether the profile is of another run than the graph, or of a run whose executed graph is not known."""
    return facts.evidence.profile_path is not None or facts(executed_graph) is None


# -- values -------------------------------------------------------------------------------------------------------


@fact
def constant_ops(facts: Facts) -> frozenset[str]:
    """Ops of the judged graph whose value depends on constants only (the constants included)."""
    return constants.constant_ops(facts(judged_graph))


@fact
def frozen_ops(facts: Facts) -> frozenset[str]:
    """Ops of the judged graph whose value depends on constants and on variables that this graph never writes.

    Contains ``constant_ops``, the reads of such variables, and what is computed from them; ops with a state or a
    side effect of their own (random numbers, tables, prints) are never in it.  Nor is what is made of variables that
    another signature of the model's file writes: the edits, which write the whole file anew, leave them alone.
    """
    graph = facts(judged_graph)
    return constants.frozen_ops(graph, facts(written_by_others).keys(), carried_readers(graph, facts.evidence.traced))


@fact
def written_by_others(facts: Facts) -> Mapping[str, str]:
    """Argument of the judged graph -> the signature, other than the judged one, that writes the variable behind it."""
    evidence = facts.evidence
    traced = evidence.traced.main.captures if evidence.traced else {}
    found = {name: held.written_by for name, held in traced.items() if held.written_by is not None}
    if not found or facts(judged_stage) == "traced":
        return found
    by_name = {held.name: held.written_by for held in traced.values() if held.written_by is not None}
    ran = evidence.executed.main.captures if evidence.executed else {}
    return {name: by_name[held.name] for name, held in ran.items() if held.name in by_name}


@fact
def weights(facts: Facts) -> constants.Weights:
    """What the judged graph makes of weights alone, those that it writes too, and the ops that write these.

    The ops are those of ``frozen_ops``, and what is made of variables that the graph writes, as long as all that is
    written is made of such values too.
    """
    graph = facts(judged_graph)
    if not graph.of_types(constants.ASSIGNMENTS) and not facts(written_by_others):  # as nearly always
        return constants.Weights(facts(frozen_ops), {})
    return constants.weights(graph, carried_readers(graph, facts.evidence.traced))
