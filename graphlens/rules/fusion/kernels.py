"""Rules about kernels that leave a bias, a normalization or an activation to ops of their own."""

from __future__ import annotations

from collections.abc import Iterator

from graphlens.facts.core import Facts
from graphlens.ir.analysis import Finding
from graphlens.rules.fusion.paddings import padding_findings
from graphlens.rules.fusion.unfused import Wording, findings_about
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.registry import rule


@rule("GL201", "unfused-conv", needs=(GRAPH, INFERENCE))
def unfused_conv(facts: Facts) -> Iterator[Finding]:
    """Convolutions whose padding, bias, normalization, sum or activation runs as an op of its own.

    ## What it finds

    A convolution (also depthwise, 3-D or transposed) and what follows it, where one kernel could do all and several
    ops ran. Chains with the same cause are one finding.

    A `Pad` with zeros (Keras: `ZeroPadding2D`) that ran as an op of its own, where only convolutions read it and each
    can add these zeros as it reads the image. All of them are one finding.

    ## Why it costs

    Each op behind the convolution reads and writes the whole output once more; fused, the numbers never leave the
    cache. It is a bound: fused kernels are not always faster, and the arithmetic remains. A padding copies the whole
    image: without four such copies, MobileNetV2 and EfficientNetB0 took 3 to 4 % less time on a CPU as they are, and 5
    to 8 % with their normalizations folded.

    ## Example

    ```bad
    x    = Placeholder() float32[1,8,8,3]
    w    = Const() float32[3,3,3,8]
    b    = Const() float32[8]
    conv = Conv2D(x, w) float32[1,8,8,8] 80us {data_format: NHWC}
    bias = BiasAdd(conv, b) float32[1,8,8,8] 20us
    act  = Relu(bias) float32[1,8,8,8] 20us
    peek = Softmax(conv) float32[1,8,8,8] 20us
    out  = _Retval(act)
    seen = _Retval(peek)
    ```

    ```good
    traced:
    x    = Placeholder() float32[1,8,8,3]
    w    = Const() float32[3,3,3,8]
    b    = Const() float32[8]
    conv = Conv2D(x, w) float32[1,8,8,8] {data_format: NHWC}
    bias = BiasAdd(conv, b) float32[1,8,8,8]
    act  = Relu(bias) float32[1,8,8,8]
    out  = _Retval(act)
    executed:
    x    = _Arg() float32[1,8,8,3]
    w    = Const() float32[3,3,3,8]
    b    = Const() float32[8]
    act  = _FusedConv2D(x, w, b) float32[1,8,8,8] 85us {data_format: NHWC, fused_ops: [BiasAdd, Relu]}
    out  = _Retval(act)
    ```

    ## Fix

    The reason names the op or the attribute that is in the way, and the change with which Grappler fuses the chain.

    A padding goes, and the convolution gets `padding="same"` in place of `"valid"`, where both add the same zeros:
    along each axis `max((ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)`, half of them
    before the image, rounded down, and the rest behind it. With stride 1 that is so for images of any size, else for
    the size that the model declares; with a size left open it is not known. Keras' `correct_pad` computes just these
    zeros; `ZeroPadding2D(1)` before a kernel of 3 with stride 2 adds others to images of even size. Other zeros a plain
    convolution takes as numbers (`tf.nn.conv2d(padding=[[0, 0], [3, 3], [3, 3], [0, 0]])`), a depthwise one does not.

    ## When it is fine

    When the inner result is needed elsewhere, or the kernel is so large that one pass over its output is nothing.
    A padding that something else reads as well is not reported, nor one that was too cheap to be seen.

    ## Source

    Chains of the graph as written, against the ops that ran. The reason is found by experiments: the chain is cut out,
    one property is changed at a time, then two, and the real Grappler says whether it fuses the result. Layers that
    `unfolded-batch-norm` reports are left to that rule. Paddings: those that ran, with the amounts, sizes and strides
    of the graph as written; the saving is their time.
    """
    yield from findings_about(facts, "conv", Wording("convolution", "its bias, normalization or activation"))
    yield from padding_findings(facts)


@rule("GL202", "unfused-matmul", needs=(GRAPH, INFERENCE))
def unfused_matmul(facts: Facts) -> Iterator[Finding]:
    """Matrix products whose bias, sum or activation runs as an op of its own.

    ## What it finds

    `MatMul`, `BatchMatMul` and `Einsum` with what follows them, where one kernel could do all and several ops ran.
    Chains with the same cause are one finding.

    ## Why it costs

    Each op behind the product reads and writes the whole output once more. It is a bound: on BERT, fusing the biases
    of all dense layers gained nothing that could be measured.

    ## Example

    ```bad
    x      = Placeholder() float32[4,16,32]
    w      = Const() float32[32,64]
    b      = Const() float32[64]
    rows   = Const() int32[2] = 64,32
    size   = Const() int32[3] = 4,16,64
    flat   = Reshape(x, rows) float32[64,32]
    matmul = MatMul(flat, w) float32[64,64] 80us
    back   = Reshape(matmul, size) float32[4,16,64]
    bias   = BiasAdd(back, b) float32[4,16,64] 20us
    out    = _Retval(bias)
    ```

    ```good
    traced:
    x      = Placeholder() float32[64,32]
    w      = Const() float32[32,64]
    b      = Const() float32[64]
    matmul = MatMul(x, w) float32[64,64]
    bias   = BiasAdd(matmul, b) float32[64,64]
    out    = _Retval(bias)
    executed:
    x      = _Arg() float32[64,32]
    w      = Const() float32[32,64]
    b      = Const() float32[64]
    bias   = _FusedMatMul(x, w, b) float32[64,64] 85us {fused_ops: [BiasAdd]}
    out    = _Retval(bias)
    ```

    ## Fix

    The reason names the op or the attribute that is in the way, and the change with which Grappler fuses the chain. A
    dense layer on a tensor of three axes has a `Reshape` between product and bias; with the leading axes flattened
    before the layer and restored after its activation it has none.

    ## When it is fine

    When the product is large: its arithmetic grows with the third power, the pass over its output with the second.

    ## Source

    Chains of the graph as written, against the ops that ran. The reason is found by experiments with the real
    Grappler, as for `unfused-conv`.
    """
    yield from findings_about(facts, "matmul", Wording("matrix product", "its bias, sum or activation"))
