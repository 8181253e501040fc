"""``fold-affine``: per-channel scales and shifts behind a layer become part of its weights and one bias.

What is left, ``layer -> BiasAdd -> activation``, is what Grappler fuses into one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphlens.errors import RewriteError
from graphlens.ir.edits import FoldAffine, Kept
from graphlens.ir.ops import CONVOLUTIONS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.chains import (
    AFFINE,
    LAYERS,
    PASSED,
    Chain,
    Layer,
    chain_of,
    chains,
    obstacle,
    why_not_a_layer,
)
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import CONSTANT_BYTES_LIMIT, Draft, named
from graphlens.tf.rewrite.identities import clear_identities
from graphlens.tf.rewrite.ordering import order_hard_swishes
from graphlens.tf.rewrite.values import Values

# Weights that have to be constants: oneDNN brings constant weights into its layout once, variable ones in every call,
# and picks slower kernels for them (MobileNetV2 folded into variables ran at 0.56 times its original speed, into
# constants at 1.59 times).  Without oneDNN it makes no difference.


@rewrite
def fold_affine(draft: Draft, edit: FoldAffine) -> None:
    """Fold the chain that ``edit`` names, or every one that there is.

    ``edit.weights`` keeps the new weights as ``constant`` or as ``variable``, whatever the kind of layer.
    """
    values = Values(draft)
    wanted = named(edit)
    found = [_named_chain(draft, values, wanted)] if wanted else [one for one in chains(draft, values) if one.pays]
    if not found:
        raise RewriteError("no layer is followed by a scale and shift per channel whose numbers never change")
    for chain in found:
        _fold(draft, chain, edit)
    clear_identities(draft)  # or the activation behind would not be fused all the same
    order_hard_swishes(draft)  # likewise


def _named_chain(draft: Draft, values: Values, wanted: Sequence[str]) -> Chain:
    bases = [name for name in wanted if name in draft and draft.node(name).op in LAYERS]
    if len(bases) != 1:
        kinds = ", ".join(sorted(LAYERS))
        raise RewriteError(f"{len(bases)} of the ops named are layers ({kinds}); a chain starts at exactly one")
    base = bases[0]
    reason = why_not_a_layer(draft, values, base)
    if reason:
        raise RewriteError(reason)
    chain = chain_of(draft, values, base)
    # An edit also names what computes the factors, activations that were fused, and sums of zero in front of the layer
    # that Grappler removed (Keras' ``Rescaling`` without an offset): these are no steps.
    folded = {step.name for step in chain.steps} if chain else set()
    others = {name for name in wanted if name in draft and name not in folded and _is_step(draft, values, name)}
    if chain is None or (others and not draft.before(base).issuperset(others)):
        raise RewriteError(obstacle(draft, values, chain, base))
    return chain


def _is_step(draft: Draft, values: Values, name: str) -> bool:
    return draft.node(name).op in AFFINE and not values.is_frozen(nodes.tensor(name))


def _fold(draft: Draft, chain: Chain, edit: FoldAffine) -> None:
    layer = chain.layer
    weights_name = variable_name(draft, layer.name)
    if np.any(chain.scale != 1):
        weights = layer.scaled_weights(chain.scale)
        draft.set_input(layer.name, 1, stored(draft, layer.name, weights, weights_name, edit.weights))
    *inner, last = chain.steps
    for step in inner:
        draft.bypass(step.name, _result_of(draft, step.name, layer.name))
    put_bias(draft, layer, chain.shift, last.name, bias_name(weights_name, layer))


def stored(draft: Draft, base: str, weights: np.ndarray, called: str, kept: Kept | None) -> str:
    """Keep the new weights: as constants where the kernels want that and the graph has room, else in a variable."""
    node = draft.node(base)
    wanted = kept or ("constant" if node.op in CONVOLUTIONS else "variable")
    if wanted == "constant" and draft.constant_bytes() + weights.nbytes <= CONSTANT_BYTES_LIMIT:
        return draft.constant(f"{base}/folded_weights", weights, node)
    return draft.weight(f"{base}/folded_weights", weights, called, node)


def put_bias(draft: Draft, layer: Layer, shift: np.ndarray, name: str, called: str) -> None:
    """Put one bias in place of an op behind a layer, whose name stays, so that reports can still say what it was."""
    node = draft.node(name)
    result = _result_of(draft, name, layer.name)
    value = shift.astype(layer.weights.dtype)
    grouped = _may_be_grouped(draft, layer)
    if grouped and layer.channels_first:
        value = value.reshape(-1, *[1] * (layer.weights.ndim - 2))
    bias = draft.weight(f"{layer.name}/folded_bias", value, called, node)
    inputs, kind = [result, bias, *nodes.control_inputs(node)], draft.dtype(bias)
    layout = "NCHW" if layer.channels_first else "NHWC"
    made = nodes.make("AddV2", name, inputs, node, T=kind)
    if not grouped:
        made = nodes.make("BiasAdd", name, inputs, node, T=kind, data_format=layout)
    draft.add(made)


def _may_be_grouped(draft: Draft, layer: Layer) -> bool:
    """Whether a convolution sees only a part of its input's channels at a time, or might.

    With a ``BiasAdd`` behind it Grappler fuses it into a kernel that fails on groups where oneDNN is not in use; with a
    plain sum it fuses it only where that works.
    """
    if layer.op != "Conv2D":
        return False
    shape = draft.shape(nodes.data_inputs(draft.node(layer.name))[0])
    channels = None if shape.rank is None else shape[1 if layer.channels_first else -1]
    return bool(channels != layer.weights.shape[-2])


def _result_of(draft: Draft, step: str, base: str) -> str:
    """Return the input of a step that carries the layer's result (the other one is the factor)."""
    return next(ref for ref in nodes.data_inputs(draft.node(step)) if _leads_to(draft, ref, base))


def _leads_to(draft: Draft, ref: str, base: str) -> bool:
    name = nodes.source(ref)
    while name != base:
        node = draft.node(name)
        if node.op not in PASSED:
            return False
        name = nodes.source(nodes.data_inputs(node)[0])
    return True


def bias_name(weights_name: str, layer: Layer) -> str:
    """Name a folded bias after the place of the weights that it belongs to."""
    scope = weights_name.rpartition("/")[0] or layer.name.replace("StatefulPartitionedCall/", "")
    return f"{scope}/folded_bias"


def variable_name(draft: Draft, base: str) -> str:
    """Name folded weights after the variable that they are made from."""
    weights = draft.producer(nodes.data_inputs(draft.node(base))[1])
    inputs = nodes.data_inputs(weights)
    binding = draft.bindings.get(nodes.source(inputs[0])) if inputs else None
    return f"{binding.name}_folded" if binding is not None else f"{base}/folded_weights"
