"""A graph as a training step is walked: by the tensors that ops hand on, and by the variables that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphlens.facts.flat.constants import handle_origin, variable_writes
from graphlens.ir.nodes import CONTROL
from graphlens.ir.ops import REFERENCE_VARIABLES, VARIABLE_READS
from graphlens.ir.table import Table

Neighbours = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """The edges of a graph along which tensors go; control edges are left out, they carry no value.

    ``before`` and ``after`` are the producers and the readers of each op.  ``reads`` and ``writes`` are the ops that do
    so with a variable, by where its handle comes from; ``written`` says the same by the op that writes.
    """

    graph: Table
    before: Neighbours
    after: Neighbours
    reads: Mapping[int, Sequence[int]]
    writes: Mapping[int, Sequence[int]]
    written: Mapping[int, int]

    @staticmethod
    def of(graph: Table) -> Walk:
        """Return what there is to walk in ``graph``."""
        before = _before(graph)
        after: list[list[int]] = [[] for _ in before]
        for position, sources in enumerate(before):
            for source in sources:
                after[source].append(position)
        written = dict(variable_writes(graph))
        writes, reads = defaultdict(list), defaultdict(list)
        for position, variable in written.items():
            writes[variable].append(position)
        for position in graph.positions_of(VARIABLE_READS):
            for handle in before[position][:1]:
                reads[handle_origin(graph, handle)].append(position)
        for variable in graph.positions_of(REFERENCE_VARIABLES):
            reads[variable] += [reader for reader in after[variable] if reader not in written]
        return Walk(graph, before, after, dict(reads), dict(writes), written)

    def carried_by(self, variables: Collection[int]) -> Walk:
        """Return the walk in which what is written into one of ``variables`` goes on to who reads it afterwards."""
        before, after = list(map(list, self.before)), list(map(list, self.after))
        for variable in variables:
            writes = set(self.writes.get(variable, ()))
            for read in self.reads.get(variable, ()):
                for write in writes.intersection(self.graph.before(read)):  # the read waits for it by a control edge
                    if write not in self.before[read]:
                        before[read].append(write)
                        after[write].append(read)
        return replace(self, before=before, after=after)

    def ancestors(self, ops: Iterable[int]) -> bytearray:
        """Mark ``ops`` and all that they are made of."""
        return _closure(self.before, ops)

    def descendants(self, ops: Iterable[int]) -> bytearray:
        """Mark ``ops`` and all that is made of them."""
        return _closure(self.after, ops)


def _before(graph: Table) -> list[list[int]]:
    first, sources, links = graph.first, graph.sources, graph.links
    found = []
    for position in range(len(graph)):
        start, end = first[position], first[position + 1]
        found.append([sources[at] for at in range(start, end) if links[at] is not CONTROL])
    return found


def _closure(neighbours: Neighbours, ops: Iterable[int]) -> bytearray:
    inside = bytearray(len(neighbours))
    pending = []
    for op in ops:
        if not inside[op]:
            inside[op] = 1
            pending.append(op)
    while pending:
        for other in neighbours[pending.pop()]:
            if not inside[other]:
                inside[other] = 1
                pending.append(other)
    return inside
