"""Join the ops of one function by the names that their inputs refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from graphlens.ir.nodes import CONTROL, Edge, Op
from graphlens.ir.ops import MERGES, NEXT_ITERATIONS
from graphlens.ir.table import Table, TableBuilder
from graphlens.loaders.acyclic import break_cycles


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

    graph: TableBuilder = field(default_factory=TableBuilder)
    problems: Problems = field(default_factory=Problems)
    offsets: list[Mapping[str, int] | None] = field(default_factory=list)
    back_edges: list[tuple[str, str, Edge]] = field(default_factory=list)
    _sorted: bool = True

    def free_name(self, name: str) -> str:
        """Return ``name``, or a changed one when an op of that name exists (TensorFlow refuses such graphs)."""
        if name in self.graph:
            self.problems.add("ops share their name with another op and were renamed", name)
        return self.graph.free_name(name)

    def add_op(self, op: Op, offsets: Mapping[str, int] | None = None) -> None:
        """Add an op under its name, which must be free."""
        self.offsets.append(offsets)
        self.graph.add_op(op)

    def link(self, inputs: Iterable[str], dst: str) -> None:
        """Add the edges of op ``dst`` from its inputs, as a ``NodeDef`` writes them."""
        self.link_at(inputs, self.graph.at(dst))

    def link_at(self, inputs: Iterable[str], reader: int) -> None:
        """Add the edges of the op at a position from its inputs."""
        position, connect = self.graph.position, self.graph.connect
        merges = self.graph.op_at(reader).type in MERGES
        port = 0
        for written in inputs:
            source = position(written)
            if source is not None and source < reader and not merges:  # nearly all of them: the first output of an op
                connect(source, reader, data_edge(0, port))
            elif written.startswith("^"):
                self._connect(position(written[1:]), written[1:], reader, CONTROL, merges)
                continue
            else:
                source, name, src_port = self._resolve(written)
                self._connect(source, name, reader, data_edge(src_port, port), merges)
            port += 1

    def _resolve(self, written: str) -> tuple[int | None, str, int | None]:
        """Split ``a``, ``a:1`` or, in function bodies, ``a:output:1`` into the op and the number of its output."""
        whole = self.graph.position(written)
        if whole is not None:
            return whole, written, 0
        parts = written.rsplit(":", 2)
        if len(parts) == 3 and (position := self.graph.position(parts[0])) is not None:
            return position, parts[0], self._port(position, parts[1], parts[2])
        name, _, port = written.rpartition(":")
        if name and port.isdecimal():
            return self.graph.position(name), name, int(port)
        return None, written, 0

    def _port(self, position: int, output: str, index: str) -> int | None:
        offsets = self.offsets[position]
        number = int(index) if index.isdecimal() else 0
        if offsets is not None and output in offsets:
            return offsets[output] + number
        # Of an op that nobody registered, the number is only certain when there is a single output.
        return 0 if len(self.graph.op_at(position).outputs) == 1 else None

    def _connect(self, source: int | None, name: str, reader: int, edge: Edge, merges: bool) -> None:
        if source is None:
            self.problems.add(
                "inputs name ops that do not exist", f"'{name}' read by '{self.graph.op_at(reader).name}'"
            )
        elif merges and self.graph.op_at(source).type in NEXT_ITERATIONS:
            self.back_edges.append((name, self.graph.op_at(reader).name, edge))
        else:
            self._sorted = self._sorted and source < reader
            self.graph.connect(source, reader, edge)

    def finish(self) -> Table:
        """Return the graph as a DAG."""
        if not self._sorted:
            for src, dst, _ in break_cycles(self.graph):
                self.problems.add("edges close a cycle and were left out", f"'{src}' to '{dst}'")
        return self.graph.table()
