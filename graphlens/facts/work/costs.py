"""FLOPs and bytes of one execution of an op, from the shapes of what it reads and writes.

A multiply and an add are two operations, as in TensorFlow's own profiler.  A transcendental function counts as one
operation per element.  Op types without a formula, and ops with unknown shapes, have no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Final

from graphlens.facts.flat.executed import HLO_FLOPS
from graphlens.ir.graph import input_specs
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import REDUCTIONS, UNTRACED_INSTRUCTIONS, runtime_type
from graphlens.ir.table import Table

Specs = Sequence[TensorSpec | None]
Formula = Callable[[Op, Specs], int | None]

# Operations per output element of ops that compute elementwise.
_PER_OUTPUT_ELEMENT: Final[Mapping[str, int]] = dict.fromkeys(
    """Add AddV2 Sub Mul Div RealDiv FloorDiv Mod FloorMod Maximum Minimum Neg Abs Sign Square Sqrt Rsqrt
    Reciprocal Inv Exp Expm1 Log Log1p Pow Sin Cos Tan Tanh Sigmoid Erf Erfc Floor Ceil Round Rint Relu Relu6
    LeakyRelu Elu Selu Softplus Softsign BiasAdd Greater GreaterEqual Less LessEqual Equal NotEqual LogicalAnd
    LogicalOr LogicalNot Select SelectV2 DivNoNan MulNoNan Xdivy Xlogy ClipByValue""".split(),
    1,
) | {
    "SquaredDifference": 2,
    "Swish": 2,  # oneDNN's: a sigmoid and a product
    "LayerNorm": 7,  # oneDNN's: as many as a batch normalization that computes its statistics
    "_FusedMish": 3,  # oneDNN's: a softplus, a tangent and a product
    "ReluGrad": 1,
    "LeakyReluGrad": 1,
    "EluGrad": 2,
    "Relu6Grad": 1,
    "TanhGrad": 3,
    "SigmoidGrad": 3,
    "RsqrtGrad": 4,
    "SqrtGrad": 2,
}


# These move or rename data and compute nothing: zero is known, not assumed.
_NO_FLOPS = frozenset(
    """Const HostConst Identity IdentityN Reshape Squeeze ExpandDims Transpose Concat ConcatV2 Pack Unpack Slice
    StridedSlice Split SplitV Tile Pad PadV2 MirrorPad Gather GatherV2 GatherNd ResourceGather ReadVariableOp
    _ReadVariablesOp VarHandleOp _VarHandlesOp Shape ShapeN Size Rank Fill ZerosLike OnesLike BroadcastTo
    StopGradient NoOp Cast _Arg _Retval _Send _Recv Placeholder Enter Exit Switch Merge NextIteration LoopCond
    SpaceToBatchND BatchToSpaceND SpaceToDepth DepthToSpace Reverse ReverseV2 AssignVariableOp OneHot _DeviceArg
    _DeviceRetval InvertPermutation Range Where Snapshot PreventGradient TensorListReserve EmptyTensorList
    TensorListFromTensor TensorListGetItem TensorListSetItem TensorListStack TensorListPushBack TensorListPopBack
    TensorListLength TensorListElementShape TensorListResize TensorListGather TensorListScatter
    TensorListScatterIntoExistingList TensorListConcat TensorListConcatV2 TensorListSplit QuantizedConcat
    QuantizedConcatV2 QuantizedReshape""".split()
)

# These hand on or describe a buffer without touching it.
_NO_BYTES = frozenset(
    """Identity IdentityN Reshape Squeeze ExpandDims StopGradient PreventGradient Snapshot NoOp _Arg _Retval
    VarHandleOp Placeholder Const HostConst ReadVariableOp _ReadVariablesOp Shape ShapeN Size Rank Enter Exit
    Switch Merge NextIteration LoopCond _DeviceArg _DeviceRetval TensorListReserve EmptyTensorList TensorListGetItem
    TensorListSetItem TensorListPushBack TensorListPopBack TensorListLength TensorListElementShape
    TensorListResize""".split()
)
# These read a part of their first input that is as large as their output.
_PARTIAL_READS = frozenset("GatherV2 Gather GatherNd ResourceGather ResourceGatherNd Slice StridedSlice".split())

# These put the tensors of a list together; the list itself is a handle.
_LIST_READS = frozenset("TensorListStack TensorListGather TensorListConcat TensorListConcatV2".split())

# Operations per element that a fused epilogue adds; its name stands in the attribute `fused_ops`.
_EPILOGUE: Final[Mapping[str, int]] = {"FusedBatchNorm": 2, "LeakyRelu": 1, "FusedBatchNormV3": 2}


_FILTER_AT: Final[Mapping[str, int]] = {"FusedPadConv2D": 2, "FusedResizeAndPadConv2D": 3}  # of others at input 1
_GATES: Final[Mapping[str, int]] = {"lstm": 4, "gru": 3, "rnn_relu": 1, "rnn_tanh": 1}


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations and bytes of one execution of an op; ``None`` where formula or shapes are unknown."""

    flops: int | None
    bytes: int | None


_FREE: Final = Cost(0, 0)
# Operations or bytes; the profiler of TensorFlow counts both in 64 bits.  Only a damaged file tells of more, by an
# attribute as well (`ksize`), and they would be beyond all floats.
_MOST: Final = 2**63 - 1


def cost_of(graph: Table, name: str) -> Cost:
    """Return the cost of one execution of op ``name``.

    The bytes are those of the tensors that it reads and writes; resource handles count as nothing.
    """
    op, inputs = graph.op(name), input_specs(graph, name)
    return Cost(_possible(_flops(op, inputs)), _possible(_bytes(op, inputs)))


def costs_of(graph: Table) -> list[Cost]:
    """Return the cost of each op, in the graph's order; that of ops that are alike and read alike is found once."""
    known: dict[tuple[object, ...], Cost] = {}
    bodies = graph.bodies
    free = {kind for kind in graph.by_type if runtime_type(kind) in _NO_FLOPS & _NO_BYTES}
    costs = []
    for position, name in enumerate(graph):
        op = bodies[position]
        if op.type in free:
            costs.append(_FREE)
            continue
        read = [(id(bodies[src].outputs), edge.src_port) for src, edge in graph.inputs_at(position)]
        # The graph keeps what these are the ids of.
        key = (op.type, id(op.attrs), id(op.outputs), *read)
        cost = known.get(key)
        if cost is None:
            cost = known[key] = cost_of(graph, name)
        costs.append(cost)
    return costs


def _possible(count: int | None) -> int | None:
    return count if count is not None and count <= _MOST else None


def _flops(op: Op, inputs: Specs) -> int | None:
    if HLO_FLOPS in op.attrs:
        flops: int | None = op.attrs[HLO_FLOPS]
        return flops
    kind = runtime_type(op.type)
    if kind in _NO_FLOPS:
        return 0
    formula = _formula(kind)
    return formula(op, inputs) if formula else None


def _bytes(op: Op, inputs: Specs) -> int | None:
    kind = runtime_type(op.type)
    if kind in _NO_BYTES or kind in UNTRACED_INSTRUCTIONS:
        return 0
    if not op.outputs:
        return None
    if kind in _PARTIAL_READS:
        # What is read of the source is as much as is written; the rest of the inputs say where.
        inputs = [*inputs[1:], *op.outputs]
    elif kind in _LIST_READS:
        inputs = op.outputs[:1]
    sizes = [0 if spec is not None and spec.dtype == "resource" else _size(spec) for spec in (*inputs, *op.outputs)]
    return None if any(size is None for size in sizes) else sum(size for size in sizes if size is not None)


def _size(spec: TensorSpec | None) -> int | None:
    return spec.nbytes if spec else None


@cache
def _formula(kind: str) -> Formula | None:
    if kind in _PER_OUTPUT_ELEMENT:
        return lambda op, _: _times(_elements(op), _PER_OUTPUT_ELEMENT[kind])
    if kind in REDUCTIONS:
        return lambda _, inputs: inputs[0].elements if inputs and inputs[0] else None
    return next((formula for pattern, formula in _FORMULAS if pattern.fullmatch(kind)), None)


def _convolution(op: Op, inputs: Specs) -> int | None:
    """2 * outputs * filter taps * input channels per group: the filter is [height, width, in / groups, out]."""
    filter_shape = _shape(inputs, _FILTER_AT.get(op.type, 1))
    elements = _elements(op)
    if filter_shape is None or elements is None or len(filter_shape) < 3:
        return None
    return 2 * elements * prod(filter_shape[:-1]) + _epilogue(op, elements)


def _depthwise(op: Op, inputs: Specs) -> int | None:
    """2 * outputs * filter taps: every output channel reads one input channel."""
    filter_shape, elements = _shape(inputs, 1), _elements(op)
    if filter_shape is None or elements is None or len(filter_shape) < 3:
        return None
    return 2 * elements * prod(filter_shape[:-2]) + _epilogue(op, elements)


def _input_gradient(op: Op, inputs: Specs) -> int | None:
    """As many operations as the forward convolution whose output is ``out_backprop`` (input 2)."""
    gradient, filter_shape = _shape(inputs, 2), _shape(inputs, 1)
    if gradient is None or filter_shape is None or len(filter_shape) < 3:
        return None
    taps = prod(filter_shape[:-2]) if runtime_type(op.type).startswith("Depthwise") else prod(filter_shape[:-1])
    return 2 * prod(gradient) * taps


def _filter_gradient(op: Op, inputs: Specs) -> int | None:
    """As many operations as the forward convolution; the filter's shape is that of the output."""
    gradient = _shape(inputs, 2)
    filter_shape = op.outputs[0].shape if op.outputs else None
    if gradient is None or filter_shape is None or len(filter_shape) < 3 or None in filter_shape:
        return None
    dims = [size for size in filter_shape if size is not None]
    taps = prod(dims[:-2]) if runtime_type(op.type).startswith("Depthwise") else prod(dims[:-1])
    return 2 * prod(gradient) * taps


def _matmul(op: Op, inputs: Specs) -> int | None:
    """2 * outputs * contracted size, which both operands tell: in a loop only the weights may have a known shape."""
    elements, contracted = _elements(op) or _product_elements(op, inputs), _contracted(op, inputs)
    return None if elements is None or contracted is None else 2 * elements * contracted + _epilogue(op, elements)


def _contracted(op: Op, inputs: Specs) -> int | None:
    left, right = _contracted_axes(op)
    told = _size_along(inputs, 0, left)
    return told if told is not None else _size_along(inputs, 1, right)


def _product_elements(op: Op, inputs: Specs) -> int | None:
    """Return the outputs of a product of two matrices by what it reads: a file may say no shape of what it gives."""
    left, right = (_shape(inputs, index) for index in (0, 1))
    if left is None or right is None or len(left) != 2 or len(right) != 2:
        return None
    of_left, of_right = _contracted_axes(op)
    return left[-3 - of_left] * right[-3 - of_right]  # the other one of -1 and -2


def _contracted_axes(op: Op) -> tuple[int, int]:
    is_left_turned = op.attrs.get("transpose_a") or op.attrs.get("adj_x")
    is_right_turned = op.attrs.get("transpose_b") or op.attrs.get("adj_y")
    return -2 if is_left_turned else -1, -1 if is_right_turned else -2


def _size_along(specs: Specs, index: int, axis: int) -> int | None:
    """Return one of the last two dimensions of a matrix, or of a batch of them."""
    spec = specs[index] if index < len(specs) else None
    return None if spec is None or spec.shape is None or len(spec.shape) < 2 else spec.shape[axis]


def _einsum(op: Op, inputs: Specs) -> int | None:
    """2 * the size of the index space of a product of two tensors: all labels of both, batch dimensions included."""
    terms = str(op.attrs.get("equation", "")).replace(" ", "").partition("->")[0].split(",")
    shapes = [_shape(inputs, index) for index in range(len(terms))]
    if len(terms) != 2:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        labels = _labels(term, len(shape)) if shape is not None else None
        if labels is None or shape is None:
            return None
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)  # 1: it is broadcast
    return 2 * prod(sizes.values())


def _labels(term: str, rank: int) -> list[str] | None:
    """Return one label per dimension of an operand; those that ``...`` stands for are counted from the last one.

    >>> _labels("...ab", 4), _labels("ab", 3)
    (['.1', '.0', 'a', 'b'], None)
    """
    before, ellipsis, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not ellipsis):
        return None
    return [*before, *(f".{index}" for index in reversed(range(hidden))), *after]


def _batch_norm(op: Op, _: Specs) -> int | None:
    """Inference: one multiply and one add per element, the per-channel part is negligible; training: seven."""
    per_element = 7 if op.attrs.get("is_training", True) else 2  # training is TensorFlow's default
    return _times(_elements(op), per_element)


def _softmax(op: Op, _: Specs) -> int | None:
    """Maximum, subtract, exponential, sum and divide per element."""
    return _times(_elements(op), 5)


def _pool(op: Op, _: Specs) -> int | None:
    """One operation per element of each window."""
    window = _window(op)
    return _times(_elements(op), window) if window else None


def _max_pool_gradient(op: Op, inputs: Specs) -> int | None:
    """As TensorFlow counts: the pooling is done again, and each of its outputs (input 1) is handed on."""
    window, pooled = _window(op), _shape(inputs, 1)
    return None if not window or pooled is None else prod(pooled) * (window + 1)


def _average_pool_gradient(op: Op, inputs: Specs) -> int | None:
    """As TensorFlow counts: a product and a sum per element of each window of the gradient (input 1)."""
    window, gradient = _window(op), _shape(inputs, 1)
    return None if not window or gradient is None else 2 * prod(gradient) * window


def _recurrent(op: Op, inputs: Specs) -> int | None:
    """The products of cuDNN's layers: 2 * steps * batch * gates * units * (inputs + units), of each direction.

    What it computes elementwise is left out, as are the gradients' sums; a gradient has two products for each.
    """
    sequence, state = _shape(inputs, 0), _shape(inputs, 1)
    gates = _GATES.get(str(op.attrs.get("rnn_mode", "lstm")))
    if gates is None or sequence is None or state is None or len(sequence) != 3 or len(state) != 3:
        return None
    if op.attrs.get("input_mode", "linear_input") == "skip_input":
        return None
    directions = 2 if op.attrs.get("direction") == "bidirectional" else 1
    (steps, batch, width), units = sequence, state[2]
    layers = state[0] // directions
    read = width + max(layers - 1, 0) * directions * units + layers * units
    return (2 if "Backprop" in op.type else 1) * 2 * steps * batch * gates * units * directions * read


def _addn(op: Op, inputs: Specs) -> int | None:
    return _times(_elements(op), max(len(inputs) - 1, 0))


_FORMULAS: tuple[tuple[re.Pattern[str], Formula], ...] = (
    (re.compile(r"_?(Fused|Padded|PadWith)*Conv[23]D|Conv[23]DWithBias|Conv"), _convolution),
    (re.compile(r"Fused(ResizeAnd)?PadConv2D|(_Fused)?QuantizedConv2D\w*"), _convolution),
    (re.compile(r"_?(Fused)?DepthwiseConv2d(Native)?|(_Fused)?QuantizedDepthwiseConv2D\w*"), _depthwise),
    (re.compile(r"(Conv[23]D|DepthwiseConv2dNative)BackpropInput(V2)?"), _input_gradient),
    (re.compile(r"(Conv[23]D|DepthwiseConv2dNative)BackpropFilter(V2|WithBias)?"), _filter_gradient),
    (re.compile(r"_?(Fused)?(Batch)?MatMul(V[23])?|_?QuantizedMatMul\w*"), _matmul),
    (re.compile(r"_?FusedBatchNorm(V[23]|Ex)?|_FusedInstanceNorm"), _batch_norm),
    (re.compile(r"(Log)?Softmax"), _softmax),
    (re.compile(r"(_?Quantized)?(Max|Avg)Pool(3D|V2)?"), _pool),
    (re.compile(r"MaxPool(3D)?Grad"), _max_pool_gradient),
    (re.compile(r"AvgPool(3D)?Grad"), _average_pool_gradient),
    (re.compile(r"(Xla)?Einsum"), _einsum),
    (re.compile(r"CudnnRNN(Backprop)?(V[23])?"), _recurrent),
    (re.compile(r"AddN|AccumulateNV2"), _addn),
)


def _window(op: Op) -> int | None:
    """Return the elements of a pooling's window; ``None`` where the file does not say it as TensorFlow does."""
    sizes = op.attrs.get("ksize")
    if not isinstance(sizes, (tuple, list)) or not sizes or not all(isinstance(size, int) for size in sizes):
        return None
    return prod(sizes)


def _epilogue(op: Op, elements: int) -> int:
    fused = op.attrs.get("fused_ops")
    if fused is None and "Quantized" in op.type:  # they say it by their names
        return elements * len(re.findall("Bias|Relu|Sum", op.type))
    return elements * sum(_EPILOGUE.get(str(item), 1) for item in fused) if isinstance(fused, (tuple, list)) else 0


def _elements(op: Op) -> int | None:
    return op.outputs[0].elements if op.outputs else None


def _shape(specs: Specs, index: int) -> tuple[int, ...] | None:
    spec = specs[index] if index < len(specs) else None
    if spec is None or spec.shape is None or any(size is None for size in spec.shape):
        return None
    return tuple(size for size in spec.shape if size is not None)


def _times(count: int | None, factor: int) -> int | None:
    return None if count is None else count * factor
