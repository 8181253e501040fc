"""The data flow of a flat graph as written: live ops only, seen through the ops that hand their input on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.constants import constant_ops, parameter_ops
from graphlens.facts.flat.inlining import effects
from graphlens.facts.graphs import traced_graph
from graphlens.ir.graph import data_inputs
from graphlens.ir.nodes import CONTROL, RETURN, Op, Tensor, TensorSpec
from graphlens.ir.ops import PASSES
from graphlens.ir.table import Table


class Reader(NamedTuple):
    """One op that reads a tensor, and at which input."""

    op: str
    port: int
    source_port: int


class _Inputs(Mapping[str, tuple[Tensor, ...]]):
    """Live op -> what it reads, by input port; looked up when asked for, since most ops never are."""

    def __init__(self, graph: Table, live: Mapping[int, int]) -> None:
        self._graph, self._live = graph, live
        self._found: dict[str, tuple[Tensor, ...]] = {}

    def __getitem__(self, name: str) -> tuple[Tensor, ...]:
        found = self._found.get(name)
        if found is None:
            position = self._graph.position(name)
            if position not in self._live:
                raise KeyError(name)
            edges = self._graph.inputs_at(position)
            through = (_through(self._graph, src, edge.src_port or 0) for src, edge in edges if edge.kind == "data")
            names = self._graph.names
            found = self._found[name] = tuple([Tensor(names[src], port) for src, port in through])
        return found

    def __iter__(self) -> Iterator[str]:
        return (self._graph.names[position] for position in self._live)

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, name: object) -> bool:
        return name in self._graph and self._graph.position(str(name)) in self._live


@dataclass(frozen=True)
class Dataflow:
    """Who computes with which tensor, in one flat graph; passes are looked through, dead ops left out.

    ``effects`` names the ops that run although nobody may read what they give.
    """

    graph: Table
    effects: frozenset[str]

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
        return {self.graph.names[position]: index for index, position in enumerate(self.graph.order)}

    @cached_property
    def inputs(self) -> Mapping[str, tuple[Tensor, ...]]:
        """Live op -> what it reads, by input port."""
        return _Inputs(self.graph, self._live)

    @cached_property
    def fetched(self) -> Mapping[str, str]:
        """Op -> the result of the function that it gives."""
        results = sorted(filter(self._live.__contains__, self.graph.positions_of({RETURN})), key=self._live.__getitem__)
        names = [self.graph.names[position] for position in results]
        return {tensor.op: name for name in names for tensor in self.inputs[name]}

    @cached_property
    def _live(self) -> Mapping[int, int]:
        """Position of a live op -> its number in the order in which it was met on the way back from the roots."""
        graph = self.graph
        pending = self._roots()
        seen = bytearray(len(graph))
        for position in pending:
            seen[position] = True
        met: dict[int, int] = {}
        while pending:
            position = pending.pop()
            met[position] = len(met)
            for source in self._needed(position):
                if not seen[source]:
                    seen[source] = True
                    pending.append(source)
        return met

    def _needed(self, position: int) -> list[int]:
        """Return the ops that one computes with, and then those that it waits for; passes are looked through."""
        graph, passing = self.graph, self._passing
        read, awaited = [], []
        for source, edge in graph.inputs_at(position):
            if edge.kind != "data":
                awaited.append(source)
            elif passing[source]:
                read.append(_through(graph, source, edge.src_port or 0)[0])
            else:
                read.append(source)
        first, sources, links = graph.first, graph.sources, graph.links
        if len(read) + len(awaited) < first[position + 1] - first[position]:
            span = range(first[position], first[position + 1])
            awaited.extend(sources[at] for at in span if links[at] is CONTROL)
        return read + awaited

    @cached_property
    def _passing(self) -> bytearray:
        passing = bytearray(len(self.graph))
        for position in self.graph.positions_of(PASSES):
            passing[position] = True
        return passing

    def _roots(self) -> list[int]:
        """Return the ops that a step is run for: results and effects, or all ends of a graph that names no results."""
        graph = self.graph
        results = list(graph.positions_of({RETURN}))
        ends = [] if results else [position for position, readers in enumerate(graph.following) if not readers]
        return sorted({*results, *ends, *map(graph.position, self.effects)})

    def op(self, name: str) -> Op:
        """Return the op ``name``."""
        return self.graph.op(name)

    def readers(self, name: str) -> list[Reader]:
        """Return the live ops that compute with an output of ``name``, results of the function not counted."""
        positions = sorted(set(self._reached(self.graph.position(name))), key=self._live.__getitem__)
        return [
            Reader(self.graph.names[position], port, tensor.port)
            for position in positions
            for port, tensor in enumerate(self.inputs[self.graph.names[position]])
            if tensor.op == name
        ]

    def _reached(self, position: int) -> Iterator[int]:
        """Yield the live ops behind an op, and behind what passes its result on."""
        pending = [position]
        for passing in pending:  # grows while it is walked; the graph has no cycle
            for reader in self.graph.following[passing]:
                kind = self.graph.bodies[reader].type
                if kind in PASSES:
                    pending.append(reader)
                elif kind != RETURN and reader in self._live:
                    yield reader

    def spec(self, tensor: Tensor) -> TensorSpec | None:
        """Return what is known of a tensor."""
        outputs = self.op(tensor.op).outputs
        return outputs[tensor.port] if tensor.port < len(outputs) else None

    def live(self, accepts: Callable[[str], object] | None = None) -> Iterator[tuple[str, Op]]:
        """Iterate over the live ops in topological order; only those whose type is accepted, where that is given."""
        if accepts is None:
            chosen: Iterable[int] = self.graph.order
        else:
            kinds = {kind for kind in self.graph.by_type if accepts(kind)}
            chosen = sorted(self.graph.positions_of(kinds), key=self.graph.rank.__getitem__)
        for position in chosen:
            if position in self._live:
                yield self.graph.names[position], self.graph.op_at(position)

    def count(self, accepts: Callable[[str], object]) -> int:
        """Return how many live ops have a type that is accepted."""
        accepted = {kind for kind in self.graph.by_type if accepts(kind)}
        return sum(self.graph.bodies[position].type in accepted for position in self._live)

    def controls(self, name: str) -> tuple[list[str], list[str]]:
        """Return the live ops that ``name`` waits for, and those that wait for it, by control edges."""
        before = dict.fromkeys(self.graph.control_inputs(name))
        after = [dst for dst, edge in self.graph.out_edges(name) if edge.kind == "control"]
        return [src for src in before if src in self.inputs], [dst for dst in after if dst in self.inputs]

    def with_passes(self, names: Iterable[str]) -> tuple[str, ...]:
        """Add to ``names`` the ops between two of them that pass a tensor on, so that no path leaves and comes back."""
        inside = set(names)
        between: set[str] = set()
        for name in inside:
            for src in data_inputs(self.graph, name):
                path = self._passes_behind(src)
                if path and self._behind(src) in inside:
                    between.update(path)
        return tuple(sorted(inside | between, key=self.order.__getitem__))

    def _behind(self, name: str) -> str:
        return self.graph.names[_through(self.graph, self.graph.position(name), 0)[0]]

    def _passes_behind(self, name: str) -> list[str]:
        found = []
        while name not in found and self.op(name).type in PASSES and data_inputs(self.graph, name):
            found.append(name)
            name = data_inputs(self.graph, name)[0]
        return found


def _through(graph: Table, position: int, port: int) -> tuple[int, int]:
    """Follow a tensor back through ops that pass it on."""
    while (kind := graph.bodies[position].type) in PASSES:
        wanted = port if kind == "IdentityN" else 0
        edges = graph.inputs_at(position)
        found = next((item for item in edges if (item[1].dst_port or 0) == wanted and item[1].kind == "data"), None)
        if found is None:
            break
        position, port = found[0], found[1].src_port or 0
    return position, port


@fact
def dataflow(facts: Facts) -> Dataflow | None:
    """Who reads what in the graph as written, dead ops left out; ``None`` where that graph is not known."""
    traced = facts(traced_graph)
    if traced is None or not len(traced) or facts.evidence.traced is None:
        return None
    return Dataflow(traced, effects(facts.evidence.traced))
