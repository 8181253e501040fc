"""A TensorFlow graph as immutable nouns: functions of ops joined by edges.

A :class:`Graph` *has* one ``networkx.MultiDiGraph`` per function; nodes are keyed by the op's name and carry one
attribute ``op`` (:class:`Op`), edges carry one attribute ``edge`` (:class:`Edge`).  Measurements never live here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import networkx as nx

ARGUMENT = "_Arg"
RETURN = "_Retval"

# Bytes per element of the dtypes that have a fixed size; strings, resources and variants have none.
DTYPE_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "bool": 1,
        "int8": 1,
        "uint8": 1,
        "qint8": 1,
        "quint8": 1,
        "float8_e5m2": 1,
        "float8_e4m3fn": 1,
        "int4": 0.5,
        "uint4": 0.5,
        "int16": 2,
        "uint16": 2,
        "qint16": 2,
        "quint16": 2,
        "float16": 2,
        "bfloat16": 2,
        "int32": 4,
        "uint32": 4,
        "qint32": 4,
        "float32": 4,
        "int64": 8,
        "uint64": 8,
        "float64": 8,
        "complex64": 8,
        "complex128": 16,
    }
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Data type and shape of one output; ``None`` stands for a dimension or a whole shape that is not known."""

    dtype: str
    shape: tuple[int | None, ...] | None = None

    @property
    def elements(self) -> int | None:
        """Number of elements, or ``None`` when the shape is not fully known."""
        if self.shape is None or None in self.shape:
            return None
        return prod(self.shape)  # type: ignore[arg-type]  # no size is None here; a filter would cost half the time

    @property
    def nbytes(self) -> int | None:
        """Size of the tensor's buffer, or ``None`` for unknown shapes and for dtypes without a fixed size."""
        width = DTYPE_BYTES.get(self.dtype)
        elements = self.elements
        return None if width is None or elements is None else int(elements * width)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[…]"
        return f"{self.dtype}[{','.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Call:
    """One function that an op calls, and in which role (``call``, ``then``, ``else``, ``cond``, ``body``, …)."""

    role: str
    function: str


@dataclass(frozen=True, slots=True)
class Constant:
    """What is kept of a ``Const`` op's value: its size always, its elements only when there are few.

    ``values`` is the flattened tensor in row-major order when it has at most ``LIMIT`` elements and is numeric or
    boolean, otherwise ``None``.  ``digest`` is a short hash of the stored value, so that equal constants can be told
    from different ones without keeping them; ``None`` when the value itself was stripped.
    """

    LIMIT = 64

    nbytes: int | None
    values: tuple[float | int | bool, ...] | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """One node of a graph.

    ``device`` is the *requested* device in a traced graph and the *actual* one in an executed graph.  ``attrs`` holds
    decoded attributes (JSON values; dtypes as names, shapes as tuples, function references in ``calls`` instead).
    ``outputs`` is empty when the graph does not say the shapes.  ``source`` is ``file:line`` where the graph has it.
    """

    name: str
    type: str
    device: str = ""
    outputs: tuple[TensorSpec, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    constant: Constant | None = None
    source: str | None = None

    @property
    def scope(self) -> str:
        """The ``/``-separated prefix of the name, empty for a top-level op."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency.  ``src_port``/``dst_port`` number the tensor; ``None`` where the graph does not say it.

    ``transfer`` edges join a ``_Send`` to its ``_Recv`` on another device.
    """

    kind: Literal["data", "control", "transfer"]
    src_port: int | None = 0
    dst_port: int | None = 0


CONTROL = Edge("control", None, None)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the model: its checkpoint name, dtype and shape; never its value."""

    name: str
    spec: TensorSpec
    trainable: bool | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A function body, or the main graph.

    ``inputs`` names the ``_Arg`` nodes in argument order, ``outputs`` the ``_Retval`` nodes in result order.
    ``captures`` says which variable an argument (by node name) is bound to, where known.  ``control_outputs`` names the
    ops that run although no result needs them.  ``back_edges`` are ``(source, destination, edge)`` from a loop's
    ``NextIteration`` to its ``Merge``: ``graph`` is acyclic and leaves them out.
    """

    name: str
    graph: nx.MultiDiGraph
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    captures: Mapping[str, Variable] = field(default_factory=dict)
    control_outputs: tuple[str, ...] = ()
    back_edges: tuple[tuple[str, str, Edge], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """A function library with the root function that a step runs.

    ``notes`` says in words what the loader could not read (an unknown checkpoint, a missing function, …).
    """

    root: str
    functions: Mapping[str, Function]
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Function:
        """The root function."""
        return self.functions[self.root]


def op_of(graph: nx.MultiDiGraph, name: str) -> Op:
    """Return the op stored at node ``name``."""
    op: Op = graph.nodes[name]["op"]
    return op


def ops_of(graph: nx.MultiDiGraph) -> Iterator[Op]:
    """Iterate over all ops in insertion order."""
    for _, op in graph.nodes(data="op"):
        yield op


def topological_order(graph: nx.MultiDiGraph) -> list[str]:
    """Return the ops so that every one comes after all it depends on; ops on or behind a cycle are left out.

    Ties keep insertion order.  This is Kahn's algorithm on the adjacency itself, several times faster than networkx's
    generators on graphs of 100,000 ops.
    """
    waiting = {name: len(before) for name, before in graph._pred.items()}
    order = [name for name, count in waiting.items() if not count]
    for name in order:  # grows while it is walked
        for following in graph._succ[name]:
            waiting[following] -= 1
            if not waiting[following]:
                order.append(following)
    return order


def in_edges(graph: nx.MultiDiGraph, name: str) -> list[tuple[str, Edge]]:
    """Return ``(source, edge)`` of the non-control inputs of ``name``, ordered by input port."""
    # `_pred` is networkx's own name for the adjacency by destination: its public views cost four times as much, and
    # this is the innermost loop of every rule.
    edges = [
        (src, data["edge"])
        for src, parallel in graph._pred[name].items()
        for data in parallel.values()
        if data["edge"].kind != "control"
    ]
    return edges if len(edges) < 2 else sorted(edges, key=_destination_port)


def _destination_port(pair: tuple[str, Edge]) -> int:
    return pair[1].dst_port or 0


def data_inputs(graph: nx.MultiDiGraph, name: str) -> list[str]:
    """Return the producers of the non-control inputs of ``name``, ordered by input port."""
    return [src for src, _ in in_edges(graph, name)]


def data_consumers(graph: nx.MultiDiGraph, name: str) -> list[str]:
    """Return the distinct ops that read an output of ``name`` (data or transfer edges), in insertion order."""
    return [
        dst
        for dst, parallel in graph._succ[name].items()
        if any(data["edge"].kind != "control" for data in parallel.values())
    ]


def input_specs(graph: nx.MultiDiGraph, name: str) -> list[TensorSpec | None]:
    """Return what is known of the tensors that ``name`` reads, ordered by input port; ``None`` where nothing is."""
    return [_output_spec(op_of(graph, src), edge.src_port) for src, edge in in_edges(graph, name)]


def _output_spec(op: Op, port: int | None) -> TensorSpec | None:
    if port is None or port >= len(op.outputs):
        return None
    return op.outputs[port]
