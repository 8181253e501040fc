"""Rules about layers that a graph spells out in small ops: normalization, activations, attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.patterns.fusion import unfused
from graphlens.ir.analysis import Finding
from graphlens.rules.fusion.unfused import Wording, findings_about
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.registry import rule

_SOFTMAX: Final = Wording(
    "softmax", "its parts", "Call tf.nn.softmax, which is one op", "weights = tf.nn.softmax(scores, axis=-1)"
)


@rule("GL204", "decomposed-layer-norm", needs=(GRAPH, INFERENCE))
def decomposed_layer_norm(facts: Facts) -> Iterator[Finding]:
    """Layer normalization that runs as its mean, variance, root, scale and shift, one op each.

    ## What it finds

    Normalizations over the last axis, written with `Mean`, `SquaredDifference` and `Rsqrt`, as Keras 3 and
    `tf.nn.moments` write them; root-mean-square normalization as well.

    ## Why it costs

    About nine ops read or write the whole tensor, where one pass or two would do. It is a bound, and often a poor one:
    on BERT, one kernel in place of each normalization gained nothing that could be measured on a processor.

    ## Example

    ```bad
    x    = Placeholder() float32[8,16,64]
    axis = Const() int32[1] = -1
    eps  = Const() float32[] = 0.001
    g    = Const() float32[64]
    mean = Mean(x, axis) float32[8,16,1] 20us
    diff = SquaredDifference(x, mean) float32[8,16,64] 20us
    var  = Mean(diff, axis) float32[8,16,1] 20us
    safe = AddV2(var, eps) float32[8,16,1] 2us
    root = Rsqrt(safe) float32[8,16,1] 2us
    from = Sub(x, mean) float32[8,16,64] 20us
    unit = Mul(from, root) float32[8,16,64] 20us
    out  = Mul(unit, g) float32[8,16,64] 20us
    end  = _Retval(out)
    ```

    ```good
    traced:
    x    = Placeholder() float32[8,16,64]
    axis = Const() int32[1] = -1
    eps  = Const() float32[] = 0.001
    mean = Mean(x, axis) float32[8,16,1]
    diff = SquaredDifference(x, mean) float32[8,16,64]
    var  = Mean(diff, axis) float32[8,16,1]
    safe = AddV2(var, eps) float32[8,16,1]
    root = Rsqrt(safe) float32[8,16,1]
    from = Sub(x, mean) float32[8,16,64]
    out  = Mul(from, root) float32[8,16,64]
    end  = _Retval(out)
    executed:
    x    = _Arg() float32[8,16,64]
    out  = _MklLayerNorm(x) float32[8,16,64] 25us
    end  = _Retval(out)
    ```

    ## Fix

    Grappler knows layer normalization only in the form that `tf.keras` 2 wrote with `FusedBatchNorm`, and only where
    oneDNN is on. XLA fuses it in any form; measure that on the whole model.

    ## When it is fine

    When the normalizations are a small part of the step, which they are beside large products.

    ## Source

    The graph as written, against the ops that ran. Batch and instance normalization, which reduce other axes, are not
    meant.
    """
    yield from findings_about(facts, "layer-norm", Wording("layer normalization", "its parts", compiles=True))


@rule("GL205", "decomposed-activation", needs=(GRAPH, INFERENCE))
def decomposed_activation(facts: Facts) -> Iterator[Finding]:
    """Activations that run as several elementwise ops: swish, GELU, mish, hard swish, a softmax by hand.

    ## What it finds

    `x * sigmoid(x)`, both forms of GELU, mish, hard swish, and `exp / sum` where these are not part of a convolution's
    or product's chain, which `unfused-conv` and `unfused-matmul` report as a whole.

    ## Why it costs

    Each op reads and writes the whole tensor, and these are cheap per element: the memory traffic is the cost.

    ## Example

    ```bad
    x    = Placeholder() float32[64,64]
    gate = Sigmoid(x) float32[64,64] 20us
    out  = Mul(x, gate) float32[64,64] 20us
    end  = _Retval(out)
    ```

    ```good
    traced:
    x    = Placeholder() float32[64,64]
    gate = Sigmoid(x) float32[64,64]
    out  = Mul(x, gate) float32[64,64]
    end  = _Retval(out)
    executed:
    x    = _Arg() float32[64,64]
    out  = _MklSwish(x) float32[64,64] 22us
    end  = _Retval(out)
    ```

    ## Fix

    A softmax by hand: call `tf.nn.softmax`. The others: oneDNN has kernels for swish and mish; GELU is fused behind a
    two-dimensional product with a bias only.

    ## When it is fine

    When the tensors are small, or the activation is a small part of the step.

    ## Source

    Regions of the graph as written that depend on one tensor, recognized by their op types, against the ops that ran.
    """
    for name in dict.fromkeys(item.candidate.name for item in facts(unfused) if item.candidate.kind == "activation"):
        wording = _SOFTMAX if name == "softmax" else Wording("activation", "its parts", compiles=True)
        yield from findings_about(facts, "activation", wording, name)


@rule("GL206", "decomposed-attention", needs=(GRAPH, INFERENCE))
def decomposed_attention(facts: Facts) -> Iterator[Finding]:
    """Attention that runs as product, scaling, mask, softmax and product, one op each.

    ## What it finds

    A product of two computed tensors whose softmax weighs a third one in another product, with a scaling and a mask
    between, also when `Einsum` computes the products.

    ## Why it costs

    The scores, one number for each pair of positions, are written and read by every op. They outgrow the other tensors
    with the square of the length.

    ## Example

    ```bad
    q      = Placeholder() float32[1,4,16,8]
    k      = Placeholder() float32[1,4,16,8]
    v      = Placeholder() float32[1,4,16,8]
    mask   = Placeholder() float32[1,1,16,16]
    half   = Const() float32[] = 0.35
    scores = BatchMatMulV2(q, k) float32[1,4,16,16] 50us {adj_y: true}
    scaled = Mul(scores, half) float32[1,4,16,16] 10us
    masked = AddV2(scaled, mask) float32[1,4,16,16] 10us
    soft   = Softmax(masked) float32[1,4,16,16] 30us
    out    = BatchMatMulV2(soft, v) float32[1,4,16,8] 50us
    end    = _Retval(out)
    ```

    ```good
    traced:
    q      = Placeholder() float32[1,4,16,8]
    k      = Placeholder() float32[1,4,16,8]
    v      = Placeholder() float32[1,4,16,8]
    mask   = Placeholder() float32[1,1,16,16]
    half   = Const() float32[] = 0.35
    scores = BatchMatMulV2(q, k) float32[1,4,16,16] {adj_y: true}
    scaled = Mul(scores, half) float32[1,4,16,16]
    masked = AddV2(scaled, mask) float32[1,4,16,16]
    soft   = Softmax(masked) float32[1,4,16,16]
    out    = BatchMatMulV2(soft, v) float32[1,4,16,8]
    end    = _Retval(out)
    executed:
    q      = _Arg() float32[1,4,16,8]
    k      = _Arg() float32[1,4,16,8]
    v      = _Arg() float32[1,4,16,8]
    mask   = _Arg() float32[1,1,16,16]
    half   = Const() float32[] = 0.35
    masked = _MklFusedBatchMatMulV2(q, k, half, mask) float32[1,4,16,16] 55us {fused_ops: [Mul, Add]}
    soft   = Softmax(masked) float32[1,4,16,16] 30us
    out    = BatchMatMulV2(soft, v) float32[1,4,16,8] 50us
    end    = _Retval(out)
    ```

    ## Fix

    On a processor with oneDNN, scores written as `matmul(q, k) * scale + mask` of `[batch, heads, length, length]`,
    with one mask for all heads, become one kernel. TensorFlow has none for the whole attention; XLA fuses what lies
    between the products.

    ## When it is fine

    When sequences are short: the scores are then small beside the layers' own products.

    ## Source

    The graph as written, against the ops that ran; the reason is found by experiments on the scores with the real
    Grappler. The rule is silent where the scores ran as one op.
    """
    yield from findings_about(facts, "attention", Wording("attention", "scaling and mask", compiles=True))
