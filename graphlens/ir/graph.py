"""A TensorFlow graph as immutable nouns: a library of functions, each with a :class:`Table` of its ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphlens.ir.nodes import CONTROL, Edge, Op, TensorSpec
from graphlens.ir.table import Table


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the model: its checkpoint name, dtype and shape; never its value.

    ``written_by`` names a signature of the same file, other than the one at hand, that writes it.  ``key`` is what no
    other variable of the process had, whatever its name; empty where no process was watched.
    """

    name: str
    spec: TensorSpec
    trainable: bool | None = None
    written_by: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """A function body, or the main graph.

    ``inputs`` names the ``_Arg`` nodes in argument order, ``outputs`` the ``_Retval`` nodes in result order.
    ``captures`` says which variable an argument (by node name) is bound to, where known.  ``control_outputs`` names the
    ops that run although no result needs them.  ``back_edges`` are ``(source, destination, edge)`` from a loop's
    ``NextIteration`` to its ``Merge``: ``graph`` is acyclic and leaves them out.
    """

    name: str
    graph: Table
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


def topological_order(graph: Table) -> list[str]:
    """Return the ops so that every one comes after all it depends on; ties keep the order of the graph."""
    return [graph.names[position] for position in graph.order]


def data_inputs(graph: Table, name: str) -> list[str]:
    """Return the producers of the non-control inputs of ``name``, ordered by input port."""
    return [src for src, _ in graph.in_edges(name)]


def data_consumers(graph: Table, name: str) -> list[str]:
    """Return the distinct ops that read an output of ``name`` (data or transfer edges), in order."""
    return list(dict.fromkeys(dst for dst, edge in graph.out_edges(name) if edge is not CONTROL))


def input_specs(graph: Table, name: str) -> list[TensorSpec | None]:
    """Return what is known of the tensors that ``name`` reads, ordered by input port; ``None`` where nothing is."""
    return [_output_spec(graph.op(src), edge.src_port) for src, edge in graph.in_edges(name)]


def _output_spec(op: Op, port: int | None) -> TensorSpec | None:
    if port is None or port >= len(op.outputs):
        return None
    return op.outputs[port]
