"""Shapes of executed ops that no run and no traced op tells, where they follow from the shapes of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from graphlens.ir.graph import topological_order
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import BINARY, ENTERS, EXITS, MERGES, NEXT_ITERATIONS, PASSES, SWITCHES, UNARY
from graphlens.ir.table import Table

_MOST_BRANCHES: Final = 1000  # of a condition; only a damaged file tells of more

# The optimizer makes new ops of these types (`ArithmeticOptimizer/AddOpsRewrite_…`), under names that nothing else has.
_BROADCASTING: Final = UNARY | BINARY | {"AddN", "BiasAdd"}


# These give what they read at each of their outputs, whichever of them is alive.
_HANDING_ON: Final = PASSES | SWITCHES | ENTERS | EXITS | NEXT_ITERATIONS
_FOLLOWING: Final = _BROADCASTING | _HANDING_ON | MERGES


def fill_shapes(graph: Table) -> Table:
    """Give ops of ``graph`` whose shapes are not known those that follow from what they read.

    Those are elementwise ops and what hands a tensor on.  Of a switch a run tells the output that was alive; the other
    one is alike, and so is what it reads: that of a loop's merge, which follows from nothing that was read before.
    """
    open_ops = {op.name for op in graph.ops() if op.type in _FOLLOWING and not _complete(op)}
    if not open_ops:
        return graph
    filled: dict[str, Op] = {}
    for name in topological_order(graph):
        if name in open_ops:
            op = graph.op(name)
            read = [_spec(filled.get(src) or graph.op(src), edge.src_port) for src, edge in graph.in_edges(name)]
            outputs = _switched(graph, op) if op.type in MERGES else _outputs(op, read)
            filled[name] = replace(op, outputs=outputs)
    return graph.with_ops(filled)


def _switched(graph: Table, merge: Op) -> tuple[TensorSpec, ...]:
    """Return the outputs of a merge: what it gives is what the switches that read it were seen to hand on."""
    for reader, edge in graph.out_edges(merge.name):
        seen = graph.op(reader).outputs if graph.op(reader).type in SWITCHES else ()
        if edge.src_port == 0 and edge.dst_port == 0 and seen and seen[0].elements is not None:
            return (seen[0], *merge.outputs[1:])
    return merge.outputs


def _spec(op: Op, port: int | None) -> TensorSpec | None:
    return None if port is None or port >= len(op.outputs) else op.outputs[port]


def _complete(op: Op) -> bool:
    if len(op.outputs) < _number_of_outputs(op):
        return False
    return bool(op.outputs) and all(spec.elements is not None for spec in op.outputs)


def _number_of_outputs(op: Op) -> int:
    """Return how many outputs an op has that gives the same at each of them; at least one for any other."""
    if op.type not in SWITCHES:
        return 1
    told = op.attrs.get("num_outs", 2)  # `_SwitchN` says it
    return told if isinstance(told, int) and 0 < told <= _MOST_BRANCHES else 2


def _outputs(op: Op, inputs: Sequence[TensorSpec | None]) -> tuple[TensorSpec, ...]:
    return _handed_on(op, inputs) if op.type in _HANDING_ON else _broadcast(op, inputs)


def _handed_on(op: Op, inputs: Sequence[TensorSpec | None]) -> tuple[TensorSpec, ...]:
    if op.type == "IdentityN":
        known = [spec for spec in inputs if spec is not None]
        return tuple(known) if len(known) == len(inputs) else op.outputs
    seen = next((spec for spec in (*op.outputs, *inputs[:1]) if spec is not None and spec.elements is not None), None)
    return op.outputs if seen is None else (seen,) * _number_of_outputs(op)


def _broadcast(op: Op, inputs: Sequence[TensorSpec | None]) -> tuple[TensorSpec, ...]:
    shapes = [spec.shape for spec in inputs if spec is not None and spec.shape is not None and None not in spec.shape]
    shape = broadcast(shapes) if inputs and len(shapes) == len(inputs) else None
    if shape is None:
        return op.outputs
    dtype = op.outputs[0].dtype if op.outputs else next(spec.dtype for spec in inputs if spec is not None)
    return (TensorSpec(dtype, shape),)


def broadcast(shapes: Sequence[Sequence[int | None]]) -> tuple[int, ...] | None:
    """Return the shape that ``shapes`` broadcast to; ``None`` where they do not.

    >>> broadcast([(8, 1, 3), (4, 3), ()]), broadcast([(2,), (3,)])
    ((8, 4, 3), None)
    """
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    sizes = [{size for size in column if size != 1} for column in zip(*padded, strict=True)]
    if any(len(size) > 1 for size in sizes):
        return None
    return tuple(next(iter(size), 1) or 0 for size in sizes)
