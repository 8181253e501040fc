"""A flat graph as the placer walks it: ops by number, every edge, and the name and dtype of every argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

from graphlens.ir.graph import Function
from graphlens.ir.nodes import Edge, Op
from graphlens.ir.optable import Argument, dtypes_of, table
from graphlens.ir.table import Table

RESOURCE: Final = "resource"
VARIANT: Final = "variant"
STRING: Final = "string"
INT32: Final = "int32"


class Wire(NamedTuple):
    """One edge; ``src_port`` and ``dst_port`` are -1 for a control dependency."""

    src: int
    src_port: int
    dst: int
    dst_port: int


class Slot(NamedTuple):
    """One tensor that an op takes or gives: the argument that it belongs to, and its dtype."""

    argument: str
    dtype: str
    is_ref: bool = False


UNKNOWN_SLOT: Final = Slot("", "unknown")


@dataclass(frozen=True)
class Netlist:
    """Ops in the order of the graph they were read from (the placer visits them in it), and their edges.

    ``wires`` are ordered by the op that they lead to, then by its input; control dependencies come last.
    """

    ops: tuple[Op, ...]
    wires: tuple[Wire, ...]

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Name -> number."""
        return {op.name: number for number, op in enumerate(self.ops)}

    @cached_property
    def into(self) -> tuple[tuple[Wire, ...], ...]:
        """The edges that lead to each op."""
        found: list[list[Wire]] = [[] for _ in self.ops]
        for wire in self.wires:
            found[wire.dst].append(wire)
        return tuple(map(tuple, found))

    @cached_property
    def out_of(self) -> tuple[tuple[Wire, ...], ...]:
        """The edges that lead from each op."""
        found: list[list[Wire]] = [[] for _ in self.ops]
        for wire in self.wires:
            found[wire.src].append(wire)
        return tuple(map(tuple, found))

    @cached_property
    def inputs(self) -> tuple[tuple[Slot, ...], ...]:
        """What each op takes, by input; empty where its type is not registered."""
        return tuple(slots_of(op, "input") for op in self.ops)

    @cached_property
    def outputs(self) -> tuple[tuple[Slot, ...], ...]:
        """What each op gives, by output; empty where its type is not registered."""
        return tuple(slots_of(op, "output") for op in self.ops)

    def taken(self, wire: Wire) -> Slot:
        """Return what the reader of a data edge takes it as."""
        slots = self.inputs[wire.dst]
        return slots[wire.dst_port] if wire.dst_port < len(slots) else UNKNOWN_SLOT

    def given(self, wire: Wire) -> Slot:
        """Return what the writer of a data edge gives it as."""
        slots = self.outputs[wire.src]
        return slots[wire.src_port] if wire.src_port < len(slots) else UNKNOWN_SLOT


def netlist_of(graph: Table | Function) -> Netlist:
    """Return ``graph`` as a netlist; a :class:`Function` brings the back edges of its loops along."""
    back_edges: tuple[tuple[str, str, Edge], ...] = ()
    if isinstance(graph, Function):
        back_edges, graph = graph.back_edges, graph.graph
    edges = [*graph.edges(), *back_edges]
    wires = [_wire(graph.position(src), graph.position(dst), edge) for src, dst, edge in edges]
    return Netlist(tuple(graph.ops()), tuple(sorted(wires, key=_by_destination)))


def _wire(src: int, dst: int, edge: Edge) -> Wire:
    joins_a_branch = edge.dst_port is None  # a result that a conditional, beside its inlined branches, stands for
    if edge.kind == "control" or joins_a_branch:
        return Wire(src, -1, dst, -1)
    return Wire(src, edge.src_port or 0, dst, edge.dst_port or 0)


def _by_destination(wire: Wire) -> tuple[int, bool, int]:
    return wire.dst, wire.dst_port < 0, wire.dst_port


def slots_of(op: Op, side: Literal["input", "output"]) -> tuple[Slot, ...]:
    """Return what ``op`` takes or gives; empty where its type is not registered."""
    info = table().get(op.type)
    if info is None:
        return tuple(Slot("", spec.dtype) for spec in op.outputs) if side == "output" else ()
    return _expanded(info.outputs if side == "output" else info.inputs, op)


def _expanded(arguments: tuple[Argument, ...], op: Op) -> tuple[Slot, ...]:
    listed = dtypes_of(arguments, op.attrs)
    if listed is None:
        return ()
    return tuple(
        Slot(name, dtype, argument.is_ref)
        for argument, (name, dtypes) in zip(arguments, listed, strict=True)
        for dtype in dtypes
    )
