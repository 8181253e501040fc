"""Transposes that are not needed once the ops between them work on the order of axes that comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import constant_ops, judged_graph, judged_stage, origins, traced_graph
from graphlens.ir.graph import input_specs
from graphlens.ir.nodes import Tensor, TensorSpec
from graphlens.ir.ops import PASSES, RETURNS, runtime_type
from graphlens.ir.permuting import Asked, Layout, Shape, is_identity
from graphlens.ir.relayout import TRANSPOSE, Relayout, relayouts
from graphlens.ir.table import Table


@fact
def needless_transposes(facts: Facts) -> tuple[Relayout, ...]:
    """Return what could be moved in the judged graph so that less is transposed."""
    graph = facts(judged_graph)
    if not graph.where(_is_transpose):
        return ()
    sight = _Sight(graph, facts(constant_ops), was_optimized=facts(judged_stage) == "executed")
    found = (replace(region, vanishing=_written(facts, region.vanishing)) for region in relayouts(sight))
    return tuple(region for region in found if region.vanishing and region.moves_less)


def _written(facts: Facts, transposes: Sequence[str]) -> tuple[str, ...]:
    """Leave out what Grappler has put around ops for a device: nobody can take that out of the model."""
    traced = facts(traced_graph)
    if facts(judged_stage) == "traced" or traced is None:
        return tuple(transposes)
    written = facts(origins)
    return tuple(
        name for name in transposes if any(_is_transpose(traced.op(source).type) for source in written.get(name, ()))
    )


def _is_transpose(op_type: str) -> bool:
    return runtime_type(op_type) == TRANSPOSE


class _Sight:
    """The judged graph, as :mod:`graphlens.ir.relayout` looks at it."""

    def __init__(self, graph: Table, constants: frozenset[str], *, was_optimized: bool) -> None:
        self._graph, self._constants, self._was_optimized = graph, constants, was_optimized
        self.asked = cache(self._asked)
        self.inputs = cache(self._inputs)
        self._readers = cache(self._all_readers)

    def transposes(self) -> Iterable[str]:
        return [name for name in self._graph.where(_is_transpose) if name not in self._constants]

    def place(self, op: str) -> int:
        return self._graph.rank[self._graph.position(op)]

    def _asked(self, op: str) -> Asked:
        node = self._graph.op(op)
        ports = max((tensor.port for tensor in self._readers(op)), default=0) + 1
        outputs = [_shape(spec) for spec in node.outputs]
        return Asked(
            runtime_type(node.type),
            node.attrs.get,
            [_shape(spec) for spec in input_specs(self._graph, op)],
            [*outputs, *[None] * (ports - len(outputs))],
            lambda port: self._numbers(op, port),
        )

    def _inputs(self, op: str) -> Sequence[Tensor]:
        return [Tensor(source, edge.src_port or 0) for source, edge in self._graph.in_edges(op)]

    def _all_readers(self, op: str) -> dict[Tensor, list[str]]:
        found: dict[Tensor, list[str]] = {}
        for reader, edge in self._graph.out_edges(op):
            if edge.kind != "control":
                found.setdefault(Tensor(op, edge.src_port or 0), []).append(reader)
        return found

    def readers(self, tensor: Tensor) -> Sequence[str]:
        found = self._readers(tensor.op).get(tensor, [])
        return [name for name in found if self._graph.op(name).type not in RETURNS]

    def is_returned(self, tensor: Tensor) -> bool:
        return len(self.readers(tensor)) < len(self._readers(tensor.op).get(tensor, []))

    def is_constant(self, tensor: Tensor) -> bool:
        return tensor.op in self._constants

    def _numbers(self, op: str, port: int) -> tuple[int, ...] | None:
        inputs = self.inputs(op)
        source = inputs[port].op if port < len(inputs) else None
        while source is not None and self._graph.op(source).type in PASSES and self.inputs(source):
            source = self.inputs(source)[0].op
        constant = self._graph.op(source).constant if source is not None else None
        return tuple(map(int, constant.values)) if constant is not None and constant.values is not None else None

    def takes_time(self, transpose: str) -> bool:
        """Whether it runs; Grappler takes out those that move nothing, and two in turn that undo each other."""
        if self._was_optimized:
            return True
        permutation = self._numbers(transpose, 1) or ()
        readers = self.readers(Tensor(transpose, 0))
        before = self.inputs(transpose)[0].op
        undone = readers and all(self._undo(permutation, reader) for reader in readers)
        return not (is_identity(permutation) or undone or self._undo(permutation, before))

    def _undo(self, permutation: Layout, other: str) -> bool:
        numbers = self._numbers(other, 1) if _is_transpose(self._graph.op(other).type) else None
        return (
            numbers is not None and len(numbers) == len(permutation) and is_identity([numbers[i] for i in permutation])
        )


def _shape(spec: TensorSpec | None) -> Shape:
    return spec.shape if spec is not None else None
