"""The data flow of a flat graph as written: live ops only, seen through the ops that hand their input on unchanged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from graphlens.facts.constants import constant_ops, parameter_ops
from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import traced_graph
from graphlens.ir.effects import acts
from graphlens.ir.graph import RETURN, Op, TensorSpec, data_inputs, in_edges, topological_order
from graphlens.ir.ops import PASSES
from graphlens.ir.table import Table

_NO_READERS: Final = PASSES | {RETURN}


class Tensor(NamedTuple):
    """One output of one op."""

    op: str
    port: int


class Reader(NamedTuple):
    """One op that reads a tensor, and at which input."""

    op: str
    port: int
    source_port: int


@dataclass(frozen=True)
class Dataflow:
    """Who computes with which tensor, in one flat graph; passes are looked through, dead ops left out."""

    graph: Table

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Ops whose value does not depend on the step's inputs: constants, variables and what is made of them."""
        return parameter_ops(self.graph)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Ops whose value depends on constants alone: Grappler has computed them before it fuses."""
        return constant_ops(self.graph)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """Position of every op in a topological order."""
        return {name: index for index, name in enumerate(topological_order(self.graph))}

    @cached_property
    def inputs(self) -> Mapping[str, tuple[Tensor, ...]]:
        """Live op -> what it reads, by input port."""
        return self._live[0]

    @cached_property
    def fetched(self) -> Mapping[str, str]:
        """Op -> the result of the function that it gives."""
        return self._live[1]

    @cached_property
    def _live(self) -> tuple[Mapping[str, tuple[Tensor, ...]], Mapping[str, str]]:
        inputs: dict[str, tuple[Tensor, ...]] = {}
        fetched: dict[str, str] = {}
        pending = self._roots()
        seen = set(pending)
        while pending:
            name = pending.pop()
            edges = in_edges(self.graph, name)
            read = tuple([self._through(src, edge.src_port or 0) for src, edge in edges if edge.kind == "data"])
            if self.op(name).type == RETURN:
                fetched.update({tensor.op: name for tensor in read})
            inputs[name] = read
            others = [src for src, edge in edges if edge.kind != "data"] + self._waits_for(name)
            for src in (*[tensor.op for tensor in read], *others):
                if src not in seen:
                    seen.add(src)
                    pending.append(src)
        return inputs, fetched

    def _roots(self) -> list[str]:
        """Return the ops that a step is run for: results and acts, or all ends of a graph that names no results."""
        found = [name for name, op in self.graph.items() if acts(op.type)]
        if any(self.op(name).type == RETURN for name in found):
            return found
        ends = (name for name in self.graph if not self.graph.has_readers(name))
        return list(dict.fromkeys([*found, *ends]))

    def _waits_for(self, name: str) -> list[str]:
        return list(dict.fromkeys(self.graph.control_inputs(name)))

    def _through(self, name: str, port: int) -> Tensor:
        """Follow a tensor back through ops that pass it on."""
        while (op_type := self.op(name).type) in PASSES:
            wanted = port if op_type == "IdentityN" else 0
            edges = in_edges(self.graph, name)
            found = next((item for item in edges if (item[1].dst_port or 0) == wanted and item[1].kind == "data"), None)
            if found is None:
                break
            name, port = found[0], found[1].src_port or 0
        return Tensor(name, port)

    @cached_property
    def _readers(self) -> Mapping[str, list[Reader]]:
        readers: dict[str, list[Reader]] = defaultdict(list)
        for name, read in self.inputs.items():
            if self.op(name).type in _NO_READERS:
                continue
            for port, tensor in enumerate(read):
                readers[tensor.op].append(Reader(name, port, tensor.port))
        return readers

    def op(self, name: str) -> Op:
        """Return the op ``name``."""
        return self.graph.op(name)

    def readers(self, name: str) -> list[Reader]:
        """Return the live ops that compute with an output of ``name``, results of the function not counted."""
        return self._readers.get(name, [])

    def spec(self, tensor: Tensor) -> TensorSpec | None:
        """Return what is known of a tensor."""
        outputs = self.op(tensor.op).outputs
        return outputs[tensor.port] if tensor.port < len(outputs) else None

    def live(self) -> Iterator[tuple[str, Op]]:
        """Iterate over the live ops in topological order."""
        inputs = self.inputs
        for name in self.order:
            if name in inputs:
                yield name, self.op(name)

    def controls(self, name: str) -> tuple[list[str], list[str]]:
        """Return the live ops that ``name`` waits for, and those that wait for it, by control edges."""
        before = self._waits_for(name)
        after = [dst for dst, edge in self.graph.out_edges(name) if edge.kind == "control"]
        return [src for src in before if src in self.inputs], [dst for dst in after if dst in self.inputs]

    def with_passes(self, names: Iterable[str]) -> tuple[str, ...]:
        """Add to ``names`` the ops between two of them that pass a tensor on, so that no path leaves and comes back."""
        inside = set(names)
        between: set[str] = set()
        for name in inside:
            for src in data_inputs(self.graph, name):
                path = self._passes_behind(src)
                if path and self._through(src, 0).op in inside:
                    between.update(path)
        return tuple(sorted(inside | between, key=self.order.__getitem__))

    def _passes_behind(self, name: str) -> list[str]:
        found = []
        while name not in found and self.op(name).type in PASSES and data_inputs(self.graph, name):
            found.append(name)
            name = data_inputs(self.graph, name)[0]
        return found


@fact
def dataflow(facts: Facts) -> Dataflow | None:
    """Who reads what in the graph as written, dead ops left out; ``None`` where that graph is not known."""
    traced = facts(traced_graph)
    return Dataflow(traced) if traced is not None and len(traced) else None
