"""Shapes of executed ops that no run and no traced op tells, where they follow from the shapes of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from graphlens.ir.graph import topological_order
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import BINARY, UNARY
from graphlens.ir.table import Table

# The optimizer makes new ops of these types (`ArithmeticOptimizer/AddOpsRewrite_…`), under names that nothing else has.
_BROADCASTING: Final = UNARY | BINARY | {"AddN", "BiasAdd"}


def fill_elementwise(graph: Table) -> Table:
    """Give the elementwise ops of ``graph`` without a shape the one that their inputs broadcast to."""
    open_ops = {op.name for op in graph.ops() if op.type in _BROADCASTING and not _complete(op)}
    if not open_ops:
        return graph
    filled: dict[str, Op] = {}
    for name in topological_order(graph):
        if name in open_ops:
            op = graph.op(name)
            read = [_spec(filled.get(src) or graph.op(src), edge.src_port) for src, edge in graph.in_edges(name)]
            filled[name] = replace(op, outputs=_outputs(op, read))
    return graph.with_ops(filled)


def _spec(op: Op, port: int | None) -> TensorSpec | None:
    return None if port is None or port >= len(op.outputs) else op.outputs[port]


def _complete(op: Op) -> bool:
    return bool(op.outputs) and op.outputs[0].elements is not None


def _outputs(op: Op, inputs: Sequence[TensorSpec | None]) -> tuple[TensorSpec, ...]:
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
