"""Rules about arithmetic that is more expensive than the model needs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import constant_ops, frozen_ops, judged_graph
from graphlens.facts.patterns.exclusive import exclusive_inputs
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import ChangeDtype, Edit, Ops, RemoveDropout, UseMovingStatistics
from graphlens.ir.graph import data_consumers, data_inputs, input_specs
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import (
    BATCH_NORMS_AS_RUN,
    COMPARISONS,
    CONSTANTS,
    CONTROL_FLOW,
    SELECTIONS,
    SUMS,
    UNTRACED,
    VARIABLE_READS,
    is_convolution,
    is_matmul,
    runtime_type,
)
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.phrases import with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_share

# A tensor of fewer elements costs the same in both types: dispatching the op is dearer than its arithmetic.
SMALLEST_TENSOR_ELEMENTS: Final = 64
# With fewer exceptions than one op in ten, the model as a whole is in double precision.
WHOLE_MODEL_SHARE: Final = 0.9
# A vector register holds half as many doubles, and a double has twice the bytes: at best half of the time remains.
FLOAT64_TIME_SAVED: Final = 0.5
OPS_LISTED: Final = 20

_FLOATS: Final = frozenset({"float64", "float32", "float16", "bfloat16"})
_NO_ARITHMETIC: Final = UNTRACED | CONTROL_FLOW | CONSTANTS | VARIABLE_READS | {"Cast", "_Send", "_Recv"}


@rule("GL501", "float64-op", needs=(GRAPH,))
def float64_op(facts: Facts) -> Iterator[Finding]:
    """Arithmetic in double precision.

    ## What it finds

    Ops that compute with `float64` tensors of 64 elements and more, and whether they are an island in a model of lower
    precision or the whole model.

    ## Why it costs

    Twice the bytes, half the numbers per instruction; on most graphics cards 1/32 of the speed or less. oneDNN has no
    double-precision kernels, so convolutions and products fall back to slower ones and are not fused.

    ## Example

    ```bad
    x   = Placeholder() float32[256,256]
    up  = Cast(x) float64[256,256] 20us {SrcT: float32, DstT: float64}
    y   = MatMul(up, up) float64[256,256] 300us {T: float64}
    low = Cast(y) float32[256,256] 20us {SrcT: float64, DstT: float32}
    out = _Retval(low)
    ```

    ```good
    x   = Placeholder() float32[256,256]
    y   = MatMul(x, x) float32[256,256] 150us {T: float32}
    out = _Retval(y)
    ```

    ## Fix

    Look for the array that brought the type in: NumPy arrays are `float64` unless told otherwise. Convert it to
    `float32` where it enters the graph.

    ## When it is fine

    Where the digits are needed: long sums, ill-conditioned systems, physics.

    ## Source

    The type attribute and the output types of the judged graph's ops. The saving is modelled as half of their time.
    """
    graph = facts(judged_graph)
    if not any(map(_mentions_float64, graph.kinds)):
        return
    types = {name: dtype for name in graph if (dtype := _float_type(facts, name))}
    doubles = [name for name, dtype in types.items() if dtype == "float64"]
    if not doubles:
        return
    floats = len(types)
    whole = len(doubles) >= WHOLE_MODEL_SHARE * floats
    entries = _entries(facts, doubles)
    heavy = any(is_convolution(graph.op(name).type) or is_matmul(graph.op(name).type) for name in doubles)
    where = "The model computes" if whole else f"{counted(len(doubles), 'op')} of {floats} compute"
    yield found(
        title=f"{where} in double precision"
        if whole or len(doubles) > 1
        else f"1 op of {floats} computes in double precision",
        nodes=doubles,
        evidence={
            "float64_ops": len(doubles),
            "float_ops": floats,
            "op_types": dict(Counter(graph.op(name).type for name in doubles).most_common(OPS_LISTED)),
            "enters_at": entries[:OPS_LISTED],
        },
        reason=with_stage(facts, _float64_reason(facts, whole, entries)),
        saving=_part(saving_without(facts, doubles), FLOAT64_TIME_SAVED),
        fix=Fix(
            "Convert the inputs that bring float64 in to float32",
            "tolerance",
            (ChangeDtype(Ops(tuple(doubles)), from_="float64", to="float32"),),
            "array = array.astype(np.float32)",
        ),
        floor="medium" if heavy else "low",
    )


def _mentions_float64(op: Op) -> bool:
    return op.attrs.get("T") == "float64" or any(spec.dtype == "float64" for spec in op.outputs)


def _float_type(facts: Facts, name: str) -> str | None:
    """Return the floating type in which an op computes; ``None`` for other types, small tensors and plain moves."""
    graph = facts(judged_graph)
    op = graph.op(name)
    if op.type in _NO_ARITHMETIC or str(op.attrs.get("T", "float64")) not in _FLOATS:
        return None
    specs = [*op.outputs, *(spec for spec in input_specs(graph, name) if spec)]
    dtype = op.attrs.get("T") or next((spec.dtype for spec in specs if spec.dtype in _FLOATS), None)
    if dtype not in _FLOATS or (specs and all(_is_small(spec) for spec in specs)):
        return None
    return str(dtype)


def _is_small(spec: TensorSpec) -> bool:
    return spec.elements is not None and spec.elements < SMALLEST_TENSOR_ELEMENTS


def _entries(facts: Facts, doubles: Sequence[str]) -> list[str]:
    """Return the ops from which the doubles come: casts, arguments, constants and variables."""
    inside = set(doubles)
    graph = facts(judged_graph)
    sources = dict.fromkeys(src for name in doubles for src in data_inputs(graph, name) if src not in inside)
    return [
        src for src in sources if any(spec.dtype == "float64" and not _is_small(spec) for spec in graph.op(src).outputs)
    ]


def _float64_reason(facts: Facts, whole: bool, entries: Sequence[str]) -> str:
    graph = facts(judged_graph)
    kinds = Counter(graph.op(name).type for name in entries)
    origin = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3)) or "its own ops"
    if whole:
        return f"nearly all floating-point ops are float64; the type comes from {origin}"
    return f"float64 enters a model of lower precision through {origin}"


def _part(saving: Saving, share: float) -> Saving:
    if saving.ns is None or saving.share is None:
        return saving
    return Saving(round(saving.ns * share), saving.share * share, saving.origin)


# -- what only training needs -------------------------------------------------------------------------------------

_UNIFORM: Final = re.compile(r"^(Stateless)?RandomUniform(V2)?$|^StatefulUniform$|^RandomUniform$")
_MASK_STEPS: Final = SUMS | {"Mul", "Sub", "Identity", "Cast", "RealDiv", "Floor"}
_MASK_HOPS: Final = 6  # from the random numbers to the masked product


@rule("GL504", "training-op-in-inference", needs=(GRAPH, INFERENCE))
def training_op_in_inference(facts: Facts) -> Iterator[Finding]:
    """Dropout, or batch normalization with statistics of the batch, in a graph that does not train.

    ## What it finds

    Random masks that zero elements of a tensor (dropout), and `FusedBatchNorm` with `is_training=true`.

    ## Why it costs

    The answers are wrong before they are slow: dropout makes them random, and batch statistics make each answer
    depend on the other inputs of its batch. Random numbers are also expensive, and a normalization with batch
    statistics reads its input twice and cannot be folded.

    ## Example

    ```bad
    x     = Placeholder() float32[64,512]
    shape = Const() int32[2] = 64,512
    rate  = Const() float32[] = 0.5
    rand  = RandomUniform(shape) float32[64,512] 90us
    mask  = GreaterEqual(rand, rate) bool[64,512] 10us
    keep  = Cast(mask) float32[64,512] 10us {SrcT: bool, DstT: float32}
    drop  = Mul(x, keep) float32[64,512] 10us
    out   = _Retval(drop)
    ```

    ```good
    x     = Placeholder() float32[64,512]
    shape = Const() int32[2] = 64,512
    noise = RandomStandardNormal(shape) float32[64,512] 90us
    z     = AddV2(x, noise) float32[64,512] 10us
    out   = _Retval(z)
    ```

    ## Fix

    Export the model's call with `training=False`.

    ## When it is fine

    Dropout kept on purpose to estimate uncertainty. Layer and instance normalization that are written with
    `FusedBatchNorm` (on a reshaped input, with a constant scale) are not reported.

    ## Source

    Op types and data flow of the judged graph. Not run on graphs that train.
    """
    graph = facts(judged_graph)
    dropouts = [path for name in graph.where(_UNIFORM.match) if (path := _dropout(facts, name))]
    if dropouts:
        yield _dropout_finding(facts, dropouts)
    named = graph.where(lambda kind: runtime_type(kind) in BATCH_NORMS_AS_RUN)
    norms = [name for name in named if _uses_batch_statistics(facts, name)]
    if norms:
        yield _norm_finding(facts, norms)


def _dropout(facts: Facts, name: str) -> tuple[str, ...] | None:
    """Return the ops from uniform random numbers over a comparison to a masked product or selection, if that is one."""
    graph = facts(judged_graph)
    path, compared, current = [name], False, name
    for _ in range(_MASK_HOPS):
        consumers = data_consumers(graph, current)
        if len(consumers) != 1:
            return None
        current = consumers[0]
        path.append(current)
        op_type = graph.op(current).type
        if op_type in SELECTIONS or (op_type == "Mul" and _meets_data(facts, current, path)):
            return tuple(path) if compared or "Floor" in {graph.op(step).type for step in path} else None
        if op_type in COMPARISONS:
            if _meets_data(facts, current, path):
                return None  # a probability that is data: sampling, not dropout
            compared = True
        elif op_type not in _MASK_STEPS:
            return None
    return None


def _meets_data(facts: Facts, joined: str, path: Sequence[str]) -> bool:
    """Tell whether an op joins the random numbers with a computed tensor, rather than with a fixed one."""
    frozen = facts(frozen_ops)
    return any(src not in path and src not in frozen for src in data_inputs(facts(judged_graph), joined))


def _dropout_finding(facts: Facts, dropouts: Sequence[tuple[str, ...]]) -> Finding:
    ops = list(dict.fromkeys(name for path in dropouts for name in path))
    gone = [*ops, *exclusive_inputs(facts(judged_graph), [path[0] for path in dropouts])]
    return found(
        title=f"{counted(len(dropouts), 'dropout')} in a graph that does not train",
        nodes=ops,
        evidence={
            "layers": sorted({layer for path in dropouts if (layer := layer_of_op(facts, path[-1]))}),
            "ops": len(gone),
        },
        reason=with_stage(facts, "the function was traced with training=True, so a random mask is drawn in every step"),
        saving=saving_without(facts, gone),
        fix=_without_training(RemoveDropout(Ops(tuple(path[-1] for path in dropouts)))),
        floor="medium",
    )


def _uses_batch_statistics(facts: Facts, name: str) -> bool:
    graph = facts(judged_graph)
    op = graph.op(name)
    if op.attrs.get("is_training", True) is not True:
        return False
    inputs = data_inputs(graph, name)
    return len(inputs) >= 3 and not _normalizes_rows(facts, inputs)


def _normalizes_rows(facts: Facts, inputs: Sequence[str]) -> bool:
    """Tell whether this is layer or instance normalization: a reshaped input, scale and offset left at 1 and 0."""
    constant, graph = facts(constant_ops), facts(judged_graph)
    scale_is_fixed = all(src in constant or graph.op(src).type == "Fill" for src in inputs[1:3])
    return scale_is_fixed and runtime_type(graph.op(inputs[0]).type) in ("Reshape", "Transpose", "ExpandDims")


def _norm_finding(facts: Facts, norms: Sequence[str]) -> Finding:
    saving = saving_without(facts, norms)
    share = f" ({format_share(saving.share)} of the step)" if saving.share is not None else ""
    return found(
        title=f"{counted(len(norms), 'batch normalization')} with batch statistics in a graph that does not train",
        nodes=norms,
        evidence={
            "layers": sorted({layer for name in norms if (layer := layer_of_op(facts, name))}),
            "ops": len(norms),
        },
        reason=with_stage(
            facts,
            "the function was traced with training=True, so mean and variance are computed from each batch; "
            f"with stored statistics these ops could be folded away{share}",
        ),
        saving=Saving(saving.ns, saving.share, "bound" if saving.ns is not None else "unknown"),
        fix=_without_training(UseMovingStatistics(Ops(tuple(norms)))),
        floor="medium",
    )


def _without_training(edit: Edit) -> Fix:
    return Fix(
        "Export the model's call with training=False",
        "manual",
        (edit,),
        "tf.function(lambda x: model(x, training=False))",
    )
