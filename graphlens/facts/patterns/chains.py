"""Chains behind a convolution or matrix product, in the graph as written: bias, normalization, sum and activation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from graphlens.facts.patterns.candidate import Candidate, Kind
from graphlens.facts.patterns.dataflow import Dataflow, Reader
from graphlens.ir.fusion import Role
from graphlens.ir.layouts import CHANNELS_FIRST
from graphlens.ir.nodes import Tensor, TensorSpec
from graphlens.ir.ops import ACTIVATIONS, BATCH_NORMS, CONVOLUTIONS, PRODUCTS, RESHAPES, SUMS, TRANSPOSED_CONVOLUTIONS

_BRIDGES: Final = RESHAPES | {"Transpose", "Cast"}
_MOST_BRIDGES: Final = 3  # more ops than this between two parts are a program of their own

# In this order the parts follow each other in a kernel; each may be missing.
_STAGES: Final[Mapping[Role, int]] = {"bias": 1, "norm": 2, "residual": 3, "activation": 4}


def chains(flow: Dataflow, activations: Mapping[str, Candidate]) -> Iterator[Candidate]:
    """Yield every convolution or product with what could run inside it; an op belongs to one chain at most.

    A sum of two branches goes to the later one, as in Grappler.  A chain starts with a bias or a normalization: no
    kernel fuses an activation alone.
    """
    starting_at: dict[str, Candidate] = {}
    for candidate in activations.values():
        for tensor in _entries(flow, candidate):
            starting_at.setdefault(tensor.op, candidate)
    claimed: set[str] = set()
    found = []
    for name, op in reversed(list(flow.live(_kind))):
        kind = _kind(op.type)
        if kind is None or name in flow.parameters:
            continue
        members = _Walk(flow, starting_at, claimed, channels_first=_channels_first(flow, name)).run(name)
        if len(members) > 1:
            claimed.update(member for member, _ in members)
            found.append(Candidate(kind, label_of(flow, members), name, tuple(members)))
    yield from reversed(found)


def _kind(op_type: str) -> Kind | None:
    return "conv" if op_type in CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS else "matmul" if op_type in PRODUCTS else None


def _entries(flow: Dataflow, candidate: Candidate) -> Iterator[Tensor]:
    """Yield what an activation is computed from."""
    inside = set(candidate.core)
    for op in candidate.core:
        for tensor in flow.inputs[op]:
            if tensor.op not in inside and tensor.op not in flow.parameters:
                yield tensor


def _channels_first(flow: Dataflow, name: str) -> bool:
    return flow.op(name).attrs.get("data_format") in CHANNELS_FIRST


def label_of(flow: Dataflow, members: Sequence[tuple[str, Role]]) -> str:
    """Return the op types of a chain, without what only moves data."""
    return " + ".join(flow.op(name).type for name, role in members if role != "bridge")


class _Walk:
    """One walk from a base to the end of its chain."""

    def __init__(
        self, flow: Dataflow, starting_at: Mapping[str, Candidate], claimed: Collection[str], *, channels_first: bool
    ) -> None:
        self.flow = flow
        self.starting_at = starting_at
        self.claimed = claimed
        self.channels_first = channels_first
        self.stage = 0
        self.members: list[tuple[str, Role]] = []
        self.bridges: list[tuple[str, Role]] = []

    def run(self, base: str) -> list[tuple[str, Role]]:
        self.members.append((base, "base"))
        current: str | None = base
        while current is not None and self.stage < _STAGES["activation"]:
            current = self._step(current)
        return self.members

    def _step(self, current: str) -> str | None:
        activation = self.starting_at.get(current)
        if self.stage and activation is not None and self._is_free(activation):
            return self._take([(op, "activation") for op in activation.core])
        readers = [reader for reader in self.flow.readers(current) if reader.op not in self.claimed]
        following = [(reader.op, role) for reader in readers if (role := self._role(reader)) is not None]
        if following:
            return self._take([min(following, key=lambda item: _STAGES[item[1]])])
        return self._cross(readers)

    def _is_free(self, activation: Candidate) -> bool:
        return activation.name != "softmax" and not any(op in self.claimed for op in activation.core)

    def _take(self, found: Sequence[tuple[str, Role]]) -> str:
        self.members += [*self.bridges, *found]
        self.bridges = []
        self.stage = _STAGES[found[-1][1]]
        return found[-1][0]

    def _cross(self, readers: Sequence[Reader]) -> str | None:
        """Step over an op that moves data, without claiming it before something follows."""
        if len(self.bridges) == _MOST_BRIDGES:
            return None
        bridge = next(
            (reader.op for reader in readers if reader.port == 0 and self.flow.op(reader.op).type in _BRIDGES), None
        )
        if bridge is not None:
            self.bridges.append((bridge, "bridge"))
        return bridge

    def _role(self, reader: Reader) -> Role | None:
        role = self._role_of_type(reader)
        if role is None or reader.source_port != 0 or _STAGES[role] <= self.stage:
            return None
        return role if self.stage or role in ("bias", "norm") else None

    def _role_of_type(self, reader: Reader) -> Role | None:
        op_type = self.flow.op(reader.op).type
        if op_type == "BiasAdd" and reader.port == 0:
            return "bias"
        if op_type in BATCH_NORMS and reader.port == 0:
            return "norm"
        if op_type in ACTIVATIONS:
            return "activation"
        if op_type in SUMS | {"AddN"} and len(self.flow.inputs[reader.op]) == 2:
            return self._role_of_sum(reader)
        return None

    def _role_of_sum(self, reader: Reader) -> Role | None:
        other = self.flow.inputs[reader.op][1 - reader.port]
        if other.op in self.flow.parameters:
            return "bias" if self._is_per_channel(self.flow.spec(other)) else None
        both = [self.flow.spec(tensor) for tensor in self.flow.inputs[reader.op]]
        ranks = {len(spec.shape) for spec in both if spec is not None and spec.shape is not None}
        return "residual" if len(ranks) <= 1 else None

    def _is_per_channel(self, spec: TensorSpec | None) -> bool:
        """One number per channel; behind a reshaped product the channels may be several axes (heads and their size)."""
        if spec is None or not spec.shape:
            return False
        if self.channels_first:
            return len(spec.shape) >= 3 and all(size == 1 for size in spec.shape[-2:])
        leading = spec.shape[:-2] if self.bridges else spec.shape[:-1]
        return all(size == 1 for size in leading)
