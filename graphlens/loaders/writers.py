"""Which variables the other signatures of a model's file write: to the one that is judged, they may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graphlens.ir.graph import Function, Graph, Variable
from graphlens.ir.nodes import Op
from graphlens.ir.ops import HANDLE_READS, HANDS_ON_HANDLES, OTHER_INPUT_FIRST, RETURNS, is_variable_write
from graphlens.loaders import objects
from graphlens.loaders.functions import called
from graphlens.loaders.graphdef import build_each
from graphlens.loaders.signatures import INTERNAL
from graphlens.units import counted


def marked(graph: Graph, meta_graph: Any, chosen: str) -> Graph:
    """Say of the variables of the root of ``graph``, which ``chosen`` runs, which other signature writes them."""
    written = _written_by_others(meta_graph, graph.root, chosen)
    if not written:
        return graph
    bound = objects.arguments_by_origin(meta_graph.object_graph_def, graph.root, graph.main.inputs)
    captures = {
        name: replace(variable, written_by=written.get(bound.get(name, -1)))
        for name, variable in graph.main.captures.items()
    }
    return replace(graph, functions={**graph.functions, graph.root: replace(graph.main, captures=captures)})


def note_of(variables: Mapping[str, Variable]) -> Iterator[str]:
    """Yield what the reader must know of variables that others write, if there are any."""
    others = sorted({variable.written_by for variable in variables.values() if variable.written_by})
    count = sum(variable.written_by is not None for variable in variables.values())
    if others:
        names = ", ".join(f"'{name}'" for name in others)
        yield (
            f"{counted(count, 'variable')} of {len(variables)} may be written by another signature of the file "
            f"({names}): what is made of such a variable is not folded, unless this signature is exported alone"
        )


def _written_by_others(meta_graph: Any, root: str, chosen: str) -> dict[int | None, str]:
    """Return number of a variable in the object graph -> a signature that writes it."""
    object_graph, library = meta_graph.object_graph_def, _Library(meta_graph.graph_def)
    named = {
        name: objects.signature_function(object_graph, name)
        for name in sorted(meta_graph.signature_def)
        if name != chosen and name not in INTERNAL
    }
    writers = {name: function for name, function in named.items() if function and library.may_write(function)}
    found: dict[int | None, str] = {}
    for name, graph in zip(writers, build_each(meta_graph.graph_def, writers.values()), strict=True):
        if graph.root != root:
            bound = objects.arguments_by_origin(object_graph, graph.root, graph.main.inputs)
            found.update({bound[argument]: name for argument in _written_arguments(graph) if argument in bound})
    return found


class _Library:
    """The functions of a file, as they are written in it: most write nothing, and need not be built."""

    def __init__(self, graph_def: Any) -> None:
        self._functions = {function.signature.name: function for function in graph_def.library.function}

    def may_write(self, name: str) -> bool:
        """Tell whether a function, or one that it calls, holds an op that writes a variable."""
        pending, seen = [name], {name}
        while pending:
            function = self._functions.get(pending.pop())
            for node in function.node_def if function is not None else ():
                if is_variable_write(node.op):
                    return True
                fresh = {*called(node)} - seen
                seen |= fresh
                pending.extend(fresh)
        return False


def _written_arguments(graph: Graph) -> list[str]:
    """Return the root's arguments with which, here or in what it calls, something else is done than reading."""
    uses = _Uses(graph)
    return [name for name in graph.main.captures or graph.main.inputs if uses.is_written(graph.main, name)]


class _Uses:
    """What the functions of a graph do with their arguments; one that calls itself does what the rest of it does."""

    def __init__(self, graph: Graph) -> None:
        self._functions = graph.functions
        self._known: dict[tuple[str, str], bool] = {}

    def is_written(self, function: Function, argument: str) -> bool:
        """Tell whether the variable behind an argument may be written."""
        key = (function.name, argument)
        if key not in self._known:
            self._known[key] = False
            self._known[key] = argument in function.graph and self._writes(function, argument)
        return self._known[key]

    def _writes(self, function: Function, argument: str) -> bool:
        pending, seen = [argument], {argument}
        while pending:
            for reader, edge in function.graph.out_edges(pending.pop()):
                op = function.graph.op(reader)
                if edge.kind == "control" or op.type in HANDLE_READS | RETURNS:
                    continue
                if op.type in HANDS_ON_HANDLES:
                    pending += [reader] if reader not in seen else []
                    seen.add(reader)
                elif not op.calls or any(self._writes_in(op, edge.dst_port or 0, call.function) for call in op.calls):
                    return True
        return False

    def _writes_in(self, call: Op, port: int, name: str) -> bool:
        function = self._functions.get(name)
        number = port - (1 if call.type in OTHER_INPUT_FIRST else 0)
        if function is None or not 0 <= number < len(function.inputs):
            return True
        return self.is_written(function, function.inputs[number])
