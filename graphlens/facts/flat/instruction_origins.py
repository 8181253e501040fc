"""Which TensorFlow ops an instruction of XLA was made of, and how much of what it computes belongs to each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from graphlens.facts.flat.instruction_work import flops_of, parts_of
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import Op

_GIVEN: Final = frozenset({"parameter", "constant", "iota", "tuple", "get-tuple-element"})  # they take no time
# The instructions of these computations run one by one, and are told each by themselves.
_DECIDE: Final = frozenset({"while", "conditional"})
_READERS_LIMIT: Final = 64  # what feeds more than these is nobody's in particular


class Origins:
    """Looks up what the instructions of one module were made of.

    A fusion was made of what its instructions were made of.  XLA forgets the name of what it makes anew, such as the
    product in place of the gradient of a convolution; such an instruction was made of the op that its value is called
    after where that goes next, if that is one. What XLA itself puts into a loop, the copies of its state from one round
    to the next, belongs to the op that the loop was made of.
    """

    def __init__(self, module: Graph) -> None:
        self._module = module
        self._functions = {name: function for function in module.functions.values() for name in function.graph}
        self._loops = {
            call.function: op
            for function in module.functions.values()
            for op in function.graph.ops()
            if op.type == "while"
            for call in op.calls
        }

    def of(self, op: Op) -> tuple[str, ...]:
        """Return the TensorFlow ops that an instruction was made of, by their names in the compiled function."""
        bodies = () if op.type in _DECIDE else tuple(self._bodies(op))
        parts = [part.attrs.get("op_name") for body in bodies for part in body.graph.ops()]
        named = tuple(dict.fromkeys(str(name) for name in (*parts, op.attrs.get("op_name")) if name))
        return named or self._without_a_name(op)

    def operations(self, op: Op) -> Mapping[str, int]:
        """Return how many operations an instruction does for each of these ops, and for none (``""``) as far as known.

        Of one that computes nothing it is how many elements are moved.
        """
        work: dict[str, int] = defaultdict(int)
        moved: dict[str, int] = defaultdict(int)
        for part, body in parts_of(op, self._functions[op.name], self._module):
            if part.type not in _GIVEN:
                name = next(iter(self._name(part)), "")
                work[name] += flops_of(part, body, self._module) or 0
                moved[name] += sum(output.elements or 0 for output in part.outputs)
        computed = {name: flops for name, flops in work.items() if flops}
        done = computed or {name: elements for name, elements in moved.items() if elements}
        return dict.fromkeys(self._without_a_name(op), 1) or done if done.keys() <= {""} else done

    def _name(self, part: Op) -> tuple[str, ...]:
        told = part.attrs.get("op_name")
        return (str(told),) if told else self._called_after(part)

    def _bodies(self, op: Op) -> Iterator[Function]:
        yield from (
            self._module.functions[call.function] for call in op.calls if call.function in self._module.functions
        )

    # -- without a name -------------------------------------------------------------------------------------------

    def _without_a_name(self, op: Op) -> tuple[str, ...]:
        return self._called_after(op) or self._loop_around(op)

    def _loop_around(self, op: Op) -> tuple[str, ...]:
        """Return the op of the innermost loop that an instruction is run in, of those that have a name."""
        while (loop := None if op.type in _GIVEN else self._loops.get(self._functions[op.name].name)) is not None:
            if told := loop.attrs.get("op_name"):
                return (str(told),)
            op = loop
        return ()

    def _called_after(self, op: Op) -> tuple[str, ...]:
        if op.type in _GIVEN:
            return ()
        called = set(self._next_names(op.name))
        return (called.pop() or "",) if len(called) == 1 and None not in called else ()

    def _next_names(self, name: str) -> Iterator[str | None]:
        """Yield what a value is called where it is read next; ``None`` where nobody says."""
        pending, seen = [name], {name}
        while pending:
            graph = self._functions[current := pending.pop()].graph
            for reader, edge in graph.out_edges(current):
                for read in self._reads(graph.op(reader), edge.dst_port):
                    told = self._functions[read].graph.op(read).attrs.get("op_name")
                    if told:
                        yield str(told)
                    elif len(seen) > _READERS_LIMIT:
                        yield None
                    elif read not in seen:
                        seen.add(read)
                        pending.append(read)
            if not graph.has_readers(current):
                yield None

    def _reads(self, reader: Op, port: int | None) -> Iterator[str]:
        """Yield the instructions that read what is handed to one: those of a fusion, each by itself."""
        bodies = list(self._bodies(reader)) if reader.type in ("fusion", "call") else []
        if not bodies or port is None:
            yield reader.name
            return
        for body in bodies:
            yield from body.inputs[port : port + 1]
