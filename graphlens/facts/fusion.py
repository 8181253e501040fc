"""What one kernel could compute and did not: candidates of the graph as written, against the ops that really ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx

from graphlens.facts import xla
from graphlens.facts.chains import chains, label_of
from graphlens.facts.dataflow import Dataflow, Tensor
from graphlens.facts.decomposed import Candidate, activations, attentions, layer_norms
from graphlens.facts.flat import HLO_ORIGINS
from graphlens.ir.fusion import Chain, ChainOp, FusionAnswer, Role, Surrounding
from graphlens.ir.graph import op_of
from graphlens.ir.ops import CONSTANTS, UNTRACED

if TYPE_CHECKING:
    from graphlens.facts.core import Facts


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


def unfused(facts: Facts) -> tuple[Unfused, ...]:
    """Return the candidates that ran as more than one op.

    Where nothing was executed, those of which an experiment said that Grappler does not fuse them.
    """
    answers = facts.evidence.fusion_answers
    if facts.stage == "traced" and not answers:
        return ()  # nothing can be said, and looking for candidates takes long in large graphs
    flow = facts.dataflow
    if flow is None:
        return ()
    found = (_unfused(facts, flow, candidate, answers.get(candidate.key)) for candidate in facts.fusion_candidates)
    return tuple(item for item in found if item is not None)


def chains_to_probe(facts: Facts) -> tuple[Chain, ...]:
    """Return what experiments can find out: chains that did not run as one op or never ran, and XLA's blockers."""
    flow = facts.dataflow
    if flow is None:
        return ()
    if facts.stage == "executed":
        found = [item.chain for item in facts.unfused if not facts.training]
    else:
        found = [chain_of(flow, candidate, {}) for candidate in facts.fusion_candidates if not facts.training]
    return (*(chain for chain in found if chain is not None), *xla.trials(facts))


# -- against what ran ----------------------------------------------------------------------------------------------


def _unfused(facts: Facts, flow: Dataflow, candidate: Candidate, answer: FusionAnswer | None) -> Unfused | None:
    candidate = _first_to_mend(facts, flow, candidate)
    ops = _executed_ops(facts, candidate) if facts.stage == "executed" else _unfused_as_written(candidate, answer)
    if len(ops) < 2 or _runs_as_far_as_kernels_go(facts, candidate):
        return None
    devices = {name: facts.op(op).device for name in candidate.core if (op := facts.executed_by.get(name))}
    chain = chain_of(flow, candidate, devices)
    return Unfused(candidate, ops, _absorbed(facts, candidate, ops), chain, answer)


def _first_to_mend(facts: Facts, flow: Dataflow, candidate: Candidate) -> Candidate:
    """Leave out a sum of two branches where even what lies before it did not run as one op: that comes first."""
    roles = [role for _, role in candidate.members]
    if facts.stage == "traced" or "residual" not in roles:
        return candidate
    before = list(candidate.members[: roles.index("residual")])
    while before[-1][1] == "bridge":
        before.pop()
    core = [name for name, role in before if role != "bridge"]
    if len(core) < 2 or len({facts.executed_by.get(name) for name in core}) == 1:
        return candidate
    return replace(candidate, name=label_of(flow, before), members=tuple(before))


def _runs_as_far_as_kernels_go(facts: Facts, candidate: Candidate) -> bool:
    """No kernel does more of an attention than its scores; where these ran as one op, nothing is left apart."""
    scores = [name for name, role in candidate.members if role in ("base", "scale", "bias")]
    ran = {facts.executed_by.get(name) for name in scores}
    return candidate.kind == "attention" and facts.stage == "executed" and len(scores) > 1 and len(ran) == 1


def _executed_ops(facts: Facts, candidate: Candidate) -> tuple[str, ...]:
    """Return the ops that ran a candidate; none where XLA compiled it, or a part did not run at all."""
    found = dict.fromkeys(op for name in candidate.core if (op := facts.executed_by.get(name)))
    if facts.executed_by.get(candidate.base) is None or any(HLO_ORIGINS in facts.op(op).attrs for op in found):
        return ()
    position = facts.order
    return tuple(sorted((op for op in found if facts.op(op).type not in UNTRACED), key=lambda op: position.get(op, 0)))


def _unfused_as_written(candidate: Candidate, answer: FusionAnswer | None) -> tuple[str, ...]:
    if answer is None or answer.verdict not in ("explained", "unsupported"):
        return ()
    return candidate.core


def _absorbed(facts: Facts, candidate: Candidate, ops: Sequence[str]) -> tuple[str, ...]:
    """Leave out the op that does the main work: the kernel itself, or else the dearest op.

    Of an attention only scaling and mask can be taken in.
    """
    if candidate.kind == "attention":
        inside = {facts.executed_by.get(name, name) for name, role in candidate.members if role in ("scale", "bias")}
        return tuple(op for op in ops if op in inside)
    main = facts.executed_by.get(candidate.base, candidate.base)
    if candidate.kind not in ("conv", "matmul"):
        main = max(ops, key=lambda op: timing.self_ns if (timing := facts.timing(op)) else 0)
    return tuple(op for op in ops if op != main)


# -- cutting out ---------------------------------------------------------------------------------------------------


def chain_of(flow: Dataflow, candidate: Candidate, devices: Mapping[str, str]) -> Chain | None:
    """Cut a candidate out of its graph: what it reads becomes a boundary, what is constant stays.

    Of an attention only the scores are cut out (product, scaling, mask): no kernel of TensorFlow's own does more.
    """
    members = _probed(candidate)
    if sum(role != "bridge" for _, role in members) < 2:
        return None
    cut = _Cut(flow, members, devices)
    return Chain(candidate.key, candidate.kind, cut.ops(), tuple(cut.surroundings()))


def single_op(flow: Dataflow, name: str, key: str, kind: str) -> Chain:
    """Cut one op out of its graph."""
    return Chain(key, kind, _Cut(flow, [(name, "base")], {}).ops())


def _probed(candidate: Candidate) -> Sequence[tuple[str, Role]]:
    if candidate.kind != "attention":
        return candidate.members
    scores = [item for item in candidate.members if item[1] != "part"]
    while scores and scores[-1][1] == "bridge":
        scores.pop()
    return scores


class _Cut:
    """One extraction; the ops outside are added the first time that a member reads them."""

    def __init__(self, flow: Dataflow, members: Sequence[tuple[str, Role]], devices: Mapping[str, str]) -> None:
        self.flow = flow
        self.members = members
        self.names = {name for name, _ in members}
        self.devices = devices
        self.found: dict[str, ChainOp] = {}

    def ops(self) -> tuple[ChainOp, ...]:
        for name, role in self.members:
            op = self.flow.op(name)
            inputs = tuple(self._input(tensor) for tensor in self.flow.inputs[name])
            spec = op.outputs[0] if op.outputs else None
            attrs = {key: value for key, value in op.attrs.items() if not key.startswith("_")}
            self.found[name] = ChainOp(name, op.type, role, inputs, attrs, spec, None, self.devices.get(name))
        return tuple(self.found.values())

    def _input(self, tensor: Tensor) -> tuple[str, int]:
        if tensor.op in self.names:
            return tensor.op, tensor.port
        # The optimizer sorts by names, and what it fuses depends on that: the ops outside keep theirs.
        name = f"{tensor.op}__{tensor.port}" if tensor.port else tensor.op
        if name not in self.found:
            self.found[name] = self._outside(name, tensor)
        return name, 0

    def _outside(self, name: str, tensor: Tensor) -> ChainOp:
        spec = self.flow.spec(tensor)
        op = self.flow.op(tensor.op)
        if tensor.op not in self.flow.constants:
            return ChainOp(name, "Placeholder", "boundary", spec=spec)
        values = op.constant.values if op.type in CONSTANTS and op.constant else None
        return ChainOp(name, "Const", "constant", spec=spec, values=values)

    def surroundings(self) -> Iterator[Surrounding]:
        """Yield what else touches the results within the chain; its last result is free to be read by anybody."""
        last = self.members[-1][0]
        for name, _ in self.members:
            before, after = self.flow.controls(name)
            if name != last:
                yield from self._readers(name)
            for other in before:
                if other not in self.names and self.flow.op(other).type not in ("NoOp", "Const"):
                    yield Surrounding("control-in", name, other, self.flow.op(other).type)
            for other in self._acting(after) if name != last else ():
                yield Surrounding("control-out", name, other, self.flow.op(other).type)

    def _acting(self, names: Sequence[str]) -> list[str]:
        """Name the readers of constants instead of these: in a scope of control edges it is constants that wait."""
        found = []
        for name in names:
            is_constant = self.flow.op(name).type in CONSTANTS
            found += [reader.op for reader in self.flow.readers(name)] if is_constant else [name]
        return [name for name in dict.fromkeys(found) if name not in self.names]

    def _readers(self, name: str) -> Iterator[Surrounding]:
        for other in dict.fromkeys(reader.op for reader in self.flow.readers(name)):
            if other not in self.names:
                yield Surrounding("consumer", name, other, self.flow.op(other).type)
        if name in self.flow.fetched:
            yield Surrounding("fetched", name, self.flow.fetched[name], "")


def dataflow_of(traced: nx.MultiDiGraph | None) -> Dataflow | None:
    """Return the data flow of the graph as written, where it is known."""
    return Dataflow(traced) if traced is not None and traced.number_of_nodes() else None


def type_of(facts: Facts, name: str) -> str:
    """Return the type of an op of the graph as written."""
    return op_of(facts.traced, name).type if facts.traced is not None and name in facts.traced else ""
