"""Join the partitions of an executed graph, one per device, into one function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from graphlens.ir.devices import short_device
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import Edge, Op
from graphlens.ir.ops import RECEIVES, SENDS
from graphlens.ir.table import TableBuilder
from graphlens.loaders.acyclic import break_cycles
from graphlens.loaders.graphdef import MAIN, build_reachable

TRANSFER = Edge("transfer", 0, 0)
_SENDS = SENDS | {"_XlaSendFromHost"}
_RECEIVES = RECEIVES | {"_XlaRecvAtHost"}
_RENDEZVOUS = ("tensor_name", "send_device", "recv_device")


def merge_partitions(partitions: Sequence[Any]) -> Graph:
    """Return one graph whose root function holds the ops of all ``partitions`` (``GraphDef`` messages).

    Each ``_Send`` is joined to its ``_Recv`` by a transfer edge.  Of ops that share a name, all but the first get the
    device appended, as in ``add@CPU:1``.
    """
    graphs = [build_reachable(partition) for partition in partitions]
    merged = TableBuilder()
    inputs: list[str] = []
    outputs: list[str] = []
    for graph in graphs:
        names = _add(merged, graph.main)
        inputs.extend(names[name] for name in graph.main.inputs)
        outputs.extend(names[name] for name in graph.main.outputs)
    notes = [note for graph in graphs for note in graph.notes]
    notes.extend(_join_transfers(merged))
    functions = {name: function for graph in graphs for name, function in graph.functions.items() if name != MAIN}
    main = Function(MAIN, merged.table(), tuple(inputs), tuple(outputs))
    return Graph(MAIN, {MAIN: main, **functions}, tuple(dict.fromkeys(notes)))


def _add(merged: TableBuilder, part: Function) -> dict[str, str]:
    """Add one partition and return the name that each of its ops got."""
    names: dict[str, str] = {}
    for name, op in part.graph.items():
        names[name] = _free_name(merged, op)
        merged.add_op(op if names[name] == name else replace(op, name=names[name]))
    for src, dst, edge in part.graph.edges():
        merged.add_edge(names[src], names[dst], edge)
    return names


def _free_name(merged: TableBuilder, op: Op) -> str:
    if op.name not in merged:
        return op.name
    return merged.free_name(f"{op.name}@{short_device(op.device) or 'other'}")


def _join_transfers(merged: TableBuilder) -> Iterator[str]:
    """Add the transfer edges; yield a note per receiver without a sender."""
    sends = {key: op.name for key, op in _transfers(merged, _SENDS)}
    alone = []
    for key, op in list(_transfers(merged, _RECEIVES)):
        if key in sends:
            merged.add_edge(sends[key], op.name, TRANSFER)
        else:
            alone.append(op.name)
    if alone:
        yield f"{len(alone)} receiving ops have no sender in the captured partitions ({alone[0]})"
    removed = break_cycles(merged)
    if removed:
        yield f"{len(removed)} edges between the devices close a cycle and were left out ({removed[0][0]})"


def _transfers(merged: TableBuilder, types: frozenset[str]) -> Iterator[tuple[tuple[str, ...], Op]]:
    for op in merged.ops():
        if op.type in types:
            yield tuple(str(op.attrs.get(name, "")) for name in _RENDEZVOUS), op
