"""What an input's values or sizes decide about the graph: loops, tensor sizes, images, and the rows of ragged tensors.

Works on any GraphDef protobuf (TensorFlow's or TensorBoard's); imports neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphlens.ir.ops import LOOPS
from graphlens.tf.open.following import Graph, Place, reaches_result, readers

# Ops whose result is a number made of the numbers that they read, position by position or all in one.
_ARITHMETIC = frozenset(
    "Identity IdentityN Cast Reshape ExpandDims Squeeze StopGradient EnsureShape Pack ConcatV2 Unpack Placeholder "
    "PlaceholderWithDefault StridedSlice Slice Add AddV2 AddN Sub Mul Div RealDiv FloorDiv TruncateDiv FloorMod Mod "
    "Neg Abs Sign Maximum Minimum Ceil Floor Max Min Sum Prod Cumsum Less LessEqual Greater GreaterEqual Equal "
    "NotEqual LogicalAnd LogicalOr LogicalNot All Any Select SelectV2 ClipByValue "
    "Enter RefEnter Merge Switch NextIteration Exit".split()
)
_SLICES = frozenset({"StridedSlice", "Slice"})

# Op -> the inputs that say how large its result is.
_SIZED_BY: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Fill", "Empty", "TensorArrayV3", "ParallelConcat"), (0,)),
    **dict.fromkeys(("RandomUniform", "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt"), (0,)),
    **dict.fromkeys(("StatelessRandomUniform", "StatelessRandomNormal", "StatelessTruncatedNormal"), (0,)),
    **dict.fromkeys(("StatelessRandomUniformV2", "StatelessRandomNormalV2", "StatelessTruncatedNormalV2"), (0,)),
    **dict.fromkeys(("Tile", "Reshape", "BroadcastTo", "TopK", "TopKV2", "OneHot", "SplitV", "Bincount"), (1,)),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad", "TensorListReserve", "Multinomial", "StatelessMultinomial"), (1,)),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"), (1,)),
    **dict.fromkeys(("UnsortedSegmentSum", "UnsortedSegmentMax", "UnsortedSegmentMin", "ScatterNd", "LinSpace"), (2,)),
    **dict.fromkeys(("NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5"), (2,)),
    "Range": (0, 1, 2),
    "Slice": (2,),
    "CropAndResize": (3,),
    "Conv2DBackpropInput": (0,),
}

# Ops that make another image of the same kind of an image; of most only the first input is one.
_IMAGE_TO_IMAGE = frozenset(
    "Identity Cast Transpose ExpandDims Squeeze Pad PadV2 MirrorPad ReverseV2 EnsureShape StopGradient ClipByValue "
    "Placeholder PlaceholderWithDefault FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 QuantizeAndDequantizeV2 "
    "FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars QuantizeV2 StridedSlice Slice Unpack Enter Switch Merge "
    "TensorListFromTensor TensorListGetItem TensorArrayScatterV3 TensorArrayReadV3".split()
)
_OF_TWO_IMAGES = frozenset("Add AddV2 Sub Mul Div RealDiv Maximum Minimum ConcatV2 Pack Select SelectV2".split())
_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "_FusedConv2D", "_FusedDepthwiseConv2dNative"})
_RESIZES = frozenset({"ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "CropAndResize"})

# Ops with the row splits of ragged tensors at these places: from here on, or before the attribute's number.
_SPLITS_FROM = {"RaggedTensorToTensor": 3}
_SPLITS_BEFORE = {
    "RaggedTensorToVariant": "RAGGED_RANK",
    "RaggedTensorToSparse": "RAGGED_RANK",
    "RaggedGather": "PARAMS_RAGGED_RANK",
}
_SPLITS_FIRST = frozenset({"RaggedBincount", "RaggedCountSparseOutput"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What the value of an input decides about the work of a step, and whether it is how often a loop runs."""

    words: str
    loop: bool


def decision(graph: Graph, name: str) -> Decision | None:
    """Return what the integer input ``name`` decides: a loop if one, else a size; ``None`` where it decides neither."""
    decisions = list(_decisions(graph, name))
    return next((one for one in decisions if one.loop), decisions[0] if decisions else None)


def _decisions(graph: Graph, name: str) -> Iterator[Decision]:
    for place, node, position in readers(graph, name, _computes):
        if node.op == "LoopCond":
            yield Decision(f"how often the loop around '{node.name}' runs", loop=True)
        elif node.op in LOOPS and reaches_result(graph, node.attr["cond"].func.name, position, _computes):
            yield Decision(f"how often the loop '{node.name}' runs", loop=True)
        elif position in _SIZED_BY.get(node.op, ()) or _cuts(place, node, position):
            yield Decision(f"the size of '{node.name}' ({node.op})", loop=False)


def _computes(node: Any, position: int) -> bool:
    if node.op in _SLICES:
        return position == 0
    return node.op in _ARITHMETIC


def _cuts(place: Place, node: Any, position: int) -> bool:
    """Whether a strided slice is as long as what it reads at ``position`` says: ``x[:n]`` is, ``x[n]`` is not."""
    if node.op != "StridedSlice" or position not in (1, 2):
        return False
    open_ended = node.attr["begin_mask" if position == 1 else "end_mask"].i
    packed = place.body.nodes.get(node.input[position].split(":")[0])
    dimensions = packed.attr["N"].i if packed is not None and packed.op == "Pack" else 1
    return any(not (node.attr["shrink_axis_mask"].i | open_ended) >> axis & 1 for axis in range(dimensions))


# -- images --------------------------------------------------------------------------------------------------------


def is_image(graph: Graph, name: str) -> bool:
    """Whether input ``name`` is read as images by a two-dimensional convolution, or is resized as such."""
    return is_resized(graph, name) or any(
        node.op in _CONVOLUTIONS and position == 0 for _, node, position in readers(graph, name, _is_still_image)
    )


def is_resized(graph: Graph, name: str) -> bool:
    """Whether input ``name`` is resized as images are."""
    return any(node.op in _RESIZES and position == 0 for _, node, position in readers(graph, name, _is_still_image))


def _is_still_image(node: Any, position: int) -> bool:
    return node.op in _OF_TWO_IMAGES or (node.op in _IMAGE_TO_IMAGE and position == 0)


# -- ragged tensors ------------------------------------------------------------------------------------------------


def is_row_splits(graph: Graph, name: str) -> bool:
    """Whether input ``name`` says where the rows of a ragged tensor begin."""
    slices: dict[int, set[str]] = {}
    for place, node, position in readers(graph, name, _is_same):
        if _takes_splits(node, position):
            return True
        if node.op == "StridedSlice" and position == 0:
            slices.setdefault(id(place.body), set()).add(node.name)
            if _is_length_of_rows(place, slices[id(place.body)]):
                return True
    return False


def _is_same(node: Any, _position: int) -> bool:
    return node.op in {"Identity", "Cast", "Placeholder", "PlaceholderWithDefault", "EnsureShape", "StopGradient"}


def _takes_splits(node: Any, position: int) -> bool:
    if node.op in _SPLITS_BEFORE:
        return bool(position < node.attr[_SPLITS_BEFORE[node.op]].i)
    return position >= _SPLITS_FROM.get(node.op, position + 1) or (node.op in _SPLITS_FIRST and position == 0)


def _is_length_of_rows(place: Place, slices: set[str]) -> bool:
    """Whether two slices of the same tensor are subtracted, as in ``splits[1:] - splits[:-1]``."""
    read = [node for name in slices for node, _ in place.body.readers.get(name, ()) if node.op == "Sub"]
    return any(sum(one is node for one in read) == 2 for node in read)
