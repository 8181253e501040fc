"""Embedding tables: who looks rows up in them, and what passes over all of their rows to update a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.constants import handle_origin
from graphlens.facts.graphs import judged_graph, judged_stage
from graphlens.ir.graph import Variable
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.ops import MERGES, PASSES, SHAPE_READERS, VIEWS, WHOLE_READS, is_variable_write
from graphlens.ir.table import Table

# These look rows of a tensor up: of a table they read what they are asked for.
ROW_LOOKUPS: Final = frozenset({"Gather", "GatherV2", "GatherNd", "Slice", "StridedSlice"})
HANDLE_LOOKUPS: Final = frozenset({"ResourceGather", "ResourceGatherNd"})  # of a variable, by its handle
# How TensorFlow makes the gradient of a lookup, rows with their numbers, a tensor of the table's size.
DENSE_MAKERS: Final = frozenset({"UnsortedSegmentSum"})
# These hand the tensor on, or look at its shape only: no element is read.
_NO_PASS: Final = VIEWS | PASSES | WHOLE_READS | MERGES | SHAPE_READERS | ROW_LOOKUPS

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class DenseTable:
    """A variable of which a step looks rows up, and that it updates with a gradient of all its rows.

    Attributes
    ----------
    variables
        The tables' names; several where tables of one shape are updated together.
    spec
        Shape and type of one.
    sums
        The ops that make the gradient dense.
    passes
        The ops that compute from, or write into, a tensor of the table's shape, in the order of the graph: of those
        that update it, and the variables that the optimizer keeps beside it.
    reads
        The reads of whole variables of that shape among them; they hand on the buffer, and are no passes.
    lookups
        The ops that look rows up in the tables.
    rows_touched
        How many rows are looked up in a step, counting one that is looked up twice twice; ``None`` where not known.
    """

    variables: tuple[str, ...]
    spec: TensorSpec
    sums: tuple[str, ...]
    passes: tuple[str, ...]
    reads: tuple[str, ...] = ()
    lookups: tuple[str, ...] = ()
    rows_touched: int | None = None

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        (rows, *_) = self.spec.shape or (None,)
        assert rows is not None
        return rows


@fact
def dense_tables(facts: Facts) -> tuple[DenseTable, ...]:
    """The embedding tables whose gradient the judged graph makes dense, by their place in it."""
    graph = facts(judged_graph)
    sums = graph.positions_of(DENSE_MAKERS)
    if not sums:
        return ()
    handles = _Handles(graph, bound_variables(facts))
    looked_up = handles.looked_up()
    found, seen = [], set[int]()
    for start in sums:
        shape = _shape(graph, start)
        if start in seen or shape is None or not _is_table(shape):
            continue
        group = handles.of_one_shape(start, shape)
        seen |= group.ops
        tables = sorted(group.written & looked_up.keys())
        if tables and not _is_dense_anyway(graph, group.ops):
            found.append(_table(handles, group, shape, {table: looked_up[table] for table in tables}))
    return tuple(found)


def bound_variables(facts: Facts) -> Mapping[str, Variable]:
    """Return which variables the arguments of the judged graph are bound to."""
    evidence = facts.evidence
    graph = evidence.executed if facts(judged_stage) == "executed" else evidence.traced
    return graph.main.captures if graph is not None else {}


# -- the ops around one table ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """Ops that are joined by tensors of one shape, or by a variable that one writes and another reads."""

    ops: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)  # where the handles of the variables come from


class _Handles:
    """The variables of a graph: which ops read and write each, by where its handle comes from."""

    def __init__(self, graph: Table, bound: Mapping[str, Variable]) -> None:
        self.graph, self._bound = graph, bound
        self._users: dict[int, list[int]] = defaultdict(list)
        self._handle_of: dict[int, int] = {}
        for kind, positions in graph.by_type.items():
            if kind in WHOLE_READS or kind in HANDLE_LOOKUPS or is_variable_write(kind):
                for position in positions:
                    self._add(position)

    def _add(self, position: int) -> None:
        for handle in self.graph.data_before(position)[:1]:
            origin = self._handle_of[position] = handle_origin(self.graph, handle)
            self._users[origin].append(position)

    def variable(self, handle: int) -> str:
        """Return the name of a variable, or of its handle where nobody says it."""
        name = self.graph.names[handle]
        known = self._bound.get(name)
        return known.name if known and known.name else name

    def looked_up(self) -> Mapping[int, Sequence[int]]:
        """Return the handle of each variable of which rows are looked up -> the ops that do it."""
        found: dict[int, list[int]] = defaultdict(list)
        for position in self.graph.positions_of(HANDLE_LOOKUPS):
            if position in self._handle_of:  # one of a damaged file may read nothing
                found[self._handle_of[position]].append(position)
        for position in self.graph.positions_of(ROW_LOOKUPS):
            source = _behind(self.graph, position)
            if source in self._handle_of and self.graph.bodies[source].type in WHOLE_READS:
                found[self._handle_of[source]].append(position)
        return found

    def of_one_shape(self, start: int, shape: Shape) -> _Group:
        """Return the ops around ``start`` that are joined by tensors of ``shape`` and by variables that hold one."""
        group = _Group({start})
        pending = [start]
        while pending:
            position = pending.pop()
            for other in self._joined(position, shape, group):
                if other not in group.ops:
                    group.ops.add(other)
                    pending.append(other)
        return group

    def _joined(self, position: int, shape: Shape, group: _Group) -> Iterator[int]:
        graph = self.graph
        before = [source for source in graph.data_before(position) if _shape(graph, source) == shape]
        yield from before
        if _shape(graph, position) == shape:
            yield from (reader for reader in graph.following[position] if position in graph.data_before(reader))
        handle = self._handle_of.get(position)
        if handle is None or graph.bodies[position].type in HANDLE_LOOKUPS:
            return
        if is_variable_write(graph.bodies[position].type):
            if not before:  # rows of it, or a number
                return
            group.written.add(handle)
        for user in self._users[handle]:
            if _shape(graph, user) == shape or any(_shape(graph, one) == shape for one in graph.data_before(user)[1:]):
                yield user

    def touched(self, group: Iterable[int]) -> int | None:
        """Return how many rows the gradients in a group are about; gradients with one list of rows count once."""
        ids = {
            (source, edge.src_port)
            for position in group
            if self.graph.bodies[position].type in DENSE_MAKERS
            for source, edge in self.graph.inputs_at(position)[1:2]
        }
        counts = [_elements(self.graph, source, port) for source, port in ids]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None


def _table(handles: _Handles, group: _Group, shape: Shape, tables: Mapping[int, Sequence[int]]) -> DenseTable:
    graph = handles.graph
    ordered = sorted(group.ops, key=graph.rank.__getitem__)

    def named(positions: Iterable[int]) -> tuple[str, ...]:
        return tuple(graph.names[position] for position in positions)

    sums = [position for position in ordered if graph.bodies[position].type in DENSE_MAKERS]
    return DenseTable(
        variables=tuple(handles.variable(handle) for handle in tables),
        spec=TensorSpec(graph.bodies[sums[0]].outputs[0].dtype, shape),
        sums=named(sums),
        passes=named(position for position in ordered if graph.bodies[position].type not in _NO_PASS),
        reads=named(position for position in ordered if graph.bodies[position].type in WHOLE_READS),
        lookups=named(position for own in tables.values() for position in own),
        rows_touched=handles.touched(ordered),
    )


def _is_dense_anyway(graph: Table, group: Collection[int]) -> bool:
    """Tell whether the gradient of the rows is added to one of the whole table: to a regularizer's, or a product's."""
    return any(
        graph.bodies[reader].type == "AddN"
        for position in group
        if graph.bodies[position].type in DENSE_MAKERS
        for reader in graph.following[position]
    )


def _behind(graph: Table, lookup: int) -> int:
    """Return what gives the tensor that a lookup reads, through what only hands it on."""
    sources = graph.data_before(lookup)
    while sources and graph.bodies[sources[0]].type in PASSES:
        lookup, sources = sources[0], graph.data_before(sources[0])
    return sources[0] if sources else lookup


def _is_table(shape: Shape) -> bool:
    return len(shape) > 1 and None not in shape


def _shape(graph: Table, position: int) -> Shape | None:
    outputs = graph.bodies[position].outputs
    return outputs[0].shape if outputs else None


def _elements(graph: Table, position: int, port: int | None) -> int | None:
    outputs = graph.bodies[position].outputs
    return outputs[port].elements if port is not None and port < len(outputs) else None
