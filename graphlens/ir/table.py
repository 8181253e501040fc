"""The ops of one function, or of one flat program, as columns: the graph that the judge reads.

A column holds one entry per op at its *position*; edges are kept by destination in compressed rows.  An op takes
about 200 bytes and an edge 20, in networkx 900 and 500; users get a ``networkx.MultiDiGraph`` that is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from graphlens.ir.nodes import CONTROL, Edge, Op

if TYPE_CHECKING:
    import networkx as nx

OPS_LIMIT: Final = 3_000_000  # of one graph; to judge a million ops and write all reports takes about 2 GB

_FEW_INPUTS: Final = 32  # of more than these, those from one op are looked up


class Table:
    """An immutable DAG of ops, addressed by name as rules speak, or by position where a whole graph is walked.

    Parameters
    ----------
    names
        The name of each op, in the order of the file.
    ops
        The op at each position.  One that stands under another name than its own (an op of a function that was
        inlined) gets that name when it is asked for.
    first, sources, links
        The edges into the op at position ``i`` are ``first[i]`` to ``first[i + 1] - 1``: ``sources`` holds the position
        of the producer and ``links`` the edge.  Control edges are the one object ``CONTROL``.
    following
        For each op the positions of those that read it or wait for it, each once; derived from the edges by default.
    """

    __slots__ = (
        "_by_port",
        "_by_source",
        "_by_type",
        "_following",
        "_index",
        "_kinds",
        "_networkx",
        "_ops",
        "_order",
        "_rank",
        "first",
        "links",
        "names",
        "sources",
    )

    def __init__(
        self,
        names: Sequence[str],
        ops: list[Op],
        first: Sequence[int],
        sources: Sequence[int],
        links: Sequence[Edge],
        *,
        index: Mapping[str, int] | None = None,
        following: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.names, self._ops = names, ops
        self.first, self.sources, self.links = first, sources, links
        self._index = index if index is not None else {name: position for position, name in enumerate(names)}
        self._following = following
        self._by_port: bool | None = None
        self._by_source: dict[int, dict[int, list[int]]] = {}
        self._order: Sequence[int] | None = None
        self._rank: Sequence[int] | None = None
        self._kinds: Sequence[Op] | None = None
        self._by_type: Mapping[str, Sequence[int]] | None = None
        self._networkx: nx.MultiDiGraph | None = None

    # -- ops by name --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def position(self, name: str) -> int:
        """Return where the op ``name`` stands; ``KeyError`` when there is none."""
        return self._index[name]

    def op(self, name: str) -> Op:
        """Return the op ``name``; ``KeyError`` when there is none."""
        return self.op_at(self._index[name])

    def get(self, name: str) -> Op | None:
        """Return the op ``name``, or ``None`` when there is none."""
        position = self._index.get(name)
        return None if position is None else self.op_at(position)

    def ops(self) -> Iterator[Op]:
        """Iterate over all ops in order."""
        return map(self.op_at, range(len(self.names)))

    def items(self) -> Iterator[tuple[str, Op]]:
        """Iterate over all ops with their names, in order."""
        return zip(self.names, self.ops(), strict=True)

    @property
    def bodies(self) -> Sequence[Op]:
        """The op at each position, maybe by the name that it has in its own function: for all but its name."""
        return self._ops

    def op_at(self, position: int) -> Op:
        """Return the op at a position."""
        op, name = self._ops[position], self.names[position]
        if op.name != name:
            op = Op(name, op.type, op.device, op.outputs, op.attrs, op.calls, op.constant, op.source)
            self._ops[position] = op
        return op

    # -- ops by type --------------------------------------------------------------------------------------------------

    @property
    def by_type(self) -> Mapping[str, Sequence[int]]:
        """Op type -> the positions of its ops, in order."""
        if self._by_type is None:
            found: dict[str, list[int]] = {}
            for position, op in enumerate(self._ops):
                known = found.get(op.type)
                if known is None:
                    found[op.type] = [position]
                else:
                    known.append(position)
            self._by_type = found
        return self._by_type

    @property
    def kinds(self) -> Sequence[Op]:
        """One op of each kind: ops of a kind have their type, attributes and output specs in common.

        Loaders share equal attributes, so that a graph of 100,000 ops has a few hundred kinds: what is to be found by
        these alone is looked for here first.
        """
        if self._kinds is None:
            kinds = {(op.type, id(op.attrs), id(op.outputs)): op for op in reversed(self._ops)}
            self._kinds = tuple(reversed(kinds.values()))
        return self._kinds

    def of_types(self, types: Collection[str]) -> list[str]:
        """Return the names of the ops whose type is among ``types``, in order."""
        return [self.names[position] for position in self.positions_of(types)]

    def positions_of(self, types: Collection[str]) -> Sequence[int]:
        """Return the positions of the ops whose type is among ``types``, in order."""
        known = self.by_type
        if len(types) > len(known):
            groups = [positions for kind, positions in known.items() if kind in types]
        else:
            groups = [known[kind] for kind in types if kind in known]
        return groups[0] if len(groups) == 1 else sorted(position for group in groups for position in group)

    def where(self, accepts: Callable[[str], object]) -> list[str]:
        """Return the names of the ops whose *type* is accepted, in order; every type is asked once."""
        return self.of_types({kind for kind in self.by_type if accepts(kind)})

    # -- edges --------------------------------------------------------------------------------------------------------

    @property
    def number_of_edges(self) -> int:
        """The number of edges, parallel ones counted each."""
        return len(self.sources)

    @property
    def following(self) -> Sequence[Sequence[int]]:
        """For each op the positions of those that read it or wait for it, each once."""
        if self._following is None:
            self._following = _following(self.first, self.sources)
        return self._following

    def before(self, position: int) -> Sequence[int]:
        """Return the positions of the ops that the one at ``position`` reads or waits for, each once."""
        sources = self.sources[self.first[position] : self.first[position + 1]]
        return sources if len(sources) < 2 else list(dict.fromkeys(sources))

    def predecessors(self, name: str) -> list[str]:
        """Return the ops that ``name`` reads or waits for, each once."""
        return [self.names[source] for source in self.before(self._index[name])]

    def successors(self, name: str) -> list[str]:
        """Return the ops that read ``name`` or wait for it, each once."""
        return [self.names[reader] for reader in self.following[self._index[name]]]

    def in_degree(self, name: str) -> int:
        """Return the number of edges into ``name``."""
        position = self._index[name]
        return self.first[position + 1] - self.first[position]

    def has_readers(self, name: str) -> bool:
        """Tell whether any op reads ``name`` or waits for it."""
        return bool(self.following[self._index[name]])

    def in_edges(self, name: str) -> list[tuple[str, Edge]]:
        """Return ``(source, edge)`` of the inputs of ``name`` that are no control edges, by input port."""
        position = self._index[name]
        edges = self.inputs_at(position)
        return [(self.names[source], edge) for source, edge in edges]

    def inputs_at(self, position: int) -> list[tuple[int, Edge]]:
        """Return ``(position of the source, edge)`` of the inputs that are no control edges, by input port."""
        start, end = self.first[position], self.first[position + 1]
        pairs = zip(self.sources[start:end], self.links[start:end], strict=True)
        edges = [pair for pair in pairs if pair[1] is not CONTROL]
        if len(edges) > 1 and not self._is_by_port():
            edges.sort(key=_destination_port)
        return edges

    def _is_by_port(self) -> bool:
        """Tell whether all inputs stand in the order of their ports, as loaders link them; found out once."""
        if self._by_port is None:
            spans = pairwise(self.first)
            self._by_port = all(_is_sorted(self.links[start:end]) for start, end in spans if end - start > 1)
        return self._by_port

    def data_before(self, position: int) -> list[int]:
        """Return the positions of the producers of the inputs that are no control edges, by input port."""
        return [source for source, _ in self.inputs_at(position)]

    def control_inputs(self, name: str) -> list[str]:
        """Return the ops that ``name`` waits for by a control edge."""
        position = self._index[name]
        span = range(self.first[position], self.first[position + 1])
        return [self.names[self.sources[at]] for at in span if self.links[at] is CONTROL]

    def out_edges(self, name: str) -> list[tuple[str, Edge]]:
        """Return ``(reader, edge)`` of all edges out of ``name``, control edges too."""
        position = self._index[name]
        return [(self.names[reader], edge) for reader, edge in self._out(position)]

    def edges(self) -> Iterator[tuple[str, str, Edge]]:
        """Iterate over all edges as ``(source, destination, edge)``, by their sources."""
        names = self.names
        for source, name in enumerate(names):
            for reader, edge in self._out(source):
                yield name, names[reader], edge

    def _out(self, source: int) -> Iterator[tuple[int, Edge]]:
        for reader in self.following[source]:
            for at in self._between(source, reader):
                yield reader, self.links[at]

    def _between(self, source: int, reader: int) -> Sequence[int]:
        """Return where the edges from ``source`` to ``reader`` are kept; of many inputs they are looked up."""
        span = range(self.first[reader], self.first[reader + 1])
        if len(span) <= _FEW_INPUTS:
            return [at for at in span if self.sources[at] == source]
        if reader not in self._by_source:
            found: dict[int, list[int]] = {}
            for at in span:
                found.setdefault(self.sources[at], []).append(at)
            self._by_source[reader] = found
        return self._by_source[reader][source]

    @property
    def order(self) -> Sequence[int]:
        """The positions so that each comes after all it depends on; ties keep the order of the file."""
        if self._order is None:
            self._order = topological_positions(self.following)
        return self._order

    @property
    def rank(self) -> Sequence[int]:
        """For each position its place in ``order``."""
        if self._rank is None:
            rank = [0] * len(self.names)
            for place, position in enumerate(self.order):
                rank[position] = place
            self._rank = rank
        return self._rank

    # -- other tables -------------------------------------------------------------------------------------------------

    def only(self, kept: Callable[[str], object]) -> Table:
        """Return a table of the ops whose name is kept, with the edges between them."""
        places = {position: at for at, position in enumerate(i for i, name in enumerate(self.names) if kept(name))}
        first, sources, links = [0], [], []
        for position in places:
            for at in range(self.first[position], self.first[position + 1]):
                if self.sources[at] in places:
                    sources.append(places[self.sources[at]])
                    links.append(self.links[at])
            first.append(len(sources))
        return Table([self.names[at] for at in places], [self._ops[at] for at in places], first, sources, links)

    def with_ops(self, replaced: Mapping[str, Op]) -> Table:
        """Return a table in which other ops stand in the place of some; the edges are shared."""
        if not replaced:
            return self
        ops = list(self._ops)
        for name, op in replaced.items():
            ops[self._index[name]] = op
        return Table(
            self.names, ops, self.first, self.sources, self.links, index=self._index, following=self._following
        )

    def networkx(self) -> nx.MultiDiGraph:
        """Return the same graph for networkx: an attribute ``op`` on nodes and ``edge`` on edges; made once, frozen."""
        if self._networkx is None:
            import networkx as nx

            self._networkx = nx.freeze(_networkx(self))
        return self._networkx


NO_OPS = Table((), [], (0,), (), ())


def _destination_port(pair: tuple[int, Edge]) -> int:
    return pair[1].dst_port or 0


def _is_sorted(links: Sequence[Edge]) -> bool:
    ports = [edge.dst_port or 0 for edge in links if edge is not CONTROL]
    return all(before <= after for before, after in pairwise(ports))


def _following(first: Sequence[int], sources: Sequence[int]) -> list[list[int]]:
    following: list[list[int]] = [[] for _ in range(len(first) - 1)]
    start = 0
    for position, end in enumerate(first[1:]):
        for source in sources[start:end]:
            readers = following[source]
            if not readers or readers[-1] != position:  # parallel edges come one after the other
                readers.append(position)
        start = end
    return following


def topological_positions(following: Sequence[Sequence[int]]) -> list[int]:
    """Return the positions so that each comes after all that it follows; those on or behind a cycle are left out.

    Ties keep their order (Kahn's algorithm).
    """
    waiting = [0] * len(following)
    for readers in following:
        for reader in readers:
            waiting[reader] += 1
    order = [position for position, count in enumerate(waiting) if not count]
    for position in order:  # grows while it is walked
        for reader in following[position]:
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    return order


def _networkx(table: Table) -> nx.MultiDiGraph:
    import networkx as nx

    graph = nx.MultiDiGraph()
    graph.add_nodes_from((name, {"op": op}) for name, op in table.items())
    # networkx's own adjacency is filled at once, in the order in which each op meets its neighbours: `add_edge` would
    # take ten times as long on a large graph.
    names, first, sources, links = table.names, table.first, table.sources, table.links
    for position, before in enumerate(graph._pred.values()):
        for at in range(first[position], first[position + 1]):
            parallel = before.setdefault(names[sources[at]], {})
            parallel[len(parallel)] = {"edge": links[at]}
    for (name, after), readers in zip(graph._succ.items(), table.following, strict=True):
        after.update((names[reader], graph._pred[names[reader]][name]) for reader in readers)
    return graph


class TableBuilder:
    """Collects ops and edges, in any order, and makes a table of them."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._ops: list[Op] = []
        self._sources: list[int] = []
        self._readers: list[int] = []
        self._links: list[Edge] = []

    @classmethod
    def of(cls, table: Table) -> TableBuilder:
        """Return a builder that holds what ``table`` does."""
        builder = cls()
        for op in table.ops():
            builder.add_op(op)
        for source, name, edge in table.edges():
            builder.add_edge(source, name, edge)
        return builder

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return len(self._ops)

    def op(self, name: str) -> Op:
        """Return the op that was added under ``name``."""
        return self._ops[self._index[name]]

    def ops(self) -> Iterable[Op]:
        """Return the ops that were added so far."""
        return self._ops

    def op_at(self, position: int) -> Op:
        """Return the op that was added at a position; its own name may be another than the table's."""
        return self._ops[position]

    def at(self, name: str) -> int:
        """Return the position of an op that was added; ``KeyError`` when there is none of that name."""
        return self._index[name]

    def position(self, name: str) -> int | None:
        """Return the position of an op that was added, ``None`` when there is none of that name."""
        return self._index.get(name)

    def add_op(self, op: Op, name: str | None = None) -> int:
        """Add an op, under a name of the table's own where one is given, and return its position.

        A name that another op has already gets a number: names are what ops of a table are told apart by.
        """
        chosen = op.name if name is None else name
        position = self._index[self.free_name(chosen) if chosen in self._index else chosen] = len(self._ops)
        self._ops.append(op)
        return position

    def free_name(self, name: str) -> str:
        """Return ``name`` where no op has it yet, else the first of ``name#2``, ``name#3``, … that none has."""
        if name not in self._index:
            return name
        number = self._numbers.get(name, 2)  # all below are taken
        while f"{name}#{number}" in self._index:
            number += 1
        self._numbers[name] = number
        return f"{name}#{number}"

    def add_edge(self, source: str, name: str, edge: Edge) -> None:
        """Add an edge between two ops that were added; ``KeyError`` when one was not."""
        self.connect(self._index[source], self._index[name], edge)

    def connect(self, source: int, reader: int, edge: Edge) -> None:
        """Add an edge between two positions."""
        self._sources.append(source)
        self._readers.append(reader)
        self._links.append(CONTROL if edge.kind == "control" else edge)

    def following(self) -> list[list[int]]:
        """Return for each op those that read it or wait for it, each once, as their edges were added."""
        following: list[dict[int, None]] = [{} for _ in self._ops]
        for source, reader in zip(self._sources, self._readers, strict=True):
            following[source][reader] = None
        return [list(readers) for readers in following]

    def remove_edges(self, pairs: Collection[tuple[int, int]]) -> list[tuple[int, int, Edge]]:
        """Remove all edges between these pairs of positions, and return them pair by pair."""
        removed: dict[tuple[int, int], list[tuple[int, int, Edge]]] = {pair: [] for pair in pairs}
        kept = []
        for item in zip(self._sources, self._readers, self._links, strict=True):
            removed[item[:2]].append(item) if item[:2] in removed else kept.append(item)
        self._sources = [source for source, _, _ in kept]
        self._readers = [reader for _, reader, _ in kept]
        self._links = [edge for _, _, edge in kept]
        return [item for items in removed.values() for item in items]

    def table(self) -> Table:
        """Return the table; the builder must not be used afterwards."""
        names = list(self._index)
        if all(before <= after for before, after in pairwise(self._readers)):  # as loaders link them
            first = _offsets(self._readers, len(names))
            return Table(names, self._ops, first, self._sources, self._links, index=self._index)
        following = self.following()
        order = sorted(range(len(self._readers)), key=self._readers.__getitem__)
        first = _offsets(self._readers, len(names))
        sources = [self._sources[at] for at in order]
        links = [self._links[at] for at in order]
        return Table(names, self._ops, first, sources, links, index=self._index, following=following)


def _offsets(readers: Sequence[int], size: int) -> list[int]:
    counts = [0] * (size + 1)
    for reader in readers:
        counts[reader + 1] += 1
    for position in range(size):
        counts[position + 1] += counts[position]
    return counts
