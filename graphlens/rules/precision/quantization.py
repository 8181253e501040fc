"""Rules about arithmetic in float32 that imitates integers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import frozen_ops, is_training, judged_graph
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.graph import data_inputs
from graphlens.ir.nodes import Op
from graphlens.ir.ops import PASSES, VARIABLE_READS
from graphlens.rules.needs import GRAPH
from graphlens.rules.phrases import with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_share

_SIMULATED: Final = re.compile(
    r"^FakeQuantWithMinMax(Args|Vars|VarsPerChannel)(Gradient)?$|^QuantizeAndDequantize(V[234](Grad)?)?$"
)
_PER_CHANNEL: Final = "PerChannel"
_GRADIENT: Final = re.compile(r"Grad(ient)?$")
_HANDED_ON: Final = PASSES | {"Cast"}
_HOPS: Final = 8  # from a variable to its quantization: an identity or a cast, never a chain
OPS_LISTED: Final = 20


@rule("GL508", "simulated-quantization", needs=(GRAPH,))
def simulated_quantization(facts: Facts) -> Iterator[Finding]:
    """Tensors that are rounded to integers and back while everything is computed in float32.

    ## What it finds

    `FakeQuantWithMinMax…` and `QuantizeAndDequantize…`, which quantization-aware training puts behind layers and
    weights, in a graph that is served and in one that trains, with their share of the step.

    ## Why it costs

    Each reads and writes its tensor once more, in float32, and breaks the fusion of a layer with its activation. No
    product gets faster by it: they all run in float32. A step of training pays for it because the model has to learn
    what rounding does; an answer that is served gets nothing for it but the rounding.

    ## Example

    ```bad
    x    = Placeholder() float32[8,32,32,16]
    w    = ReadVariableOp(kernel) float32[3,3,16,16]
    low  = Const() float32[] = -6
    high = Const() float32[] = 6
    conv = Conv2D(x, w) float32[8,32,32,16] 90us
    fake = FakeQuantWithMinMaxVars(conv, low, high) float32[8,32,32,16] 40us
    y    = Relu(fake) float32[8,32,32,16] 10us
    out  = _Retval(y)
    ```

    ```good
    x    = Placeholder() float32[8,32,32,16]
    w    = ReadVariableOp(kernel) float32[3,3,16,16]
    conv = Conv2D(x, w) float32[8,32,32,16] 90us
    y    = Relu(conv) float32[8,32,32,16] 10us
    out  = _Retval(y)
    ```

    ## Fix

    Served: convert the trained model to one that computes with integers (the TensorFlow Lite converter takes these ops
    for the ranges of its tensors), or export it without them and serve it in float32. The second changes the
    numbers: the model has learned to be rounded. Rounded weights can be written back as weights, which changes nothing.

    Training: train in float32 first, and switch the simulation on for the last epochs. What it costs is the elementwise
    work, so that compiling the step with XLA merges it with its neighbours.

    ## When it is fine

    In training, and where the rounded numbers themselves are wanted: to measure what quantization does to the accuracy.

    ## Source

    Op types of the judged graph. The saving is a bound: the time of these ops and of their gradients.
    """
    names = facts(judged_graph).where(_SIMULATED.match)
    if names:
        yield _finding(facts, sorted(names, key=lambda name: -_self_ns(facts, name)))


def _finding(facts: Facts, names: Sequence[str]) -> Finding:
    saving = saving_without(facts, names)
    trains = facts(is_training) or any(_GRADIENT.search(_type(facts, name)) for name in names)
    where = "a training step" if trains else "a graph that does not train"
    share = f": {format_share(saving.share)} of the step" if saving.share is not None else ""
    return found(
        title=f"{counted(len(names), 'op')} imitate{'s' * (len(names) == 1)} integers in {where}{share}",
        nodes=names,
        evidence=_evidence(facts, names),
        reason=with_stage(facts, _reason(facts, names, trains)),
        saving=Saving(saving.ns, saving.share, "bound" if saving.ns is not None else "unknown"),
        fix=_fix(trains),
        floor="info" if trains else "medium",
    )


def _reason(facts: Facts, names: Sequence[str], trains: bool) -> str:
    of_weights = sum(_is_of_weights(facts, name) for name in names if not _GRADIENT.search(_type(facts, name)))
    what = "they round to integers and back in float32, and all products run in float32"
    if trains:
        return f"{what}; the model learns from this what rounding does, and the step pays for it"
    weights = f"; {of_weights} round weights, which come out the same in every step" if of_weights else ""
    return f"the model was exported as it was trained: {what}, so that nothing is gained from quantization{weights}"


def _fix(trains: bool) -> Fix:
    if trains:
        return Fix(
            "Train in float32 first and quantize in the last epochs; jit_compile=True merges the rounding with its "
            "neighbours",
            "manual",
        )
    return Fix(
        "Convert the model to integer arithmetic, or export it without the simulated quantization",
        "manual",
        snippet="converter = tf.lite.TFLiteConverter.from_saved_model(path)\n"
        "converter.optimizations = [tf.lite.Optimize.DEFAULT]",
    )


def _evidence(facts: Facts, names: Sequence[str]) -> dict[str, Any]:
    ops = [facts(judged_graph).op(name) for name in names]
    forward = [name for name in names if not _GRADIENT.search(_type(facts, name))]
    weights = [name for name in forward if _is_of_weights(facts, name)]
    bits = sorted({_bits(op) for op in ops})
    return {
        "activations": len(forward) - len(weights),
        "weights": len(weights),
        "gradients": len(names) - len(forward),
        "per_channel": sum(_PER_CHANNEL in op.type or _has_axis(op) for op in ops),
        "narrow_range": sum(op.attrs.get("narrow_range") is True for op in ops),
        "bits": bits,
        "types": dict(Counter(op.type for op in ops).most_common()),
        "slowest": list(names[:OPS_LISTED]),
    }


def _bits(op: Op) -> int:
    """Return how many bits are imitated; both families of ops default to eight."""
    told = op.attrs.get("num_bits", 8)
    return told if isinstance(told, int) else 8


def _has_axis(op: Op) -> bool:
    axis = op.attrs.get("axis", -1)
    return isinstance(axis, int) and axis >= 0


def _is_of_weights(facts: Facts, name: str) -> bool:
    """Tell whether what is rounded is a variable or computed of what never changes, and not what flows through."""
    graph = facts(judged_graph)
    if name in facts(frozen_ops):
        return True
    for _ in range(_HOPS):
        read = data_inputs(graph, name)
        if not read:
            return False
        name = read[0]
        if graph.op(name).type not in _HANDED_ON:
            break
    return graph.op(name).type in VARIABLE_READS


def _type(facts: Facts, name: str) -> str:
    return facts(judged_graph).op(name).type


def _self_ns(facts: Facts, name: str) -> int:
    timing = facts(timings).get(name)
    return timing.self_ns if timing else 0
