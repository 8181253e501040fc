"""Who reads an input: follow it through a GraphDef, functions included, to the ops that say what it must hold.

Works on any GraphDef protobuf (TensorFlow's or TensorBoard's); imports neither.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphlens.ir.ops import CONDITIONALS
from graphlens.tf.functions import called

# Ops that hand an input's elements on unchanged, as far as a range of ids or a serialized string is concerned.
_PASSING = frozenset(
    "Identity IdentityN Cast Reshape ExpandDims Squeeze Transpose StopGradient EnsureShape Pack ConcatV2 StridedSlice "
    "Slice Unpack Placeholder PlaceholderWithDefault TensorListFromTensor TensorListGetItem TensorListStack "
    "TensorArrayScatterV3 TensorArrayReadV3 Tile Unique UniqueV2 Relu Maximum".split()
)
_IMAGE_DECODERS = frozenset({"DecodeJpeg", "DecodePng", "DecodeImage", "DecodeBmp", "DecodeGif", "DecodeAndCropJpeg"})
_NUMBER_PARSERS = frozenset({"StringToNumber"})
_DTYPES = {1: "float32", 7: "string", 9: "int64"}  # DataType numbers that tf.Example knows
_INT_FORMATS = {3: "i", 9: "q"}  # DT_INT32, DT_INT64 as struct formats


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that a ``ParseExample`` reads; ``shape`` is ``None`` for a sparse or ragged one."""

    key: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Body:
    """The main graph or one function: its nodes, who reads what, and its arguments in order."""

    nodes: Mapping[str, Any]
    readers: Mapping[str, list[tuple[Any, int]]]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor in a body, with the calls that led there (innermost last)."""

    body: _Body
    name: str
    callers: tuple[tuple[_Body, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """A GraphDef prepared for following inputs.

    ``captured`` gives the shape of the variable behind each captured placeholder of the main graph.
    """

    main: _Body
    functions: Mapping[str, _Body]
    captured: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def graph_of(graph_def: Any, captured: Mapping[str, tuple[int | None, ...]] | None = None) -> Graph:
    """Index a GraphDef."""
    functions = {
        function.signature.name: _body(function.node_def, tuple(arg.name for arg in function.signature.input_arg))
        for function in graph_def.library.function
    }
    return Graph(_body(graph_def.node), functions, captured or {})


def _body(nodes: Any, arguments: tuple[str, ...] = ()) -> _Body:
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in nodes:
        for position, source in enumerate(node.input):
            if not source.startswith("^"):
                readers.setdefault(_base(source), []).append((node, position))
    return _Body({node.name: node for node in nodes}, readers, arguments)


def _base(source: str) -> str:
    return source.lstrip("^").split(":")[0]


def id_limit(graph: Graph, name: str) -> int | None:
    """Return the smallest table size or depth that input ``name`` indexes; ``None`` when it indexes nothing known."""
    limits = [_limit(graph, place, node, position) for place, node, position in _readers(graph, name)]
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def example_features(graph: Graph, name: str) -> tuple[Feature, ...]:
    """Return the features that the parsers of serialized examples look for in string input ``name``."""
    found: dict[str, Feature] = {}
    for place, node, position in _readers(graph, name):
        if position == 0 and node.op in _PARSERS:
            found.update({feature.key: feature for feature in _PARSERS[node.op](graph, place, node)})
    return tuple(found.values())


def is_image_file(graph: Graph, name: str) -> bool:
    """Whether string input ``name`` is decoded as an image file."""
    return any(node.op in _IMAGE_DECODERS for _, node, _ in _readers(graph, name))


def is_number_text(graph: Graph, name: str) -> bool:
    """Whether string input ``name`` is parsed as a number."""
    return any(node.op in _NUMBER_PARSERS for _, node, _ in _readers(graph, name))


def _readers(graph: Graph, name: str) -> Iterator[tuple[_Place, Any, int]]:
    """Yield every op that reads input ``name``, directly or behind ops that pass it on, with the place it reads."""
    todo = [_Place(graph.main, name)]
    seen: set[tuple[int, str]] = set()
    while todo:
        place = todo.pop()
        if (id(place.body), place.name) in seen:
            continue
        seen.add((id(place.body), place.name))
        for node, position in place.body.readers.get(place.name, ()):
            yield place, node, position
            if node.op in _PASSING:
                todo.append(_Place(place.body, node.name, place.callers))
            todo.extend(_entered(graph, place, node, position))


def _entered(graph: Graph, place: _Place, node: Any, position: int) -> Iterator[_Place]:
    offset = 1 if node.op in CONDITIONALS else 0
    for function in called(node):
        body = graph.functions.get(function)
        if body and 0 <= position - offset < len(body.arguments):
            yield _Place(body, body.arguments[position - offset], (*place.callers, (place.body, node)))


# -- what a reader demands -----------------------------------------------------------------------------------------


def _limit(graph: Graph, place: _Place, node: Any, position: int) -> int | None:
    if node.op in {"GatherV2", "Gather", "ResourceGather", "GatherNd", "ResourceGatherNd"} and position == 1:
        axis = _integer(graph, place, node, 2) if node.op == "GatherV2" else 0
        return _size(_shape(graph, place, node.input[0]), axis)
    if node.op == "OneHot" and position == 0:
        return _integer(graph, place, node, 1)
    if node.op == "SparseSoftmaxCrossEntropyWithLogits" and position == 1:
        return _size(_shape(graph, place, node.input[0]), -1)
    return None


def _size(shape: tuple[int | None, ...] | None, axis: int | None) -> int | None:
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    return shape[axis]


def _source(graph: Graph, place: _Place, source: str) -> tuple[_Place, Any | None]:
    """Return where ``source`` is made: its place, and its node unless it is an argument nobody is known to pass."""
    name = _base(source)
    node = place.body.nodes.get(name)
    if node is not None and node.op in {"Identity", "ReadVariableOp"} and node.input:
        return _source(graph, place, node.input[0])
    if node is None and name in place.body.arguments and place.callers:
        caller, call = place.callers[-1]
        offset = 1 if call.op in CONDITIONALS else 0
        outer = call.input[place.body.arguments.index(name) + offset]
        return _source(graph, _Place(caller, _base(outer), place.callers[:-1]), outer)
    return _Place(place.body, name, place.callers), node


def _shape(graph: Graph, place: _Place, source: str) -> tuple[int | None, ...] | None:
    made_at, node = _source(graph, place, source)
    if made_at.body is graph.main and made_at.name in graph.captured:
        return graph.captured[made_at.name]
    if node is None:
        return None
    if node.op == "Const":
        return _dims(node.attr["value"].tensor.tensor_shape)
    if node.op in {"VarHandleOp", "VariableV2"}:
        return _dims(node.attr["shape"].shape)
    known = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    return _dims(known[0]) if known and not known[0].unknown_rank else None


def _dims(shape: Any) -> tuple[int | None, ...]:
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def _constant(graph: Graph, place: _Place, source: str) -> Any | None:
    _, node = _source(graph, place, source)
    return node.attr["value"].tensor if node is not None and node.op == "Const" else None


def _integer(graph: Graph, place: _Place, node: Any, position: int) -> int | None:
    tensor = _constant(graph, place, node.input[position]) if position < len(node.input) else None
    if tensor is None or tensor.dtype not in _INT_FORMATS:
        return None
    listed = tensor.int_val or tensor.int64_val
    if listed:
        return int(listed[0])
    code = _INT_FORMATS[tensor.dtype]
    return struct.unpack_from("<" + code, tensor.tensor_content)[0] if tensor.tensor_content else 0


def _strings(graph: Graph, place: _Place, source: str) -> list[str]:
    tensor = _constant(graph, place, source)
    return [text.decode("utf-8", "replace") for text in tensor.string_val] if tensor is not None else []


# -- parsers of serialized examples --------------------------------------------------------------------------------


def _dense(node: Any, keys: list[str]) -> Iterator[Feature]:
    attrs = zip(keys, node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape, strict=False)
    for key, dtype, shape in attrs:
        # An unknown size in a dense feature is a variable-length one; one element is always a valid length.
        yield Feature(key, _DTYPES.get(dtype, "string"), tuple(size or 1 for size in _dims(shape)))


def _sparse(keys: list[str], types: Any) -> Iterator[Feature]:
    yield from (Feature(key, _DTYPES.get(dtype, "string"), None) for key, dtype in zip(keys, types, strict=False))


def _parse_example_v1(graph: Graph, place: _Place, node: Any) -> Iterator[Feature]:
    n_sparse, n_dense = node.attr["Nsparse"].i, node.attr["Ndense"].i
    keys = ["".join(_strings(graph, place, source)[:1]) for source in node.input[2 : 2 + n_sparse + n_dense]]
    yield from _sparse(keys[:n_sparse], node.attr["sparse_types"].list.type)
    yield from _dense(node, keys[n_sparse:])


def _parse_example_v2(graph: Graph, place: _Place, node: Any) -> Iterator[Feature]:
    sparse, dense, ragged = (_strings(graph, place, node.input[position]) for position in (2, 3, 4))
    yield from _sparse(sparse, node.attr["sparse_types"].list.type)
    yield from _dense(node, dense)
    yield from _sparse(ragged, node.attr["ragged_value_types"].list.type)


def _parse_single_example(_graph: Graph, _place: _Place, node: Any) -> Iterator[Feature]:
    def keys(attr: str) -> list[str]:
        return [key.decode("utf-8", "replace") for key in node.attr[attr].list.s]

    yield from _sparse(keys("sparse_keys"), node.attr["sparse_types"].list.type)
    yield from _dense(node, keys("dense_keys"))


_PARSERS: Mapping[str, Any] = {
    "ParseExample": _parse_example_v1,
    "ParseExampleV2": _parse_example_v2,
    "ParseSingleExample": _parse_single_example,
}
