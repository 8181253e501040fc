"""Rules about what stands in front of a layer and could be part of its weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, judged_stage, origins
from graphlens.facts.patterns.input_affine import InputChain, input_chains
from graphlens.facts.patterns.weight_work import depends_on_variables
from graphlens.facts.rows.op_rows import figure_of, figure_without
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Figure, Finding, Fix
from graphlens.ir.edits import FoldInputAffine, Ops
from graphlens.ir.graph import data_inputs
from graphlens.ir.ops import FED, SCALINGS, runtime_type
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.phrases import CAPTURED, with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted

LAYERS_LISTED: Final = 20

SNIPPET: Final = """\
def folded(kernel, bias, scale, shift):  # of a convolution without padding, or a dense layer, behind x * scale + shift
    weighted = kernel * tf.reshape(scale, [-1, 1])
    return weighted, bias + tf.reduce_sum(kernel * tf.reshape(shift, [-1, 1]), axis=range(len(kernel.shape) - 1))"""


@rule("GL214", "unfolded-input-scale", needs=(GRAPH, INFERENCE))
def unfolded_input_scale(facts: Facts) -> Iterator[Finding]:
    """A scale and shift of the input with fixed numbers that runs as ops of its own in front of a layer.

    ## What it finds

    A convolution (also depthwise, 3-D or transposed) or matrix product whose input is scaled and shifted, by one number
    or channel by channel, with numbers that never change: Keras' `Rescaling` and `Normalization` in front of the first
    layer, the scale and offset of a layer normalization in front of a dense layer. Chains of the same ops are one
    finding.

    ## Why it costs

    Each scale and shift reads and writes the whole input once more. An image is large where it comes in, and has three
    channels only, with which such ops are slow.

    ## Example

    ```bad
    x      = Placeholder() float32[1,32,32,3]
    kernel = ReadVariableOp(w) float32[3,3,3,8]
    scale  = Const() float32[] = 0.0078125
    shift  = Const() float32[] = -1
    mul    = Mul(x, scale) float32[1,32,32,3] 20us
    add    = AddV2(mul, shift) float32[1,32,32,3] 20us
    conv   = Conv2D(add, kernel) float32[1,30,30,8] 80us {data_format: NHWC, padding: VALID}
    out    = Relu(conv) float32[1,30,30,8] 10us
    ```

    ```good
    x      = Placeholder() float32[1,32,32,3]
    kernel = Const() float32[3,3,3,8]
    bias   = Const() float32[8]
    out    = _FusedConv2D(x, kernel, bias) float32[1,30,30,8] 85us {padding: VALID, fused_ops: [BiasAdd, Relu]}
    ```

    ## Fix

    Multiply the weights by the scale of their input channel, and add the weighted sum of the shifts to the bias. A
    layer that pads with zeros must not see the shift in its padding: there one sum stays in front, `x + shift / scale`.
    The arithmetic is the same up to rounding, so outputs are compared with a tolerance.

    ## When it is fine

    When the same model goes on training from this export. Training graphs are not reported, nor is a shift alone that
    has to stay in front.

    ## Source

    The judged graph, where Grappler has done its own folding if the model was executed. The saving is the time of the
    ops that vanish.
    """
    alike: dict[tuple[str, ...], list[InputChain]] = defaultdict(list)
    graph = facts(judged_graph)
    for chain in facts(input_chains):
        alike[tuple(runtime_type(graph.op(name).type) for name in (*chain.steps, chain.layer))].append(chain)
    for kinds, chains in alike.items():
        yield _finding(facts, kinds, chains)


def _finding(facts: Facts, kinds: Sequence[str], chains: Sequence[InputChain]) -> Finding:
    graph = facts(judged_graph)
    gone = list(dict.fromkeys(name for chain in chains for name in chain.folded))
    stays = sum(chain.shift_stays for chain in chains)
    return found(
        title=_title(facts, kinds, chains),
        nodes=dict.fromkeys(name for chain in chains for name in (*chain.steps, *chain.folded, chain.layer)),
        evidence={
            "layers": [_name(facts, chain) for chain in chains[:LAYERS_LISTED]],
            "count": len(chains),
            "ops_that_vanish": len(gone),
            "op_types": dict(Counter(graph.op(name).type for name in gone).most_common()),
            "shifts_that_stay": stays,
        },
        reason=with_stage(facts, _cause(facts, chains)),
        saving=saving_without(facts, gone),
        removes=gone,
        figures=_figures(facts, chains[0], gone),
        fix=Fix(
            "Fold scale and shift of the input into the weights and the bias of the layer"
            + ("; the layer pads with zeros, so that one sum stays in front" if stays else ""),
            "tolerance",
            tuple(_edit(facts, chain) for chain in chains),
            SNIPPET,
        ),
    )


def _title(facts: Facts, kinds: Sequence[str], chains: Sequence[InputChain]) -> str:
    *steps, _ = kinds
    scales = "scale" if set(steps) <= SCALINGS else "scale and shift"
    one = f"'{_name(facts, chains[0])}' {scales if len(steps) > 1 else scales.replace('scale', 'scales')} its input"
    where = one if len(chains) == 1 else f"{counted(len(chains), 'layer')} {scales} their input"
    ops = f"{counted(len(steps) * len(chains), 'op')} in front of"
    return f"{ops} {where} by fixed numbers ({', '.join(dict.fromkeys(steps))})"


def _name(facts: Facts, chain: InputChain) -> str:
    return layer_of_op(facts, chain.layer) or chain.layer


def _cause(facts: Facts, chains: Sequence[InputChain]) -> str:
    graph = facts(judged_graph)
    weights = [data_inputs(graph, chain.layer)[1] for chain in chains]
    factors = [source for chain in chains for step in chain.steps for source in data_inputs(graph, step)]
    cause = "Grappler folds scales behind a layer into its weights, and none in front of it"
    if depends_on_variables(facts, weights):
        return f"{cause}; nor would it for weights that are variables, which might be written between two calls"
    is_captured = any(graph.op(source).constant is not None and graph.op(source).type in FED for source in factors)
    return f"{cause}; the numbers are {CAPTURED}" if is_captured else cause


def _figures(facts: Facts, chain: InputChain, gone: Sequence[str]) -> tuple[Figure | None, Figure | None]:
    before = figure_of(facts, (*chain.steps, chain.layer))
    return (None, None) if before is None else (before, figure_without(facts, before, gone))


def _edit(facts: Facts, chain: InputChain) -> FoldInputAffine:
    # Where the chain begins is for the rewriter to see: the layer says which one is meant.
    if facts(judged_stage) == "traced":
        return FoldInputAffine(Ops((chain.layer,)))
    return FoldInputAffine(Ops((chain.layer,), traced=tuple(facts(origins).get(chain.layer, ())) or None))
