"""Follow an input through a GraphDef, functions included: who reads it, and what stands at the other inputs there.

Works on any GraphDef protobuf (TensorFlow's or TensorBoard's); imports neither.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphlens.ir.ops import CONDITIONALS, LOOPS, OTHER_INPUT_FIRST, PLAIN_CALLS
from graphlens.loaders.functions import called

# Whether what a node reads at a position is handed on by what it makes.
Passes = Callable[[Any, int], bool]

# What a function that they run returns is what they give, by position; of a loop that holds for its body alone.
_HAND_BACK = PLAIN_CALLS | CONDITIONALS | LOOPS
_INT_FORMATS = {3: "i", 9: "q"}  # DT_INT32, DT_INT64 as struct formats


@dataclass(frozen=True, slots=True)
class Body:
    """The main graph or one function: its nodes, who reads what, its arguments and the tensors it returns, in order."""

    nodes: Mapping[str, Any]
    readers: Mapping[str, list[tuple[Any, int]]]
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in a body, with the calls that led there (innermost last); ``port`` is ``None`` for any output."""

    body: Body
    name: str
    callers: tuple[tuple[Body, Any], ...] = ()
    port: int | None = None

    def is_read_by(self, source: str) -> bool:
        """Whether ``source``, as nodes write what they read, is this tensor."""
        return _base(source) == self.name and self.port in (None, _port(source))


@dataclass(frozen=True, slots=True)
class Graph:
    """A GraphDef prepared for following inputs.

    ``captured`` gives the shape of the variable behind each captured placeholder of the main graph.
    """

    main: Body
    functions: Mapping[str, Body]
    captured: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def graph_of(graph_def: Any, captured: Mapping[str, tuple[int | None, ...]] | None = None) -> Graph:
    """Index a GraphDef."""
    functions = {
        function.signature.name: _body(
            function.node_def,
            tuple(arg.name for arg in function.signature.input_arg),
            tuple(function.ret.get(result.name, "") for result in function.signature.output_arg),
        )
        for function in graph_def.library.function
    }
    return Graph(_body(graph_def.node), functions, captured or {})


def _body(nodes: Any, arguments: tuple[str, ...] = (), results: tuple[str, ...] = ()) -> Body:
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in nodes:
        for position, source in enumerate(node.input):
            if not source.startswith("^"):
                readers.setdefault(_base(source), []).append((node, position))
    return Body({node.name: node for node in nodes}, readers, arguments, results)


def _base(source: str) -> str:
    return source.lstrip("^").split(":")[0]


def _port(source: str) -> int:
    """Return which output is read: the last part of ``node:1`` and of ``node:output:1``, as functions write it."""
    last = source.rpartition(":")[2]
    return int(last) if ":" in source and last.isdigit() else 0


def readers(graph: Graph, name: str, passes: Passes) -> Iterator[tuple[Place, Any, int]]:
    """Yield every op that reads input ``name``, directly or behind ops that pass it on, with the place it reads."""
    yield from _readers(graph, Place(graph.main, name), passes)


def reaches_result(graph: Graph, function: str, position: int, passes: Passes) -> bool:
    """Whether what ``function`` returns depends on its argument at ``position`` by ops that pass it on."""
    body = graph.functions.get(function)
    if body is None or not 0 <= position < len(body.arguments):
        return False
    argument = body.arguments[position]
    returned = set(map(_base, body.results))
    return argument in returned or any(
        place.body is body and node.name in returned and passes(node, at)
        for place, node, at in _readers(graph, Place(body, argument), passes)
    )


def _readers(graph: Graph, start: Place, passes: Passes) -> Iterator[tuple[Place, Any, int]]:
    todo = [start]
    seen: set[tuple[int, str, int | None, int]] = set()
    while todo:
        place = todo.pop()
        call = id(place.callers[-1][1]) if place.callers else 0  # each call of a function hands back its own results
        if (id(place.body), place.name, place.port, call) in seen:
            continue
        seen.add((id(place.body), place.name, place.port, call))
        for node, position in place.body.readers.get(place.name, ()):
            if not place.is_read_by(node.input[position]):
                continue
            yield place, node, position
            if passes(node, position):
                todo.append(Place(place.body, node.name, place.callers))
            todo.extend(_entered(graph, place, node, position))
        for given, position in _handed_back(graph, place):
            todo.append(given)
            node = place.callers[-1][1]
            if node.op in LOOPS:  # the next iteration reads what this one gave
                yield given, node, position
                todo.extend(_entered(graph, given, node, position))


def _entered(graph: Graph, place: Place, node: Any, position: int) -> Iterator[Place]:
    offset = 1 if node.op in OTHER_INPUT_FIRST else 0
    for function in called(node):
        body = graph.functions.get(function)
        if body and 0 <= position - offset < len(body.arguments):
            yield Place(body, body.arguments[position - offset], (*place.callers, (place.body, node)))


def _handed_back(graph: Graph, place: Place) -> Iterator[tuple[Place, int]]:
    """Yield what the call around gives of a tensor that its function returns, and at which position."""
    if not place.callers:
        return
    caller, call = place.callers[-1]
    is_handed_back = call.op in _HAND_BACK and not (
        call.op in LOOPS and graph.functions.get(call.attr["body"].func.name) is not place.body
    )
    for position, result in enumerate(place.body.results if is_handed_back else ()):
        if place.is_read_by(result):
            yield Place(caller, call.name, place.callers[:-1], position), position


# -- what stands at the other inputs of a reader -------------------------------------------------------------------


def source_of(graph: Graph, place: Place, source: str) -> tuple[Place, Any | None]:
    """Return where ``source`` is made: its place, and its node unless it is an argument nobody is known to pass."""
    name = _base(source)
    node = place.body.nodes.get(name)
    if node is not None and node.op in {"Identity", "ReadVariableOp"} and node.input:
        return source_of(graph, place, node.input[0])
    if node is None and name in place.body.arguments and place.callers:
        caller, call = place.callers[-1]
        offset = 1 if call.op in OTHER_INPUT_FIRST else 0
        outer = call.input[place.body.arguments.index(name) + offset]
        return source_of(graph, Place(caller, _base(outer), place.callers[:-1]), outer)
    return Place(place.body, name, place.callers), node


def shape_at(graph: Graph, place: Place, source: str) -> tuple[int | None, ...] | None:
    """Return the shape of a tensor where a constant, a variable or an annotation says it."""
    made_at, node = source_of(graph, place, source)
    if made_at.body is graph.main and made_at.name in graph.captured:
        return graph.captured[made_at.name]
    if node is None:
        return None
    if node.op == "Const":
        return dims(node.attr["value"].tensor.tensor_shape)
    if node.op in {"VarHandleOp", "VariableV2"}:
        return dims(node.attr["shape"].shape)
    known = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    return dims(known[0]) if known and not known[0].unknown_rank else None


def dims(shape: Any) -> tuple[int | None, ...]:
    """Return the sizes of a ``TensorShapeProto``; those left open are ``None``."""
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def _constant(graph: Graph, place: Place, source: str) -> Any | None:
    _, node = source_of(graph, place, source)
    return node.attr["value"].tensor if node is not None and node.op == "Const" else None


def integer_at(graph: Graph, place: Place, node: Any, position: int) -> int | None:
    """Return the (first) integer that a constant gives the input at ``position``."""
    tensor = _constant(graph, place, node.input[position]) if position < len(node.input) else None
    if tensor is None or tensor.dtype not in _INT_FORMATS:
        return None
    listed = tensor.int_val or tensor.int64_val
    if listed:
        return int(listed[0])
    code = _INT_FORMATS[tensor.dtype]
    return struct.unpack_from("<" + code, tensor.tensor_content)[0] if tensor.tensor_content else 0


def strings_at(graph: Graph, place: Place, source: str) -> list[str]:
    """Return the texts of a constant."""
    tensor = _constant(graph, place, source)
    return [text.decode("utf-8", "replace") for text in tensor.string_val] if tensor is not None else []
