"""Who reads an input: the ops that say what its elements must be.

Works on any GraphDef protobuf (TensorFlow's or TensorBoard's); imports neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphlens.tf.open.following import Graph, Place, dims, integer_at, readers, shape_at, strings_at

# Ops that hand an input's elements on unchanged, as far as a range of ids or a serialized string is concerned.
_PASSING = frozenset(
    "Identity IdentityN Cast Reshape ExpandDims Squeeze Transpose StopGradient EnsureShape Pack ConcatV2 StridedSlice "
    "Slice Unpack Placeholder PlaceholderWithDefault TensorListFromTensor TensorListGetItem TensorListStack "
    "TensorArrayScatterV3 TensorArrayReadV3 Tile Unique UniqueV2 Relu Maximum".split()
)
_IMAGE_DECODERS = frozenset({"DecodeJpeg", "DecodePng", "DecodeImage", "DecodeBmp", "DecodeGif", "DecodeAndCropJpeg"})
_NUMBER_PARSERS = frozenset({"StringToNumber"})
_DTYPES = {1: "float32", 7: "string", 9: "int64"}  # DataType numbers that tf.Example knows


def _passes(node: Any, _position: int) -> bool:
    return node.op in _PASSING


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that a ``ParseExample`` reads; ``shape`` is ``None`` for a sparse or ragged one."""

    key: str
    dtype: str
    shape: tuple[int, ...] | None


def id_limit(graph: Graph, name: str) -> int | None:
    """Return the smallest table size or depth that input ``name`` indexes; ``None`` when it indexes nothing known."""
    limits = [_limit(graph, place, node, position) for place, node, position in readers(graph, name, _passes)]
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def example_features(graph: Graph, name: str) -> tuple[Feature, ...]:
    """Return the features that the parsers of serialized examples look for in string input ``name``."""
    found: dict[str, Feature] = {}
    for place, node, position in readers(graph, name, _passes):
        if position == 0 and node.op in _PARSERS:
            found.update({feature.key: feature for feature in _PARSERS[node.op](graph, place, node)})
    return tuple(found.values())


def is_image_file(graph: Graph, name: str) -> bool:
    """Whether string input ``name`` is decoded as an image file."""
    return any(node.op in _IMAGE_DECODERS for _, node, _ in readers(graph, name, _passes))


def is_number_text(graph: Graph, name: str) -> bool:
    """Whether string input ``name`` is parsed as a number."""
    return any(node.op in _NUMBER_PARSERS for _, node, _ in readers(graph, name, _passes))


# -- what a reader demands -----------------------------------------------------------------------------------------


def _limit(graph: Graph, place: Place, node: Any, position: int) -> int | None:
    if node.op in {"GatherV2", "Gather", "ResourceGather", "GatherNd", "ResourceGatherNd"} and position == 1:
        axis = integer_at(graph, place, node, 2) if node.op == "GatherV2" else 0
        return _size(shape_at(graph, place, node.input[0]), axis)
    if node.op == "OneHot" and position == 0:
        return integer_at(graph, place, node, 1)
    if node.op == "SparseSoftmaxCrossEntropyWithLogits" and position == 1:
        return _size(shape_at(graph, place, node.input[0]), -1)
    return None


def _size(shape: tuple[int | None, ...] | None, axis: int | None) -> int | None:
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    return shape[axis]


# -- parsers of serialized examples --------------------------------------------------------------------------------


def _dense(node: Any, keys: list[str]) -> Iterator[Feature]:
    attrs = zip(keys, node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape, strict=False)
    for key, dtype, shape in attrs:
        # An unknown size in a dense feature is a variable-length one; one element is always a valid length.
        yield Feature(key, _DTYPES.get(dtype, "string"), tuple(size or 1 for size in dims(shape)))


def _sparse(keys: list[str], types: Any) -> Iterator[Feature]:
    yield from (Feature(key, _DTYPES.get(dtype, "string"), None) for key, dtype in zip(keys, types, strict=False))


def _parse_example_v1(graph: Graph, place: Place, node: Any) -> Iterator[Feature]:
    n_sparse, n_dense = node.attr["Nsparse"].i, node.attr["Ndense"].i
    keys = ["".join(strings_at(graph, place, source)[:1]) for source in node.input[2 : 2 + n_sparse + n_dense]]
    yield from _sparse(keys[:n_sparse], node.attr["sparse_types"].list.type)
    yield from _dense(node, keys[n_sparse:])


def _parse_example_v2(graph: Graph, place: Place, node: Any) -> Iterator[Feature]:
    sparse, dense, ragged = (strings_at(graph, place, node.input[position]) for position in (2, 3, 4))
    yield from _sparse(sparse, node.attr["sparse_types"].list.type)
    yield from _dense(node, dense)
    yield from _sparse(ragged, node.attr["ragged_value_types"].list.type)


def _parse_single_example(_graph: Graph, _place: Place, node: Any) -> Iterator[Feature]:
    def keys(attr: str) -> list[str]:
        return [key.decode("utf-8", "replace") for key in node.attr[attr].list.s]

    yield from _sparse(keys("sparse_keys"), node.attr["sparse_types"].list.type)
    yield from _dense(node, keys("dense_keys"))


_PARSERS: Mapping[str, Any] = {
    "ParseExample": _parse_example_v1,
    "ParseExampleV2": _parse_example_v2,
    "ParseSingleExample": _parse_single_example,
}
