"""Join the ops of one function by the names that their inputs refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import networkx as nx

from graphlens.ir.graph import CONTROL, Edge, Op
from graphlens.loaders.acyclic import MERGE, NEXT_ITERATION, break_cycles


@lru_cache(maxsize=4096)
def data_edge(src_port: int | None, dst_port: int) -> Edge:
    """Return the one ``Edge`` object of these ports: a large graph has few different ones."""
    return Edge("data", src_port, dst_port)


@dataclass(slots=True)
class Problems:
    """What was wrong with one function, counted by kind, so that a corrupt file makes few notes."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one problem; the first of its kind is quoted."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def notes(self, where: str) -> tuple[str, ...]:
        """Return one sentence per kind of problem."""
        return tuple(f"{where}: {count} {kind} ({self.examples[kind]})" for kind, count in self.counts.items())


@dataclass(slots=True)
class Linker:
    """Builds the graph of one function: add all ops first, then all inputs, then :meth:`finish`.

    ``offsets`` is per op where each of its named outputs starts (see ``nodes.Decoded``).  ``back_edges`` collects the
    edges by which a loop's next iteration begins, which are left out of the graph.
    """

    graph: nx.MultiDiGraph = field(default_factory=nx.MultiDiGraph)
    problems: Problems = field(default_factory=Problems)
    offsets: dict[str, Mapping[str, int] | None] = field(default_factory=dict)
    back_edges: list[tuple[str, str, Edge]] = field(default_factory=list)
    _order: dict[str, int] = field(default_factory=dict)
    _types: dict[str, str] = field(default_factory=dict)
    _sorted: bool = True

    def free_name(self, name: str) -> str:
        """Return ``name``, or a changed one when an op of that name exists (TensorFlow refuses such graphs)."""
        if name not in self._order:
            return name
        self.problems.add("ops share their name with another op and were renamed", name)
        number = 2
        while f"{name}#{number}" in self._order:
            number += 1
        return f"{name}#{number}"

    def add_op(self, op: Op, offsets: Mapping[str, int] | None = None) -> None:
        """Add an op under its name, which must be free."""
        self._order[op.name] = len(self._order)
        self._types[op.name] = op.type
        self.offsets[op.name] = offsets
        self.graph.add_node(op.name, op=op)

    def link(self, inputs: Iterable[str], dst: str) -> None:
        """Add the edges of op ``dst`` from its inputs, as a ``NodeDef`` writes them."""
        port = 0
        for written in inputs:
            if written.startswith("^"):
                self._connect(written[1:], dst, CONTROL)
                continue
            src, src_port = self.resolve(written)
            self._connect(src, dst, data_edge(src_port, port))
            port += 1

    def resolve(self, written: str) -> tuple[str, int | None]:
        """Split ``a``, ``a:1`` or, in function bodies, ``a:output:1`` into the op and the number of its output."""
        if written in self._order:
            return written, 0
        parts = written.rsplit(":", 2)
        if len(parts) == 3 and parts[0] in self._order:
            return parts[0], self._port(parts[0], parts[1], parts[2])
        name, _, port = written.rpartition(":")
        return (name, int(port)) if name and port.isdecimal() else (written, 0)

    def _port(self, name: str, output: str, index: str) -> int | None:
        offsets = self.offsets[name]
        number = int(index) if index.isdecimal() else 0
        if offsets is not None and output in offsets:
            return offsets[output] + number
        # Of an op that nobody registered, the number is only certain when there is a single output.
        return 0 if len(self.graph.nodes[name]["op"].outputs) == 1 else None

    def _connect(self, src: str, dst: str, kind: Edge) -> None:
        position = self._order.get(src)
        if position is None:
            self.problems.add("inputs name ops that do not exist", f"'{src}' read by '{dst}'")
            return
        if self._types[dst] in MERGE and self._types[src] in NEXT_ITERATION:
            self.back_edges.append((src, dst, kind))
            return
        if position >= self._order[dst]:
            self._sorted = False
        self.graph.add_edge(src, dst, edge=kind)

    def finish(self) -> nx.MultiDiGraph:
        """Return the graph as a DAG."""
        if not self._sorted:
            for src, dst, _ in break_cycles(self.graph):
                self.problems.add("edges close a cycle and were left out", f"'{src}' to '{dst}'")
        return self.graph
