"""Shapes that a file annotates and its own weights contradict: the weights hold.

A graph whose weights were replaced keeps the ``_output_shapes`` of the old ones.  What an op gives that hands on a
constant or a variable is known from these; from there the corrections are followed to what they reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Final

from graphlens.ir.graph import Graph, Variable
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import (
    BATCH_NORMS,
    BINARY,
    CONSTANTS,
    CONVOLUTIONS,
    PASSES,
    REFERENCE_VARIABLES,
    SHAPE_READERS,
    UNARY,
    VARIABLE_HANDLES,
    WHOLE_READS,
)
from graphlens.ir.table import Table

Shape = tuple[int | None, ...]

_HANDING_ON: Final = (PASSES - {"IdentityN"}) | WHOLE_READS
# Their result has the shape of the first input, whatever the other ones are.
_LIKE_FIRST: Final = UNARY | PASSES | BATCH_NORMS | {"BiasAdd"}
_NO_VARIABLES: Final[Mapping[str, Variable]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Corrected:
    """A graph with the shapes that hold, and a sentence about those that did not; empty when all do."""

    graph: Table
    note: str = ""


def corrected(graph: Table, where: str, variables: Mapping[str, Variable] = _NO_VARIABLES) -> Corrected:
    """Return ``graph`` with the shapes that its weights have.

    Parameters
    ----------
    where
        The graph in words, for the note.
    variables
        The variable behind each argument that is one.
    """
    stale = _stale(graph, variables)
    if not stale:
        return Corrected(graph)
    first, true = next(iter(stale.items()))
    told = graph.op_at(first).outputs[0]
    note = (
        f"{where}: annotated shapes contradict the weights, which hold ({graph.names[first]} says {told}, and is "
        f"{TensorSpec(told.dtype, true)})"
    )
    return Corrected(graph.with_ops(_Following(graph, dict(stale)).ops()), note)


def corrected_where_bound(graph: Graph) -> Graph:
    """Correct the functions whose arguments are bound to variables, and the root, whose may be constants."""
    functions, notes = dict(graph.functions), list(graph.notes)
    for name, function in graph.functions.items():
        if function.captures or name == graph.root:
            found = corrected(function.graph, f"function '{name}'", function.captures)
            functions[name] = replace(function, graph=found.graph)
            notes.extend(filter(None, [found.note]))
    return replace(graph, functions=functions, notes=tuple(notes))


def _stale(graph: Table, variables: Mapping[str, Variable]) -> dict[int, Shape]:
    """Return the ops that hand on a weight and are annotated with another shape, with the weight's."""
    found = {}
    for position in graph.positions_of(_HANDING_ON):
        outputs = graph.bodies[position].outputs
        told = outputs[0].shape if outputs else None
        if told is not None:
            true = _weight_behind(graph, position, variables)
            if contradict(told, true):
                found[position] = true or ()
    return found


def _weight_behind(graph: Table, position: int, variables: Mapping[str, Variable]) -> Shape | None:
    while graph.bodies[position].type in _HANDING_ON:
        before = graph.data_before(position)
        if not before:
            return None
        position = before[0]
    op = graph.bodies[position]
    if op.constant is not None or op.type in CONSTANTS:  # an argument may hold a constant, too
        return op.outputs[0].shape if op.outputs else None
    if op.type in VARIABLE_HANDLES | REFERENCE_VARIABLES:
        shape = op.attrs.get("shape")
        return shape if isinstance(shape, tuple) and shape else None  # old files write an unknown shape as a scalar's
    variable = variables.get(graph.names[position]) if variables else None
    return variable.spec.shape if variable is not None else None


def contradict(told: Shape | None, true: Shape | None) -> bool:
    """Tell whether two shapes cannot be of one tensor.

    >>> contradict((1, 3), (1, 4)), contradict((None, 4), (1, 4)), contradict((4,), (1, 4)), contradict(None, (4,))
    (True, False, True, False)
    """
    if told is None or true is None:
        return False
    return len(told) != len(true) or any(
        a is not None and b is not None and a != b for a, b in zip(told, true, strict=True)
    )


@dataclass(slots=True)
class _Following:
    """From ops whose shapes were corrected to those whose shapes follow from them; unknown where that is not known."""

    graph: Table
    true: dict[int, Shape | None]
    seeds: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.seeds = frozenset(self.true)

    def ops(self) -> dict[str, Op]:
        """Return the ops that change, by name."""
        for position in self.graph.order:
            op = self.graph.bodies[position]
            if position not in self.seeds and op.outputs and op.type not in CONSTANTS | SHAPE_READERS:
                self._follow(position, op)
        return {self.graph.names[position]: self._op(position) for position in self.true}

    def _follow(self, position: int, op: Op) -> None:
        reads = [source for source, edge in self.graph.inputs_at(position) if edge.kind == "data"]
        if self.true.keys().isdisjoint(reads):
            return
        told = op.outputs[0].shape
        follows = self._of(op, reads, told)
        if follows is None or contradict(told, follows):
            self.true[position] = follows

    def _of(self, op: Op, reads: Sequence[int], told: Shape | None) -> Shape | None:
        """Return the shape that follows from the inputs, or ``told`` where it does not depend on what changed."""
        first = self._shape(reads[0])
        if op.type in _LIKE_FIRST:
            return first if reads[0] in self.true else told
        if op.type in BINARY:
            return self._broadcast(reads)
        if told is None or len(reads) < 2:
            return None
        second = self._shape(reads[1])
        if op.type in CONVOLUTIONS and second is not None and reads[0] not in self.true:
            at = 1 if str(op.attrs.get("data_format", "NHWC")).startswith("NC") else len(told) - 1
            return (*told[:at], _channels(op, second), *told[at + 1 :])
        if op.type == "MatMul" and second is not None and len(second) == 2 and reads[0] not in self.true:
            return (*told[:-1], second[0 if op.attrs.get("transpose_b") else 1])
        return None

    def _broadcast(self, reads: Sequence[int]) -> Shape | None:
        shapes = [self._shape(position) for position in reads]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes):
            return None
        rank = max(map(len, known), default=0)
        columns = zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True)
        return tuple(next((size for size in column if size != 1), 1) for column in columns)

    def _shape(self, position: int) -> Shape | None:
        if position in self.true:
            return self.true[position]
        outputs = self.graph.bodies[position].outputs
        return outputs[0].shape if outputs else None

    def _op(self, position: int) -> Op:
        op = self.graph.op_at(position)
        shape = self.true[position]
        first = replace(op.outputs[0], shape=shape)
        rest = op.outputs[1:] if shape is not None else tuple(replace(spec, shape=None) for spec in op.outputs[1:])
        return replace(op, outputs=(first, *rest))


def _channels(op: Op, kernel: Shape) -> int | None:
    """Return how many channels a convolution gives: the last size of its kernel; of a depthwise one the last two.

    >>> _channels(Op("c", "Conv2D"), (3, 3, 8, 16)), _channels(Op("d", "DepthwiseConv2dNative"), (3, 3, 8, 2))
    (16, 16)
    """
    last = kernel[-2:] if op.type.startswith("Depthwise") else kernel[-1:]
    return None if None in last else prod(size or 0 for size in last)
