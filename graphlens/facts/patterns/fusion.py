"""What one kernel could compute and did not: candidates of the graph as written, against the ops that really ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import executed_by, judged_graph, judged_stage, op_order
from graphlens.facts.patterns.candidate import Candidate
from graphlens.facts.patterns.chains import chains, label_of
from graphlens.facts.patterns.cutting import chain_of
from graphlens.facts.patterns.dataflow import Dataflow, dataflow
from graphlens.facts.patterns.decomposed import activations, attentions, layer_norms
from graphlens.facts.time.attribution import timings
from graphlens.ir.fusion import Chain, FusionAnswer
from graphlens.ir.ops import UNTRACED


@dataclass(frozen=True, slots=True)
class Unfused:
    """A candidate that ran as several ops.

    Attributes
    ----------
    ops
        The ops of the judged graph that run it, in topological order.
    absorbed
        Those that would be no more if the candidate were one kernel: all but the one that does the main work.
    chain
        The candidate as a graph of its own, to be experimented with; ``None`` where it has no parts to fuse.
    answer
        What the experiment said; ``None`` where there was none.
    """

    candidate: Candidate
    ops: tuple[str, ...]
    absorbed: tuple[str, ...]
    chain: Chain | None
    answer: FusionAnswer | None


def candidates(flow: Dataflow) -> tuple[Candidate, ...]:
    """Return all that one kernel could compute in a graph as written; no op belongs to two of them."""
    composed = activations(flow)
    attention = list(attentions(flow, composed))
    inside = {op for candidate in attention for op in candidate.core}
    outside = {last: item for last, item in composed.items() if not inside & set(item.core)}
    behind_kernels = [item for item in chains(flow, outside) if not inside & set(item.core)]
    claimed = inside | {op for candidate in behind_kernels for op in candidate.core}
    norms = [item for item in layer_norms(flow) if not claimed & set(item.core)]
    alone = [item for item in outside.values() if not claimed & set(item.core)]
    return (*behind_kernels, *norms, *alone, *attention)


@fact
def fusion_candidates(facts: Facts) -> tuple[Candidate, ...]:
    """What one kernel could compute, in the graph as written."""
    flow = facts(dataflow)
    return candidates(flow) if flow is not None else ()


@fact
def unfused(facts: Facts) -> tuple[Unfused, ...]:
    """Return the candidates that ran as more than one op.

    Where nothing was executed, those of which an experiment said that Grappler does not fuse them.
    """
    answers = facts.evidence.fusion_answers
    if facts(judged_stage) == "traced" and not answers:
        return ()  # nothing can be said, and looking for candidates takes long in large graphs
    flow = facts(dataflow)
    if flow is None:
        return ()
    found = (_unfused(facts, flow, candidate, answers.get(candidate.key)) for candidate in facts(fusion_candidates))
    return tuple(item for item in found if item is not None)


# -- against what ran ----------------------------------------------------------------------------------------------


def _unfused(facts: Facts, flow: Dataflow, candidate: Candidate, answer: FusionAnswer | None) -> Unfused | None:
    candidate = _first_to_mend(facts, flow, candidate)
    ops = (
        _executed_ops(facts, candidate) if facts(judged_stage) == "executed" else _unfused_as_written(candidate, answer)
    )
    if len(ops) < 2 or _runs_as_far_as_kernels_go(facts, candidate):
        return None
    graph, ran_as = facts(judged_graph), facts(executed_by)
    devices = {name: graph.op(op).device for name in candidate.core if (op := ran_as.get(name))}
    chain = chain_of(flow, candidate, devices)
    return Unfused(candidate, ops, _absorbed(facts, candidate, ops), chain, answer)


def _first_to_mend(facts: Facts, flow: Dataflow, candidate: Candidate) -> Candidate:
    """Leave out a sum of two branches where even what lies before it did not run as one op: that comes first."""
    roles = [role for _, role in candidate.members]
    if facts(judged_stage) == "traced" or "residual" not in roles:
        return candidate
    before = list(candidate.members[: roles.index("residual")])
    while before[-1][1] == "bridge":
        before.pop()
    core = [name for name, role in before if role != "bridge"]
    ran_as = facts(executed_by)
    if len(core) < 2 or len({ran_as.get(name) for name in core}) == 1:
        return candidate
    return replace(candidate, name=label_of(flow, before), members=tuple(before))


def _runs_as_far_as_kernels_go(facts: Facts, candidate: Candidate) -> bool:
    """No kernel does more of an attention than its scores; where these ran as one op, nothing is left apart."""
    scores = [name for name, role in candidate.members if role in ("base", "scale", "bias")]
    ran_as = facts(executed_by)
    ran = {ran_as.get(name) for name in scores}
    return candidate.kind == "attention" and facts(judged_stage) == "executed" and len(scores) > 1 and len(ran) == 1


def _executed_ops(facts: Facts, candidate: Candidate) -> tuple[str, ...]:
    """Return the ops that ran a candidate; none where XLA compiled it, or a part did not run at all."""
    ran_as = facts(executed_by)
    found = dict.fromkeys(op for name in candidate.core if (op := ran_as.get(name)))
    graph = facts(judged_graph)
    if ran_as.get(candidate.base) is None or any(HLO_MODULE in graph.op(op).attrs for op in found):
        return ()
    position = facts(op_order)
    return tuple(sorted((op for op in found if graph.op(op).type not in UNTRACED), key=lambda op: position.get(op, 0)))


def _unfused_as_written(candidate: Candidate, answer: FusionAnswer | None) -> tuple[str, ...]:
    if answer is None or answer.verdict not in ("explained", "unsupported"):
        return ()
    return candidate.core


def _absorbed(facts: Facts, candidate: Candidate, ops: Sequence[str]) -> tuple[str, ...]:
    """Leave out the op that does the main work: the kernel itself, or else the dearest op.

    Of an attention only scaling and mask can be taken in.
    """
    ran_as = facts(executed_by)
    if candidate.kind == "attention":
        inside = {ran_as.get(name, name) for name, role in candidate.members if role in ("scale", "bias")}
        return tuple(op for op in ops if op in inside)
    main = ran_as.get(candidate.base, candidate.base)
    if candidate.kind not in ("conv", "matmul"):
        main = max(ops, key=lambda op: timing.self_ns if (timing := facts(timings).get(op)) else 0)
    return tuple(op for op in ops if op != main)
