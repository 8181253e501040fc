"""Which transposes a program needs no more once the ops between them work on the order of axes that comes in.

A transpose that is left out gives what it reads, in another *layout* (see :mod:`graphlens.ir.permuting`); what follows
takes that layout on, op by op, as long as its kind allows.  Wherever such a tensor meets an op that needs it as it is
written, a transpose has to be put in.  Which ops are moved is the minimum cut between both: what then has to be
transposed has the fewest elements that it can have.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from graphlens.ir.nodes import Tensor
from graphlens.ir.ops import SHAPE_READERS
from graphlens.ir.permuting import (
    Asked,
    Layout,
    Moved,
    composed,
    deciding_inputs,
    elements,
    is_identity,
    moved,
    moves_nothing,
    permuted,
)

TRANSPOSE: Final = "Transpose"
FREE_READERS: Final = SHAPE_READERS - {"ShapeN"}  # of a moved tensor, whose shape can be put in order instead
# A layout found from one side shows ops on the other side whose layout it is, and so on; each round finds them one
# convolution further.
_MOST_ROUNDS: Final = 4
# The minimum cut of so many ops takes 2 s; no network that was seen has a tenth of them between its transposes.
_MOST_OPS: Final = 10_000


class Sight(Protocol):
    """A program, as far as it is looked at."""

    def transposes(self) -> Iterable[str]:
        """Return the transposes that are to be judged."""
        ...

    def place(self, op: str) -> int:
        """Return the place of an op in an order in which inputs come first."""
        ...

    def asked(self, op: str) -> Asked:
        """Return the op as it is written."""
        ...

    def inputs(self, op: str) -> Sequence[Tensor]:
        """Return what it computes with, by input port."""
        ...

    def readers(self, tensor: Tensor) -> Sequence[str]:
        """Return the ops that read a tensor."""
        ...

    def is_returned(self, tensor: Tensor) -> bool:
        """Whether the program returns it."""
        ...

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether its value is known before the call, so that it may be stored in any layout."""
        ...

    def takes_time(self, transpose: str) -> bool:
        """Whether a transpose runs; what an optimizer takes out anyway does not."""
        ...


@dataclass(frozen=True)
class Relayout:
    """Ops that are to work on other layouts, and what becomes of the transposes around them.

    Attributes
    ----------
    moved
        The ops, inputs first.  A transpose among them hands on what it reads, which has the layout of its output.
    between
        Those of them that are no transposes.
    vanishing
        Transposes that are not needed any more.
    turned
        Transposes that stay, and read a moved tensor by another permutation.
    elements_before, elements_after
        How many elements are transposed in all, with a guess for axes of open length.
    cost_before, cost_after, cost_vanishing
        The same, and of the vanishing ones, with one more for each transpose: what is weighed.
    """

    moved: Mapping[str, Moved]
    between: tuple[str, ...]
    vanishing: tuple[str, ...]
    turned: tuple[str, ...]
    elements_before: int
    elements_after: int
    cost_before: int
    cost_after: int
    cost_vanishing: int

    @property
    def replaced_share(self) -> float:
        """How much of what the vanishing transposes move has to be transposed elsewhere."""
        elsewhere = self.cost_after - (self.cost_before - self.cost_vanishing)
        return max(0, elsewhere) / max(1, self.cost_vanishing)

    @property
    def moves_less(self) -> bool:
        """Whether less is moved: axes of length one that are only named anew cost next to nothing."""
        is_identity_alone = len(self.moved) == 1 and next(iter(self.moved.values())).outputs == (None,)
        gained = self.cost_before - self.cost_after
        return is_identity_alone or gained > len(self.vanishing) + len(self.turned)

    @property
    def is_exact(self) -> bool:
        """Whether the outputs keep every bit."""
        return all(how.is_exact for how in self.moved.values())


def relayouts(sight: Sight) -> Iterator[Relayout]:
    """Yield what pays, one for each part of the program whose transposes have to do with each other."""
    candidates = _Candidates(sight)
    for part in candidates.parts():
        if len(part) <= _MOST_OPS and (found := _Cut(candidates, part).relayout()) is not None:
            yield found


# -- what may be moved --------------------------------------------------------------------------------------------


class _Candidates:
    """Every op that could work on another layout, and how it would."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.moves: dict[str, Moved] = {}
        wanted: dict[str, Moved] = {}
        for _ in range(_MOST_ROUNDS):
            self._spread(wanted)
            found = self._wanted()
            if found.keys() <= wanted.keys():
                break
            wanted |= found

    def layout(self, tensor: Tensor) -> Layout | None:
        """Return the layout that a tensor would be kept in."""
        how = self.moves.get(tensor.op)
        return how.outputs[tensor.port] if how is not None and tensor.port < len(how.outputs) else None

    def _spread(self, wanted: Mapping[str, Moved]) -> None:
        """Take layouts on from every transpose to what reads it, and from the ops whose readers want one."""
        self.moves = {}
        todo = [(self.sight.place(op), op) for op in {*self.sight.transposes(), *wanted}]
        heapq.heapify(todo)
        met: set[str] = set()
        while todo:
            _, op = heapq.heappop(todo)
            if op in met:
                continue
            met.add(op)
            how = self._transposed(op) if self.sight.asked(op).type == TRANSPOSE else self._moved(op, wanted)
            if how is not None:
                self.moves[op] = how
                readers = {reader for tensor in _given(op, how) for reader in self.sight.readers(tensor)}
                for reader in readers - met:
                    heapq.heappush(todo, (self.sight.place(reader), reader))

    def _transposed(self, op: str) -> Moved | None:
        inputs, permutation = self.sight.inputs(op), self.sight.asked(op).numbers(1)
        if permutation is None or len(inputs) != 2 or sorted(permutation) != list(range(len(permutation))):
            return None
        read = self.layout(inputs[0])
        if read is not None and len(read) != len(permutation):
            return None
        given = composed(read, permutation)
        return Moved((read, None), (None if is_identity(given) else given,))

    def _moved(self, op: str, wanted: Mapping[str, Moved]) -> Moved | None:
        asked, inputs = self.sight.asked(op), self.sight.inputs(op)
        for port in deciding_inputs(asked.type, len(inputs)):
            layout = self.layout(inputs[port])
            how = moved(asked, layout) if layout is not None else None
            if how is not None:
                return how
        return wanted.get(op)

    def _wanted(self) -> dict[str, Moved]:
        """Return the ops before those found that could give what is read in the layout in which it is read."""
        found: dict[str, Moved] = {}
        todo = [(op, how) for op, how in self.moves.items() if self.sight.asked(op).type != TRANSPOSE]
        while todo:
            op, how = todo.pop()
            for tensor, layout in zip(self.sight.inputs(op), how.inputs, strict=False):
                if layout is None or tensor.op in self.moves or tensor.op in found or self.sight.is_constant(tensor):
                    continue
                before = moved(self.sight.asked(tensor.op), layout)
                if before is not None and before.outputs[tensor.port : tensor.port + 1] == (layout,):
                    found[tensor.op] = before
                    todo.append((tensor.op, before))
        return found

    def parts(self) -> list[list[str]]:
        """Return the candidates, inputs first, apart where no tensor that could be moved joins them."""
        part_of: dict[str, list[str]] = {}
        for op, how in self.moves.items():  # which holds inputs first
            part = part_of[op] = [op]
            joined = [
                tensor.op for tensor in self.sight.inputs(op)[: len(how.inputs)] if self.layout(tensor) is not None
            ]
            for other in map(part_of.__getitem__, joined):
                if other is not part:
                    small, part = sorted((part, other), key=len)
                    part += small
                    part_of.update(dict.fromkeys(small, part))
        distinct = {id(part): part for part in part_of.values()}.values()
        return [sorted(part, key=self.sight.place) for part in distinct]


def _given(op: str, how: Moved) -> list[Tensor]:
    """Return the outputs that would be kept in another layout."""
    return [Tensor(op, port) for port, layout in enumerate(how.outputs) if layout is not None]


# -- what is moved ------------------------------------------------------------------------------------------------

_WRITTEN: Final = "as it is written"
_MOVED: Final = "moved"


class _Cut:
    """The minimum cut between what is moved and what stays, within one part."""

    def __init__(self, candidates: _Candidates, part: Sequence[str]) -> None:
        import networkx as nx

        self.candidates, self.sight, self.part = candidates, candidates.sight, part
        self.costs = nx.DiGraph()
        self.costs.add_nodes_from((_WRITTEN, _MOVED))
        self.before = self.transposes_before = 0
        for op in part:
            how = candidates.moves[op]
            if self.sight.asked(op).type == TRANSPOSE:
                self._transpose(op, how)
            else:
                self._inputs(op, how)
            self._outputs(op, how)

    def relayout(self) -> Relayout | None:
        """Return what is moved, ``None`` where nothing is gained by it."""
        import networkx as nx

        after, (written_nodes, moved_nodes) = nx.minimum_cut(self.costs, _WRITTEN, _MOVED)
        if after >= self.before:
            return None
        chosen = {op: self.candidates.moves[op] for op in self.part if self._is_chosen(op, moved_nodes)}
        transposes = [op for op in self.part if self.sight.asked(op).type == TRANSPOSE]
        vanishing = [op for op in transposes if op in chosen and self._is_left_out(op, chosen)]
        gone = {*vanishing}
        cut = nx.edge_boundary(self.costs, written_nodes, moved_nodes, data="transposes")
        return Relayout(
            chosen,
            between=tuple(op for op in chosen if op not in set(transposes)),
            vanishing=tuple(vanishing),
            turned=tuple(op for op in transposes if op not in gone and self._reads_moved(op, chosen)),
            elements_before=self.before - self.transposes_before,
            elements_after=int(after) - sum(transposes for _, _, transposes in cut),
            cost_before=self.before,
            cost_after=int(after),
            cost_vanishing=sum(self._transposed(op) for op in vanishing if self.sight.takes_time(op)),
        )

    def _transposed(self, op: str) -> int:
        return self._cost(Tensor(op, 0), self.sight.asked(op).numbers(1) or ())

    def _is_chosen(self, op: str, moved_nodes: Any) -> bool:
        """Whether an op is moved; of a transpose that gives a tensor as it is written, what it reads is."""
        how = self.candidates.moves[op]
        if any(layout is not None for layout in how.outputs) or self.sight.asked(op).type != TRANSPOSE:
            return op in moved_nodes
        return how.inputs[0] is None or self._reads_moved(op, moved_nodes)

    def _reads_moved(self, transpose: str, chosen: Container[str]) -> bool:
        has_layout = self.candidates.moves[transpose].inputs[0] is not None
        return has_layout and self.sight.inputs(transpose)[0].op in chosen

    def _is_left_out(self, op: str, chosen: Mapping[str, Moved]) -> bool:
        """Whether a transpose that hands on what it reads has no reader left that needs what it gave."""
        how, given = chosen[op], Tensor(op, 0)
        if how.inputs[0] is not None and not self._reads_moved(op, chosen):
            return False
        layout = how.outputs[0]
        readers = [] if layout is None else self.sight.readers(given)
        kept = layout is not None and self.sight.is_returned(given)
        return not kept and all(
            self._is_free(reader) or (reader in chosen and not self._needs_as_written(reader, given, layout))
            for reader in readers
        )

    def _pays(self, first: object, second: object, cost: int | None) -> None:
        """Let ``cost`` (``None``: more than anything) be paid where the first is moved and the second is not."""
        if cost is None:
            self.costs.add_edge(second, first)
        elif "capacity" in self.costs.get_edge_data(second, first, {"capacity": 0}):
            known = self.costs.get_edge_data(second, first, {"capacity": 0, "transposes": 0})
            self.costs.add_edge(second, first, capacity=known["capacity"] + cost, transposes=known["transposes"] + 1)

    def _cost(self, tensor: Tensor, layout: Layout) -> int:
        """Return what it takes to transpose a tensor as it is written from ``layout``, or to it."""
        return transposing_cost(_shape(self.sight, tensor), layout)

    def _transpose(self, op: str, how: Moved) -> None:
        source = self.sight.inputs(op)[0].op if how.inputs[0] is not None else None
        target = op if how.outputs[0] is not None else None
        cost = self._transposed(op)
        if self.sight.takes_time(op):
            self.before += cost
            self.transposes_before += 1
            left_out = ("left out", op)
            self._pays(_MOVED, left_out, cost)
            for needed in filter(None, (source, target)):
                self._pays(left_out, needed, None)
        elif source is not None and target is not None:
            self._pays(source, target, cost)
            self._pays(target, source, cost)

    def _inputs(self, op: str, how: Moved) -> None:
        for tensor, layout in zip(self.sight.inputs(op), how.inputs, strict=False):
            if layout is None or self.sight.is_constant(tensor):
                continue
            known = self.candidates.layout(tensor) == layout
            turned = ("turned", tensor, layout)
            if turned not in self.costs:
                self._pays(turned, tensor.op if known else _WRITTEN, self._cost(tensor, layout))
            self._pays(op, turned, None)

    def _outputs(self, op: str, how: Moved) -> None:
        for tensor in _given(op, how):
            layout = how.outputs[tensor.port]
            assert layout is not None  # by `_given`
            readers = [name for name in self.sight.readers(tensor) if not self._is_free(name)]
            cost = self._cost(tensor, layout)
            if self.sight.is_returned(tensor) or any(self._needs_as_written(name, tensor, layout) for name in readers):
                self._pays(op, _WRITTEN, cost)
            elif readers:
                self._pays(op, ("turned back", tensor), cost)
                for reader in readers:
                    self._pays(("turned back", tensor), reader, None)

    def _is_free(self, reader: str) -> bool:
        """Whether an op reads a moved tensor for nothing: a transpose, or who only asks for its shape."""
        op_type = self.sight.asked(reader).type
        return op_type in FREE_READERS or (op_type == TRANSPOSE and reader in self.candidates.moves)

    def _needs_as_written(self, reader: str, tensor: Tensor, layout: Layout | None) -> bool:
        how = self.candidates.moves.get(reader)
        pairs = zip(self.sight.inputs(reader), how.inputs, strict=False) if how is not None else ()
        return how is None or any(read == tensor and wanted != layout for read, wanted in pairs)


def transposing_cost(shape: Any, layout: Layout) -> int:
    """Return the elements that a transpose moves between a tensor of this shape and its layout, and one for itself.

    >>> transposing_cost((2, 3, 4, 4), (0, 3, 1, 2)), transposing_cost((3, 1, 1), (0, 3, 1, 2))
    (97, 1)
    """
    full = shape if shape is None or len(shape) >= len(layout) else (*(1,) * (len(layout) - len(shape)), *shape)
    kept = permuted(full, layout) if full is not None and len(full) == len(layout) else None
    return 1 + (0 if moves_nothing(kept, layout) else elements(shape))


def _shape(sight: Sight, tensor: Tensor) -> Any:
    shapes = sight.asked(tensor.op).outputs
    return shapes[tensor.port] if tensor.port < len(shapes) else None
