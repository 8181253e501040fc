"""Cut ops out of a graph as a graph of their own, to be experimented with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphlens.facts.patterns.candidate import Candidate
from graphlens.facts.patterns.dataflow import Dataflow
from graphlens.ir.fusion import VARIABLE_READ, Chain, ChainOp, Role, Surrounding
from graphlens.ir.nodes import Tensor
from graphlens.ir.ops import CONSTANTS


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
            # With oneDNN, Grappler takes a sum for a bias where it is sure of its shape: a variable's, and no feed's.
            kind = VARIABLE_READ if op.type == VARIABLE_READ and spec is not None else "Placeholder"
            return ChainOp(name, kind, "boundary", spec=spec)
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
