"""Rules about work that could be done inside a neighbouring kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, judged_stage, origins
from graphlens.facts.patterns.affine import AffineChain, affine_chains, is_normalization
from graphlens.facts.patterns.weight_work import depends_on_variables
from graphlens.facts.rows.op_rows import figure_of, figure_without
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Figure, Finding, Fix
from graphlens.ir.edits import FoldAffine, Ops
from graphlens.ir.graph import data_inputs
from graphlens.ir.ops import runtime_type
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.phrases import CAPTURED, by_cause, with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted

FOLDING_SNIPPET: Final = """\
def folded(layer, norm):  # a layer of Keras and the BatchNormalization behind it
    scale = norm.gamma / tf.sqrt(norm.moving_variance + norm.epsilon)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = layer.kernel * (tf.reshape(scale, layer.kernel.shape[-2:]) if depthwise else scale)
    bias = norm.beta + ((layer.bias if layer.use_bias else 0.0) - norm.moving_mean) * scale
    return kernel, bias  # the weights of the same layer with use_bias=True, and no normalization"""


@rule("GL203", "unfolded-batch-norm", needs=(GRAPH, INFERENCE))
def unfolded_batch_norm(facts: Facts) -> Iterator[Finding]:
    """Batch normalization with fixed statistics that runs as ops of its own behind a convolution or dense layer.

    ## What it finds

    A convolution (also depthwise, 3-D or transposed) or matrix product whose result is scaled and shifted, channel by
    channel, with numbers that never change: `FusedBatchNorm` in inference mode, or the `Mul` and `AddV2` that Keras 3
    writes instead. One finding names all layers.

    ## Why it costs

    Each scale and shift reads and writes the whole output of the layer once more, and the chain keeps Grappler from
    fusing the bias and the activation into the kernel. Folding made MobileNetV2, ResNet50 and EfficientNetB0 1.55 to
    1.8 times faster on a CPU.

    ## Example

    ```bad
    x        = Placeholder() float32[1,8,8,3]
    kernel   = ReadVariableOp(w) float32[3,3,3,8]
    variance = ReadVariableOp(v) float32[8]
    beta     = ReadVariableOp(b) float32[8]
    bn/Rsqrt = Rsqrt(variance) float32[8] 2us
    conv     = Conv2D(x, kernel) float32[1,8,8,8] 80us {data_format: NHWC}
    bn/mul   = Mul(conv, bn/Rsqrt) float32[1,8,8,8] 20us
    bn/add   = AddV2(bn/mul, beta) float32[1,8,8,8] 20us
    out      = Relu(bn/add) float32[1,8,8,8] 10us
    ```

    ```good
    x      = Placeholder() float32[1,8,8,3]
    kernel = Const() float32[3,3,3,8]
    bias   = Const() float32[8]
    out    = _FusedConv2D(x, kernel, bias) float32[1,8,8,8] 85us {data_format: NHWC, fused_ops: [BiasAdd, Relu]}
    ```

    ## Fix

    Multiply the weights by the scale, merge the shift into the bias, and leave the normalization out of the exported
    model. The arithmetic is the same up to rounding (1e-6 relative was measured), so outputs are compared with a
    tolerance.

    ## When it is fine

    When the same model goes on training from this export. Training graphs, and normalizations whose statistics are
    computed from the batch or updated in the graph, are not reported.

    ## Source

    The executed graph, where Grappler's own folding and fusion have been done; the graph as written where nothing
    was executed, without the chains that Grappler is known to fold. The saving is the time of the ops that vanish, and
    of the activations that the kernel then takes in.
    """
    stage = facts(judged_stage)
    chains = [chain for chain in facts(affine_chains) if stage == "executed" or not _grappler_folds(facts, chain)]
    if not chains:
        return
    chains.sort(key=lambda chain: -_cost_ns(facts, chain))
    gone = list(dict.fromkeys(name for chain in chains for name in chain.folded))
    unneeded = [*gone, *(chain.activation for chain in chains if chain.activation is not None)]
    graph = facts(judged_graph)
    yield found(
        title=_title(facts, chains, len(gone)),
        nodes=dict.fromkeys(name for chain in chains for name in (chain.base, *chain.folded)),
        evidence={
            "layers": [_layer(facts, chain) for chain in chains],
            "ops_that_vanish": len(gone),
            "op_types": dict(Counter(graph.op(name).type for name in gone).most_common()),
        },
        reason=_reason(facts, chains),
        saving=saving_without(facts, unneeded),
        removes=gone,
        figures=_figures(facts, chains[0], len(gone) + len(chains)),
        fix=Fix(
            "Fold scale and shift into the weights and the bias of the layer before",
            "tolerance",
            tuple(_edit(facts, chain) for chain in chains),
            FOLDING_SNIPPET,
        ),
    )


def _grappler_folds(facts: Facts, chain: AffineChain) -> bool:
    """Tell whether Grappler would repair a chain of the graph as written (its behaviour in TensorFlow 2.21 on CPU)."""
    if not _is_plain_convolution(facts, chain):
        return False
    graph = facts(judged_graph)
    if any("FusedBatchNorm" in graph.op(step).type for step in chain.steps):
        return chain.steps[0] == chain.scale
    return chain.is_constant


def _is_plain_convolution(facts: Facts, chain: AffineChain) -> bool:
    return runtime_type(facts(judged_graph).op(chain.base).type) in ("Conv2D", "_FusedConv2D", "Conv3D", "_FusedConv3D")


def _cost_ns(facts: Facts, chain: AffineChain) -> int:
    times = facts(timings)
    seen = (times.get(name) for name in chain.folded)
    return sum(timing.self_ns for timing in seen if timing)


def _title(facts: Facts, chains: Sequence[AffineChain], ops: int) -> str:
    normalizations = sum(is_normalization(facts, chain) for chain in chains)
    noun = "batch normalization" if normalizations == len(chains) else "per-channel scale and shift"
    if len(chains) == 1:
        return f"A {noun} with fixed numbers runs as {counted(ops, 'op')} of its own"
    plural = noun.replace("scale and shift", "scale-and-shift chain") + "s"
    return f"{len(chains)} {plural} with fixed numbers run as {counted(ops, 'op')} of their own"


def _figures(facts: Facts, chain: AffineChain, ops: int) -> tuple[Figure | None, Figure | None]:
    """Return one layer before and after: drawn alone, since layers without an activation between them hang together."""
    before = figure_of(facts, (chain.base, *chain.folded))
    if before is None:
        return None, None
    taken_in = () if chain.activation is None else (chain.activation,)
    after = figure_without(facts, before, (*chain.folded, *taken_in))
    drawn = sum(node.role == "subject" for node in before.nodes)
    return replace(before, omitted=ops - drawn), after and _with_bias(facts, after, chain)


def _with_bias(facts: Facts, figure: Figure, chain: AffineChain) -> Figure:
    """Let the layer say what its kernel does after the fix."""
    graph = facts(judged_graph)
    activation = () if chain.activation is None else (runtime_type(graph.op(chain.activation).type),)
    folded = " + ".join((runtime_type(graph.op(chain.base).type), "BiasAdd", *activation))
    return replace(
        figure, nodes=tuple(replace(node, op=folded) if node.name == chain.base else node for node in figure.nodes)
    )


def _layer(facts: Facts, chain: AffineChain) -> Mapping[str, Any]:
    return {
        "layer": layer_of_op(facts, chain.scale) or chain.scale,
        "after": layer_of_op(facts, chain.base) or chain.base,
        "kernel": runtime_type(facts(judged_graph).op(chain.base).type),
        "ops": list(chain.steps),
        "ns": _cost_ns(facts, chain) or None,
    }


def _edit(facts: Facts, chain: AffineChain) -> FoldAffine:
    # Where the chain ends is for the rewriter to see: an executed sum may stand for more than a shift.
    ops = Ops(chain.steps, traced=tuple(facts(origins).get(chain.base, ())))
    return FoldAffine(chain.base, ops, freeze=not chain.is_constant)


def _reason(facts: Facts, chains: Sequence[AffineChain]) -> str:
    return with_stage(facts, by_cause(_cause(facts, chain) for chain in chains))


def _parts(facts: Facts, chain: AffineChain) -> Sequence[str]:
    return (data_inputs(facts(judged_graph), chain.base)[1], *chain.operands)


def _cause(facts: Facts, chain: AffineChain) -> str:
    if not chain.is_constant and not depends_on_variables(facts, _parts(facts, chain)):
        return f"weights or statistics are {CAPTURED}"
    if not chain.is_constant:
        return (
            "weights or statistics are variables, which might be written between two calls, so Grappler's constant "
            "folding leaves them alone (freezing the model makes them constants)"
        )
    graph = facts(judged_graph)
    if not _is_plain_convolution(facts, chain):
        kind = "depthwise convolution" if chain.depthwise else graph.op(chain.base).type
        return f"the layer is a {kind}, into whose weights Grappler folds no scale"
    if chain.has_bias:
        return "the layer has a bias of its own, which Grappler fuses first; it does not fold a scale behind that"
    return f"why Grappler left it after {graph.op(chain.base).type} was not established"
