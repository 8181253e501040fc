"""Which functions do the same to a batch as to each of its rows, so that a map may come after the batch."""

from __future__ import annotations

from typing import Any, Final

import tensorflow as tf

from graphlens.tf.datasets.nodes import DatasetGraph, producer

# Ops that compute each element of their result from the elements at the same place of their inputs.
UNARY: Final = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Erfc",
     "Exp", "Expm1", "Floor", "Identity", "Inv", "Invert", "IsFinite", "IsInf", "IsNan", "LeakyRelu", "Lgamma", "Log",
     "Log1p", "LogicalNot", "Neg", "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign",
     "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Square", "StringLower", "StringStrip", "StringToNumber",
     "StringUpper", "Tan", "Tanh", "ZerosLike", "OnesLike", "RegexReplace", "StaticRegexReplace", "AsString",
     "StringToHashBucketFast", "StringToHashBucket", "StringToHashBucketStrong", "StringLength", "DecodeBase64",
     "EncodeBase64"}
)  # fmt: skip
BINARY: Final = frozenset(
    {"Add", "AddV2", "Atan2", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "DivNoNan", "Equal", "FloorDiv",
     "FloorMod", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Mod",
     "Mul", "MulNoNan", "NotEqual", "Pow", "RealDiv", "SelectV2", "SquaredDifference", "Sub", "TruncateDiv",
     "TruncateMod", "Xdivy", "Xlogy", "ClipByValue", "StringJoin"}
)  # fmt: skip
_KEEP_NOTHING_BACK: Final = frozenset({"NoOp", "Const"})


def is_per_element(graph: DatasetGraph, node: Any) -> bool:
    """Whether the function of a map does to a batch what it does to each of its rows.

    It is claimed of functions of elementwise ops alone, whose operands are elements of one rank, or constants that have
    no more dimensions than these: any of more would be lined up with other dimensions of a batch.
    """
    calls = graph.called_by(node)
    if len(calls) != 1:
        return False
    function = graph.functions[calls[0]]
    if len(function.signature.input_arg) != _given(graph, node):
        return False  # it captures tensors, whose first dimension is none of a batch
    ranks: dict[str, int | None] = _ranks_of_arguments(graph, node, function)
    return all(_is_kept(inner, ranks) for inner in function.node_def) and bool(function.node_def)


def _given(graph: DatasetGraph, node: Any) -> int:
    inputs = graph.inputs(node)
    return len(inputs[0].attr["output_shapes"].list.shape) if inputs else -1


def _ranks_of_arguments(graph: DatasetGraph, node: Any, function: Any) -> dict[str, int | None]:
    shapes = graph.inputs(node)[0].attr["output_shapes"].list.shape
    names = [argument.name for argument in function.signature.input_arg]
    return {name: None if shape.unknown_rank else len(shape.dim) for name, shape in zip(names, shapes, strict=True)}


def _is_kept(node: Any, ranks: dict[str, int | None]) -> bool:
    """Whether an op keeps rows apart; notes the rank of what it gives, constants below all others."""
    if node.op in _KEEP_NOTHING_BACK:
        if node.op == "Const":
            ranks[node.name] = _CONSTANT - len(tf.TensorShape(node.attr["value"].tensor.tensor_shape))
        return True
    operands = [ranks.get(producer(name)) for name in node.input if not name.startswith("^")]
    if node.op not in UNARY | BINARY or any(rank is None for rank in operands):
        return False
    known = [rank for rank in operands if rank is not None]
    elements = [rank for rank in known if rank >= 0]
    constants = [_CONSTANT - rank for rank in known if rank < 0]
    if not elements:
        ranks[node.name] = min(known, default=_CONSTANT)
        return True
    ranks[node.name] = max(elements)
    return len(set(elements)) == 1 and all(rank <= max(elements) for rank in constants)


_CONSTANT: Final = -1  # less its rank: what does not depend on the element
