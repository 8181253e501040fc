"""GraphDef to ``ir``: the main graph and the library functions, without knowing any op."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphlens.collector import collector_paused
from graphlens.errors import TargetError
from graphlens.ir.calls import Calls
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import ARGUMENT, RETURN, Op, TensorSpec
from graphlens.ir.table import OPS_LIMIT, Table
from graphlens.loaders import sources
from graphlens.loaders.attrs import dtype_name
from graphlens.loaders.files import looks_like_text, parse_message, parse_text, read_bytes
from graphlens.loaders.linking import Linker
from graphlens.loaders.nodes import OUTPUT_SHAPES, NodeReader, function_info
from graphlens.loaders.sources import MAIN
from graphlens.loaders.stale import corrected
from graphlens.loaders.tensors import strip_weights

MAIN_IN_WORDS = "the main graph"

__all__ = ["MAIN", "build_each", "build_graph", "build_reachable", "parse_graph_def", "read_graph_def", "strip_weights"]


def read_graph_def(path: Path) -> Any:
    """Read the ``GraphDef`` message in ``path``, binary or text.

    Raises
    ------
    TargetError
        When the file is damaged, empty or something else.
    """
    return parse_graph_def(read_bytes(path), path)


def parse_graph_def(data: bytes, path: Path | str) -> Any:
    """Parse ``data`` as a ``GraphDef``, binary or text; ``path`` names it in errors."""
    from tensorboard.compat.proto import graph_pb2

    parse = parse_text if looks_like_text(data) else parse_message
    return parse(graph_pb2.GraphDef, data, path, "a GraphDef")


def build_graph(graph_def: Any, debug_info: Any = None) -> Graph:
    """Return every function of ``graph_def``; the root is the main graph, named ``""``.

    Parameters
    ----------
    debug_info
        A ``GraphDebugInfo`` that says the source line of ops, when it is not inside ``graph_def``.
    """
    with collector_paused():
        builder = _Builder(graph_def, debug_info)
        names = [MAIN, *builder.library]
        for name in names:
            list(builder.callees(name))  # notes the ones that are missing
        return builder.graph(MAIN, names)


def build_reachable(graph_def: Any, root: str = MAIN, debug_info: Any = None) -> Graph:
    """Return the function ``root`` (``""``: the main graph) and the functions that it calls, directly or not.

    Raises
    ------
    TargetError
        When there is no function ``root``.
    """
    with collector_paused():
        builder = _Builder(graph_def, debug_info)
        if root != MAIN and root not in builder.library:
            raise TargetError(f"the graph has no function '{root}'; the file is incomplete, export the model again")
        return builder.graph(root, builder.reachable(root))


def build_each(graph_def: Any, roots: Iterable[str]) -> list[Graph]:
    """Return each of several functions with what it calls; functions that they share are read once."""
    with collector_paused():
        builder = _Builder(graph_def, None)
        return [builder.graph(root, builder.reachable(root)) for root in roots]


class _Builder:
    """The state of one translation: what was decoded is shared by all functions of the graph."""

    def __init__(self, graph_def: Any, debug_info: Any) -> None:
        self.graph_def = graph_def
        self.library: dict[str, Any] = {function.signature.name: function for function in graph_def.library.function}
        self.reader = NodeReader({name: function_info(item.signature) for name, item in self.library.items()})
        self.built: dict[str, Function] = {}
        self.notes: list[str] = []
        self.sources: Mapping[str, Mapping[str, str]] = {}
        try:
            self.sources = sources.source_lines(debug_info, graph_def)
        except UnicodeDecodeError:  # protobuf looks at the keys of these maps when somebody asks for them
            self.notes.append("source lines are not known: the debug information names ops in no encoding")

    def graph(self, root: str, names: Iterable[str]) -> Graph:
        functions = {name: self.function(name) for name in names}
        graph = Graph(root, functions)
        return replace(graph, notes=(*self.notes, *Calls(graph).notes()))

    def function(self, name: str) -> Function:
        if name not in self.built:
            self.built[name] = self._main() if name == MAIN else self._library_function(name)
        return self.built[name]

    def reachable(self, root: str) -> list[str]:
        order, pending = {root: None}, [root]
        while pending:
            for callee in self.callees(pending.pop()):
                if callee not in order:
                    order[callee] = None
                    pending.append(callee)
        return list(order)

    def callees(self, name: str) -> Iterator[str]:
        for op in self.function(name).graph.ops():
            for call in op.calls:
                if call.function in self.library:
                    yield call.function
                else:
                    self._note_missing(call.function)

    def _note_missing(self, callee: str) -> None:
        note = f"function '{callee}' is called but not in the graph: what it does was not judged"
        if note not in self.notes:
            self.notes.append(note)

    # -- bodies ---------------------------------------------------------------------------------------------------

    def _main(self) -> Function:
        linker = Linker()
        self._add_nodes(linker, self.graph_def.node, MAIN)
        graph = self._finished(linker, MAIN)
        arguments = tuple(graph.of_types({ARGUMENT}))
        results = tuple(graph.of_types({RETURN}))
        return Function(
            MAIN,
            graph,
            _by_index(graph, arguments),
            _by_index(graph, results),
            back_edges=tuple(linker.back_edges),
        )

    def _library_function(self, name: str) -> Function:
        function, linker = self.library[name], Linker()
        inputs = _add_arguments(linker, function)
        self._add_nodes(linker, function.node_def, name)
        outputs = _add_results(linker, function)
        graph = self._finished(linker, name)
        kept = tuple(node for _, node in sorted(function.control_ret.items()) if node in graph)
        return Function(name, graph, inputs, outputs, control_outputs=kept, back_edges=tuple(linker.back_edges))

    def _finished(self, linker: Linker, function: str) -> Table:
        found = corrected(linker.finish(), _in_words(function))
        self.notes.extend((*linker.problems.notes(_in_words(function)), *filter(None, [found.note])))
        return found.graph

    def _add_nodes(self, linker: Linker, nodes: Any, function: str) -> None:
        if len(nodes) > OPS_LIMIT:
            raise TargetError(
                f"{_in_words(function)} holds {len(nodes):,} ops, and at most {OPS_LIMIT:,} are judged; save the "
                "model in parts, and analyze each"
            )
        lines = self.sources.get(function, {})
        first = len(linker.graph)
        for node in nodes:
            name = node.name
            op, decoded = self.reader.read(node, linker.free_name(name), lines.get(name))
            linker.add_op(op, decoded.offsets)
        for reader, node in enumerate(nodes, first):
            linker.link_at(node.input, reader)


def _in_words(function: str) -> str:
    return MAIN_IN_WORDS if function == MAIN else f"function '{function}'"


def _by_index(graph: Table, names: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments and results of a runtime graph carry their position as an attribute."""

    def position(name: str) -> int:
        index = graph.op(name).attrs.get("index")
        return index if isinstance(index, int) else 0

    return tuple(sorted(names, key=position))


def _add_arguments(linker: Linker, function: Any) -> tuple[str, ...]:
    inputs = []
    for index, argument in enumerate(function.signature.input_arg):
        dtype = dtype_name(argument.type) if argument.type else "unknown"
        attrs, shapes = _argument_attrs(function, index)
        spec = TensorSpec(dtype, shapes[0] if shapes else None)
        name = linker.free_name(argument.name)
        # An argument that stands for several tensors is written `name:1`, whose port is then the tensor's number.
        outputs = () if argument.number_attr or argument.type_list_attr else (spec,)
        linker.add_op(Op(name, ARGUMENT, "", outputs, {"T": dtype, "index": index, **attrs}))
        inputs.append(name)
    return tuple(inputs)


def _argument_attrs(function: Any, index: int) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
    if index not in function.arg_attr:
        return {}, ()
    from graphlens.loaders.attrs import decode

    decoded = {name: decode(value) for name, value in function.arg_attr[index].attr.items()}
    shapes = decoded.pop(OUTPUT_SHAPES, ())
    usable = isinstance(shapes, tuple) and all(shape is None or isinstance(shape, tuple) for shape in shapes)
    return decoded, shapes if usable else ()


def _add_results(linker: Linker, function: Any) -> tuple[str, ...]:
    outputs = []
    for index, result in enumerate(function.signature.output_arg):
        dtype = dtype_name(result.type) if result.type else "unknown"
        name = _result_name(linker, result.name)
        linker.add_op(Op(name, RETURN, "", (), {"T": dtype, "index": index}))
        linker.link([function.ret[result.name]] if result.name in function.ret else [], name)
        outputs.append(name)
    return tuple(outputs)


def _result_name(linker: Linker, key: str) -> str:
    """A result may bear the name of an op, which is legal."""
    name = key
    while name in linker.graph:
        name += RETURN
    return name
