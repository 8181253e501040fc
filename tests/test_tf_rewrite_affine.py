"""Folding a scale and shift into the layer before: the same numbers with fewer ops, or a refusal that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edits import FoldAffine, Ops

pytestmark = pytest.mark.tf
FOLD = FoldAffine()
# Rounding of float32: folding multiplies the weights first, and sums in another order.
TOLERANCE = 2e-6


def keras_norm(lab: Any, channels: int) -> Any:
    """Batch normalization as Keras 3 writes it: no op of that name, and its numbers in variables."""
    import tensorflow as tf

    mean, variance, gamma, beta = (lab.variable(channels) for _ in range(4))

    def norm(x: Any) -> Any:
        scale = tf.math.rsqrt(variance + 1e-3) * gamma
        return x * scale + (beta - mean * scale)

    return norm


def fused_norm(lab: Any, channels: int) -> Any:
    import tensorflow as tf

    numbers = [lab.variable(channels) for _ in range(4)]
    return lambda x: tf.compat.v1.nn.fused_batch_norm(x, *numbers, is_training=False)[0]


def layers(lab: Any) -> dict[str, tuple[Any, Any, int]]:
    """Every kind of layer: how to call it, an input for it, and how many channels come out."""
    import tensorflow as tf

    image, volume, rows = lab.random(2, 6, 6, 4), lab.random(2, 4, 4, 4, 3), lab.random(5, 6)
    conv, deep, depthwise = lab.variable(3, 3, 4, 8), lab.variable(2, 2, 2, 3, 5), lab.variable(3, 3, 4, 2)
    backwards, dense, turned = lab.variable(3, 3, 7, 4), lab.variable(6, 5), lab.variable(5, 6)
    grouped, line = lab.variable(3, 3, 2, 6), lab.variable(3, 4, 8)
    return {
        "conv": (lambda x: tf.nn.conv2d(x, conv, 1, "SAME"), image, 8),
        "conv with explicit padding": (lambda x: tf.nn.conv2d(x, conv, 2, [[0, 0], [1, 0], [0, 1], [0, 0]]), image, 8),
        "grouped conv": (lambda x: tf.nn.conv2d(x, grouped, 1, "SAME"), image, 6),
        "conv1d": (lambda x: tf.nn.conv1d(x[:, 0], line, 1, "SAME"), image, 8),
        "depthwise conv": (lambda x: tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME"), image, 8),
        "conv3d": (lambda x: tf.nn.conv3d(x, deep, [1] * 5, "SAME"), volume, 5),
        "transposed conv": (lambda x: tf.nn.conv2d_transpose(x, backwards, [2, 12, 12, 7], 2), image, 7),
        "dense": (lambda x: tf.matmul(x, dense), rows, 5),
        "dense with turned weights": (lambda x: tf.matmul(x, turned, transpose_b=True), rows, 5),
    }


@pytest.mark.parametrize(
    "kind",
    "conv|conv with explicit padding|grouped conv|conv1d|depthwise conv|conv3d|transposed conv|dense|"
    "dense with turned weights".split("|"),
)
def test_a_keras_norm_behind_every_kind_of_layer_becomes_one_bias(lab: Any, kind: str) -> None:
    import tensorflow as tf

    layer, example, channels = layers(lab)[kind]
    norm = keras_norm(lab, channels)
    edited = lab.trace(lambda x: tf.nn.relu(norm(layer(x))), example).edited(FOLD)
    assert edited.difference < TOLERANCE
    # TensorFlow without oneDNN fuses a bias into a grouped convolution, and then has no kernel for it: a sum is left.
    assert edited.types["AddV2" if kind == "grouped conv" else "BiasAdd"] == 1
    assert edited.types["AddV2"] + edited.types["BiasAdd"] == 1
    assert not {"Mul", "Sub", "Rsqrt"} & set(edited.types)


@pytest.mark.parametrize("kind", ["conv", "depthwise conv"])
def test_a_fused_batch_norm_vanishes(lab: Any, kind: str) -> None:
    layer, example, channels = layers(lab)[kind]
    norm = fused_norm(lab, channels)
    edited = lab.trace(lambda x: norm(layer(x)), example).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert "FusedBatchNormV3" not in edited.types


def test_the_channels_may_come_first(lab: Any) -> None:
    import tensorflow as tf

    weights, scale, bias = lab.variable(2, 2, 3, 4), lab.variable(1, 4, 1, 1), lab.variable(4)

    @tf.function
    def chain(x: Any) -> Any:
        y = tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME", data_format="NCHW"), bias, "NC..")
        return y * scale

    program = lab.of_function(chain.get_concrete_function(tf.TensorSpec((None, 3, 5, 5))))
    edited = lab.rewrite.apply(program, [FOLD])  # this format has no kernel on every CPU: the graph alone is looked at
    (bias_add,) = (node for node in edited.graph.node if node.op == "BiasAdd")
    assert bias_add.attr["data_format"].s == b"NCHW"
    assert "Mul" not in lab.types(edited)


def test_every_arithmetic_is_read_the_right_way_round(lab: Any) -> None:
    import tensorflow as tf

    weights, *numbers = [lab.variable(3, 4), *(lab.variable(4) for _ in range(6))]
    a, b, c, d, e, f = numbers

    def chain(x: Any) -> Any:
        y = c - ((a * tf.matmul(x, weights) - b) / d)
        return tf.nn.relu(tf.nn.bias_add(e * y, f) + 0.5)

    edited = lab.trace(chain, lab.random(3, 3)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert edited.types == {"Placeholder": 3, "ReadVariableOp": 2, "MatMul": 1, "BiasAdd": 1, "Relu": 1, "Identity": 1}


def test_the_last_op_keeps_its_name(lab: Any) -> None:
    import tensorflow as tf

    weights, scale, shift = lab.variable(3, 4), lab.variable(4), lab.variable(4)
    traced = lab.trace(lambda x: tf.add(tf.matmul(x, weights) * scale, shift, name="shifted"), lab.random(2, 3))
    edited = traced.edited(FOLD)
    assert next(node.op for node in edited.program.graph.node if node.name == "shifted") == "BiasAdd"


def test_grappler_fuses_what_is_left(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(3, 3, 4, 8), keras_norm(lab, 8)
    traced = lab.trace(lambda x: tf.nn.relu(norm(tf.nn.conv2d(x, weights, 1, "SAME"))), lab.random(1, 6, 6, 4))
    ran = lab.ran_as(traced.edited(FOLD).built, traced.examples)
    assert ran["_FusedConv2D"] == 1
    assert not {"Conv2D", "BiasAdd", "Relu", "Mul"} & set(ran)


def test_what_a_custom_gradient_leaves_does_not_keep_the_activation_out(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(3, 3, 4, 8), keras_norm(lab, 8)
    traced = lab.trace(lambda x: tf.nn.silu(norm(tf.nn.conv2d(x, weights, 1, "SAME"))), lab.random(1, 6, 6, 4))
    edited = traced.edited(FOLD)
    assert lab.types(traced.program)["IdentityN"] == 1
    assert edited.types["IdentityN"] == 0
    assert edited.types["Mul"] == 1
    assert edited.difference < TOLERANCE


def test_variables_stay_variables_except_the_kernels_that_have_to_be_constants(lab: Any) -> None:
    import tensorflow as tf

    conv, dense = lab.variable(3, 3, 4, 8), lab.variable(8, 5)
    first, second = keras_norm(lab, 8), keras_norm(lab, 5)

    def network(x: Any) -> Any:
        y = tf.nn.relu(first(tf.nn.conv2d(x, conv, 1, "SAME")))
        return second(tf.matmul(tf.reduce_mean(y, [1, 2]), dense))

    edited = lab.trace(network, lab.random(2, 6, 6, 4)).edited(FOLD)
    constants = [node for node in edited.program.graph.node if node.op == "Const" and "folded" in node.name]
    assert [tuple(tf.make_ndarray(node.attr["value"].tensor).shape) for node in constants] == [(3, 3, 4, 8)]
    held = {binding.value.shape for binding in edited.program.bindings.values() if binding.kind == "weight"}
    assert held == {(8,), (8, 5), (5,)}
    variables = lab.trace(network, lab.random(2, 6, 6, 4)).edited(replace(FOLD, weights="variable"))
    assert not [node for node in variables.program.graph.node if node.op == "Const" and "folded" in node.name]


def test_weights_that_two_layers_share_are_copied(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(4, 4), keras_norm(lab, 4)
    before = weights.numpy().copy()

    def twice(x: Any) -> Any:
        return tf.matmul(norm(tf.matmul(x, weights)), weights)

    edited = lab.trace(twice, lab.random(3, 4)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert np.array_equal(weights.numpy(), before)


def test_the_program_that_was_given_stays_as_it_is(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(4, 4), keras_norm(lab, 4)
    traced = lab.trace(lambda x: norm(tf.matmul(x, weights)), lab.random(3, 4))
    before = traced.program.graph.SerializeToString(deterministic=True)
    traced.edited(FOLD)
    assert traced.program.graph.SerializeToString(deterministic=True) == before


# -- where it would be wrong ----------------------------------------------------------------------------------------


def refusal(lab: Any, function: Any, *examples: Any, edit: dict[str, Any] | None = None) -> str:
    with pytest.raises(RewriteError) as caught:
        lab.trace(function, *examples).edited(edit or FOLD)
    return str(caught.value)


def test_a_sum_in_front_that_the_layer_was_joined_to_is_no_step(lab: Any) -> None:
    """Grappler removes the sum of zero that Keras' ``Rescaling`` ends in; what ran as the layer stands for both."""
    import tensorflow as tf

    weights, norm = lab.variable(3, 3, 4, 8), keras_norm(lab, 8)

    def rescaled(x: Any) -> Any:
        inputs = tf.add(x * 0.5, 0.0, name="rescaled")
        return tf.nn.relu(norm(tf.nn.conv2d(inputs, weights, 1, "SAME", name="layer")))

    edited = lab.trace(rescaled, lab.random(2, 6, 6, 4)).edited(replace(FOLD, where=Ops(traced=("rescaled", "layer"))))
    assert edited.difference < TOLERANCE
    assert edited.types["BiasAdd"] == 1
    assert edited.types["AddV2"] == edited.types["Mul"] == 1


def test_an_op_that_reads_the_layer_as_well_stops_it(lab: Any) -> None:
    import tensorflow as tf

    weights, scale = lab.variable(4, 4), lab.variable(4)

    def read_twice(x: Any) -> Any:
        y = tf.matmul(x, weights, name="layer")
        return tf.multiply(y, scale, name="scaled"), tf.reduce_sum(y)

    edit = replace(FOLD, where=Ops(traced=("layer", "scaled")))
    assert "2 ops read 'layer'" in refusal(lab, read_twice, lab.random(3, 4), edit=edit)
    assert "no layer" in refusal(lab, read_twice, lab.random(3, 4))


def test_a_result_that_is_returned_stops_it(lab: Any) -> None:
    import tensorflow as tf

    from graphlens.tf.rewrite.draft import Draft
    from graphlens.tf.rewrite.registry import rewrites

    weights, scale = lab.variable(4, 4), lab.variable(4)
    traced = lab.trace(
        lambda x: tf.multiply(tf.matmul(x, weights, name="layer"), scale, name="scaled"), lab.random(3, 4)
    )
    draft = Draft(traced.program)
    draft.outputs.append("layer:0")  # tracing returns an Identity; a frozen graph returns the op itself
    with pytest.raises(RewriteError, match="returns 'layer'"):
        rewrites()["fold-affine"](draft, replace(FOLD, where=Ops(traced=("layer", "scaled"))))


def test_statistics_of_the_batch_stop_it(lab: Any) -> None:
    import tensorflow as tf

    weights = lab.variable(3, 3, 4, 8)

    def trains(x: Any) -> Any:
        y = tf.nn.conv2d(x, weights, 1, "SAME", name="layer")
        return tf.compat.v1.nn.fused_batch_norm(y, tf.ones(8), tf.zeros(8), is_training=True, name="norm")[0]

    edit = replace(FOLD, where=Ops(traced=("layer", "norm")))
    assert "is_training=True" in refusal(lab, trains, lab.random(2, 6, 6, 4), edit=edit)


def test_a_scale_that_is_computed_in_the_call_stops_it(lab: Any) -> None:
    import tensorflow as tf

    weights = lab.variable(4, 4)

    def gated(x: Any, gate: Any) -> Any:
        return tf.multiply(tf.matmul(x, weights, name="layer"), gate, name="gated")

    edit = replace(FOLD, where=Ops(traced=("layer", "gated")))
    assert "'gate'" in refusal(lab, gated, lab.random(3, 4), lab.random(3, 4), edit=edit)


def test_a_variable_that_the_function_writes_stops_it(lab: Any) -> None:
    import tensorflow as tf

    weights, scale = lab.variable(4, 4), lab.variable(4)

    def updates(x: Any) -> Any:
        y = tf.matmul(x, weights, name="layer") * scale
        scale.assign(scale * 0.9)
        return y

    refusal(lab, updates, lab.random(3, 4))


def test_numbers_that_differ_along_another_axis_are_no_scale_of_channels(lab: Any) -> None:
    import tensorflow as tf

    weights, positions = lab.variable(3, 3, 4, 8), lab.variable(6, 8)
    function = lambda x: tf.nn.conv2d(x, weights, 1, "SAME") * positions  # noqa: E731
    refusal(lab, function, lab.random(2, 6, 6, 4))


def test_an_activation_between_layer_and_norm_stops_it(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(4, 4), keras_norm(lab, 4)
    refusal(lab, lambda x: norm(tf.nn.relu(tf.matmul(x, weights))), lab.random(3, 4))


def test_a_depthwise_layer_with_explicit_padding_is_left_alone(lab: Any) -> None:
    # A fused bias there ends the process of TensorFlow 2.21 with oneDNN.
    import tensorflow as tf

    weights, norm = lab.variable(3, 3, 4, 1), keras_norm(lab, 4)
    padding = [[0, 0], [1, 0], [0, 1], [0, 0]]
    why = refusal(
        lab,
        lambda x: norm(tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], padding, name="layer")),
        lab.random(2, 6, 6, 4),
        edit=replace(FOLD, where=Ops(traced=("layer",))),
    )
    assert "explicit padding" in why


def test_a_lone_bias_is_left_alone(lab: Any) -> None:
    import tensorflow as tf

    weights, bias = lab.variable(4, 4), lab.variable(4)
    refusal(lab, lambda x: tf.nn.bias_add(tf.matmul(x, weights), bias), lab.random(3, 4))


@pytest.mark.parametrize("kind", ["Conv2D", "Conv2D with bias", "DepthwiseConv2D", "Dense"])
def test_the_snippet_of_the_rule_folds_layers_of_keras(kind: str) -> None:
    import keras
    import tensorflow as tf

    from graphlens.rules.fusion.fusion import FOLDING_SNIPPET

    sizes = {"DepthwiseConv2D": {"kernel_size": 3, "depth_multiplier": 2}, "Dense": {"units": 7}}
    options = {**sizes.get(kind, {"filters": 5, "kernel_size": 3}), "use_bias": kind != "Conv2D"}
    random = np.random.default_rng(0)
    layer_type, norm = getattr(keras.layers, kind.removesuffix(" with bias")), keras.layers.BatchNormalization()
    layer, replacement = layer_type(**options), layer_type(**{**options, "use_bias": True})
    x = random.normal(size=(2, 8, 8, 4)).astype(np.float32)
    norm(layer(x)), replacement(x)
    for part in (layer, norm):
        part.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in part.get_weights()])
    defined: dict[str, Any] = {"tf": tf, "keras": keras}
    exec(FOLDING_SNIPPET, defined)
    replacement.set_weights(defined["folded"](layer, norm))
    expected = np.asarray(norm(layer(x)))
    assert np.abs(np.asarray(replacement(x)) - expected).max() <= TOLERANCE * np.abs(expected).max()
