"""Folding a scale and shift in front of a layer: the same numbers with fewer ops, or a refusal that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edit_data import own_edits
from graphlens.ir.edits import FoldInputAffine, Ops

pytestmark = pytest.mark.tf
FOLD = FoldInputAffine()
TOLERANCE = 1e-5
ARITHMETIC = ("Mul", "RealDiv", "Sub", "AddV2", "BiasAdd")


def normalized(lab: Any, channels: int) -> Any:
    """An input as EfficientNet normalizes it: scaled, shifted, and divided by a number per channel."""
    mean, deviation = lab.random(channels), lab.variable(channels)
    return lambda x: (x * np.float32(1 / 3) - mean) / deviation


def arithmetic(program: Any) -> int:
    """Count the ops that scale or shift."""
    return sum(node.op in ARITHMETIC for node in program.graph.node)


def layers(lab: Any) -> dict[str, tuple[Any, Any]]:
    """Every kind of layer, and an input for it; those that see no zeros around their input are called so."""
    import tensorflow as tf

    image, volume, rows = lab.random(2, 7, 6, 4), lab.random(2, 4, 5, 4, 3), lab.random(5, 6)
    conv, point, deep = lab.variable(3, 2, 4, 8), lab.variable(1, 1, 4, 5), lab.variable(2, 2, 2, 3, 5)
    grouped, depthwise, backwards = lab.variable(3, 3, 2, 6), lab.variable(3, 3, 4, 2), lab.variable(3, 3, 7, 4)
    dense, turned, line = lab.variable(6, 5), lab.variable(5, 6), lab.variable(3, 4, 8)
    frame, explicit = [[0, 0], [1, 2], [0, 1], [0, 0]], [[0, 0], [1, 0], [0, 1], [0, 0]]
    return {
        "conv without zeros": (lambda x: tf.nn.conv2d(x, conv, [2, 1], "VALID"), image),
        "dilated conv without zeros": (lambda x: tf.nn.conv2d(x, conv, 1, "VALID", dilations=2), image),
        "conv of points without zeros": (lambda x: tf.nn.conv2d(x, point, 2, "SAME"), image),
        "grouped conv without zeros": (lambda x: tf.nn.conv2d(x, grouped, 1, "VALID"), image),
        "depthwise conv without zeros": (lambda x: tf.nn.depthwise_conv2d(x, depthwise, [1, 2, 2, 1], "VALID"), image),
        "conv3d without zeros": (lambda x: tf.nn.conv3d(x, deep, [1, 1, 2, 1, 1], "VALID"), volume),
        "conv1d without zeros": (lambda x: tf.nn.conv1d(x, line, 1, "VALID"), lab.random(2, 9, 4)),
        "dense without zeros": (lambda x: tf.matmul(x, dense), rows),
        "dense with turned weights without zeros": (lambda x: tf.matmul(x, turned, transpose_b=True), rows),
        "conv": (lambda x: tf.nn.conv2d(x, conv, 2, "SAME"), image),
        "conv with explicit padding": (lambda x: tf.nn.conv2d(x, conv, 1, explicit), image),
        "conv behind a pad": (lambda x: tf.nn.conv2d(tf.pad(x, frame), conv, 2, "VALID"), image),
        "grouped conv": (lambda x: tf.nn.conv2d(x, grouped, 1, "SAME"), image),
        "depthwise conv": (lambda x: tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME"), image),
        "conv3d": (lambda x: tf.nn.conv3d(x, deep, [1] * 5, "SAME"), volume),
        "transposed conv": (lambda x: tf.nn.conv2d_transpose(x, backwards, [2, 14, 12, 7], 2), image),
    }


KINDS = """conv without zeros|dilated conv without zeros|conv of points without zeros|grouped conv without zeros
depthwise conv without zeros|conv3d without zeros|conv1d without zeros|dense without zeros
dense with turned weights without zeros|conv|conv with explicit padding|conv behind a pad|grouped conv|depthwise conv
conv3d|transposed conv""".replace("\n", "|").split("|")


@pytest.mark.parametrize("kind", KINDS)
def test_a_normalization_before_every_kind_of_layer_becomes_one_op(lab: Any, kind: str) -> None:
    layer, example = layers(lab)[kind]
    norm = normalized(lab, example.shape[-1])
    edited = lab.trace(lambda x: layer(norm(x)), example).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert arithmetic(edited.program) == 1
    if "without zeros" in kind and "grouped" not in kind:
        assert edited.types["BiasAdd"] == 1  # what a layer's kernel takes in; with groups a plain sum is
    elif "without zeros" not in kind:
        assert edited.types["AddV2"] == 1  # the shift stays in front: zeros around the image must stay zeros


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_alone_vanishes(lab: Any, kind: str) -> None:
    layer, example = layers(lab)[kind]
    scale = lab.variable(example.shape[-1])
    edited = lab.trace(lambda x: layer(x / np.float32(255) * scale), example).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert arithmetic(edited.program) == 0


@pytest.mark.parametrize("seed", range(12))
def test_every_arithmetic_on_random_sizes_is_read_the_right_way_round(lab: Any, seed: int) -> None:
    import tensorflow as tf

    random = np.random.default_rng(seed)
    groups, channels, outputs = (int(random.integers(1, 4)) for _ in range(3))
    height, width = (int(size) for size in random.integers(5, 10, 2))
    weights = lab.variable(int(random.integers(1, 5)), int(random.integers(1, 5)), channels, groups * outputs)
    channels *= groups
    shapes = [(), (channels,), (1, 1, channels), (1, 1, 1, 1), (1,)]
    a, b, c, d, e, f = (lab.random(*shapes[random.integers(len(shapes))]) + np.float32(3) for _ in range(6))
    stride, padding = int(random.integers(1, 4)), random.choice(["SAME", "VALID"])

    def network(x: Any) -> Any:
        y = e * (c - ((a * x - b) / d)) + f
        return tf.nn.relu(tf.nn.conv2d(y, weights, stride, padding))

    edited = lab.trace(network, lab.random(2, height, width, channels)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert arithmetic(edited.program) == 1


def test_the_channels_may_come_first(lab: Any) -> None:
    import tensorflow as tf

    weights, scale, shift = lab.variable(2, 2, 3, 4), lab.variable(3, 1, 1), lab.variable(1, 3, 1, 1)

    @tf.function
    def network(x: Any) -> Any:
        return tf.nn.conv2d(x * scale + shift, weights, 1, "SAME", data_format="NCHW")

    program = lab.of_function(network.get_concrete_function(tf.TensorSpec((None, 3, 5, 5))))
    edited = lab.rewrite.apply(program, [FOLD])  # this format has no kernel on every CPU: the graph alone is looked at
    (added,) = (node for node in edited.graph.node if node.name.endswith("folded_shift"))
    assert np.allclose(tf.make_ndarray(added.attr["value"].tensor), shift.numpy()[0] / scale.numpy())
    assert "Mul" not in lab.types(edited)


def test_a_fused_batch_norm_before_a_layer_with_a_bias_vanishes(lab: Any) -> None:
    import tensorflow as tf

    weights, bias, *numbers = [lab.variable(3, 3, 4, 8), lab.variable(8), *(lab.variable(4) for _ in range(4))]

    def network(x: Any) -> Any:
        y = tf.compat.v1.nn.fused_batch_norm(x, *numbers, is_training=False)[0]
        return tf.nn.bias_add(tf.nn.conv2d(y, weights, 1, "VALID"), bias)

    edited = lab.trace(network, lab.random(1, 6, 6, 4)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert edited.types["FusedBatchNormV3"] == 0
    assert edited.types["BiasAdd"] == 1


def test_one_number_for_all_pixels_passes_a_flattening(lab: Any) -> None:
    import tensorflow as tf

    weights, mean = lab.variable(24, 5), lab.random(24)
    traced = lab.trace(lambda x: tf.matmul(tf.reshape(x / 127.5 - 1, [-1, 24]) - mean, weights), lab.random(2, 4, 6))
    edited = traced.edited(FOLD)
    assert edited.difference < TOLERANCE
    assert edited.types["BiasAdd"] == arithmetic(edited.program) == 1


def test_numbers_per_channel_do_not_pass_a_flattening(lab: Any) -> None:
    import tensorflow as tf

    weights, scale = lab.variable(24, 5), lab.random(6)
    assert "not per channel" in refusal(lab, lambda x: tf.matmul(tf.reshape(x * scale, [-1, 24]), weights), (2, 4, 6))


def test_a_few_channels_are_added_along_the_width(lab: Any) -> None:
    import tensorflow as tf

    weights, norm = lab.variable(3, 3, 3, 4), normalized(lab, 3)
    traced = lab.trace(lambda x: tf.nn.conv2d(norm(x), weights, 1, "SAME"), lab.random(1, 6, 8, 3))
    edited = traced.edited(FOLD)
    (added,) = (node for node in edited.program.graph.node if node.name.endswith("folded_shift"))
    assert tf.make_ndarray(added.attr["value"].tensor).shape == (8, 3)


def test_numbers_far_from_zero_keep_their_digits(lab: Any) -> None:
    """The mean is subtracted first, as before: in a bias, it would be the difference of two large sums."""
    import tensorflow as tf

    weights, mean, deviation = lab.variable(6, 5), lab.random(6) + np.float32(5000), lab.variable(6)
    traced = lab.trace(lambda x: tf.matmul((x - mean) / deviation, weights), lab.random(4, 6) + np.float32(5000))
    edited = traced.edited(FOLD)
    assert edited.difference < TOLERANCE
    assert (edited.types["AddV2"], edited.types["BiasAdd"]) == (1, 0)


# -- with other edits ------------------------------------------------------------------------------------------------


ORDERS = [
    ("fold-affine", "fold-input-affine", "fold-padding", "freeze-variables"),
    ("fold-input-affine", "fold-affine", "freeze-variables", "fold-padding"),
    ("freeze-variables", "fold-padding", "fold-input-affine", "fold-affine"),
    ("fold-padding", "fold-input-affine", "freeze-variables", "fold-affine"),
]


@pytest.mark.parametrize("order", ORDERS)
def test_it_composes_with_the_other_folds_in_any_order(lab: Any, order: tuple[str, ...]) -> None:
    import tensorflow as tf

    weights, scale, shift, norm = lab.variable(3, 3, 3, 4), lab.variable(4), lab.variable(4), normalized(lab, 3)

    def network(x: Any) -> Any:
        padded = tf.pad(norm(x), [[0, 0], [0, 1], [0, 1], [0, 0]])
        return tf.nn.relu(tf.nn.conv2d(padded, weights, 2, "VALID") * scale + shift)

    edited = lab.trace(network, lab.random(2, 8, 8, 3)).edited(*(own_edits()[name]() for name in order))
    assert edited.difference < TOLERANCE
    assert arithmetic(edited.program) == 2  # what is left of the shift in front, and the bias
    assert edited.types["Pad"] == 0


@pytest.mark.parametrize("first", ["fold-affine", "fold-input-affine"])
def test_a_bias_takes_in_the_shifts_of_both_sides(lab: Any, first: str) -> None:
    import tensorflow as tf

    weights, bias, norm = lab.variable(6, 5), lab.variable(5), normalized(lab, 6)
    scale, shift = lab.variable(5), lab.variable(5)

    def network(x: Any) -> Any:
        return tf.nn.bias_add(tf.matmul(norm(x), weights), bias) * scale + shift

    second = ({"fold-affine", "fold-input-affine"} - {first}).pop()
    edited = lab.trace(network, lab.random(3, 6)).edited(own_edits()[first](), own_edits()[second]())
    assert edited.difference < TOLERANCE
    assert edited.types["BiasAdd"] == arithmetic(edited.program) == 1


def test_layers_in_a_row_each_keep_what_is_theirs(lab: Any) -> None:
    import tensorflow as tf

    one, two, bias, norm = lab.variable(6, 5), lab.variable(5, 4), lab.variable(5), normalized(lab, 6)

    def network(x: Any) -> Any:
        return tf.matmul(tf.nn.bias_add(tf.matmul(norm(x), one), bias), two)

    edited = lab.trace(network, lab.random(3, 6)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert edited.types["BiasAdd"] == arithmetic(edited.program) == 1


def test_kernels_become_constants_and_matrices_stay_variables(lab: Any) -> None:
    import tensorflow as tf

    conv, dense = lab.variable(3, 3, 3, 4), lab.variable(6, 5)
    image = lab.trace(lambda x: tf.nn.conv2d(x / 255, conv, 1, "SAME"), lab.random(1, 5, 5, 3)).edited(FOLD)
    rows = lab.trace(lambda x: tf.matmul(x / 255, dense), lab.random(2, 6)).edited(FOLD)
    assert [binding.kind for binding in image.program.bindings.values() if binding.kind == "weight"] == []
    assert [binding.value.shape for binding in rows.program.bindings.values() if binding.kind == "weight"] == [(6, 5)]


# -- where it would be wrong, or no gain -----------------------------------------------------------------------------


def refusal(lab: Any, function: Any, shape: tuple[int, ...], *, layer: str | None = None) -> str:
    traced = lab.trace(function, lab.random(*shape))
    found = [node.name for node in traced.program.graph.node if node.op in ("Conv2D", "MatMul")]
    with pytest.raises(RewriteError):
        traced.edited(FOLD)
    with pytest.raises(RewriteError) as caught:
        traced.edited(replace(FOLD, where=Ops(traced=(layer or found[-1],))))
    return str(caught.value)


def test_what_something_else_reads_stays(lab: Any) -> None:
    import tensorflow as tf

    weights = lab.variable(4, 5)

    def read_twice(x: Any) -> Any:
        y = tf.divide(x, 255, name="scaled")
        return tf.matmul(y, weights), tf.reduce_sum(y)

    def fetched(x: Any) -> Any:
        y = tf.divide(x, 255, name="scaled")
        return tf.matmul(y, weights), y

    def two_layers(x: Any) -> Any:
        y = x / 255
        return tf.matmul(y, weights), tf.matmul(y, weights)

    assert "2 ops read" in refusal(lab, read_twice, (3, 4))
    assert "2 ops read" in refusal(lab, fetched, (3, 4)) or "returns" in refusal(lab, fetched, (3, 4))
    assert "2 ops read" in refusal(lab, two_layers, (3, 4))


def test_a_lone_shift_before_zeros_stays(lab: Any) -> None:
    import tensorflow as tf

    weights, mean = lab.variable(3, 3, 3, 4), lab.random(3)
    assert "single op" in refusal(lab, lambda x: tf.nn.conv2d(x - mean, weights, 1, "SAME"), (1, 5, 5, 3))


def test_zeros_between_shift_and_layer_end_the_chain(lab: Any) -> None:
    import tensorflow as tf

    weights, mean = lab.variable(3, 3, 3, 4), lab.random(3)

    def network(x: Any) -> Any:
        padded = tf.pad(x * 2.0, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.conv2d((padded - mean) / 3, weights, 1, "VALID")

    edited = lab.trace(network, lab.random(1, 5, 5, 3)).edited(FOLD)
    assert edited.difference < TOLERANCE
    assert edited.types["Mul"] == edited.types["BiasAdd"] == 1  # the scale before the zeros is not seen through them


def test_factors_that_change_are_zero_or_make_the_tensor_larger_stay(lab: Any) -> None:
    import tensorflow as tf

    weights, zero, wide = lab.variable(4, 5), np.array([1, 0, 2, 3], np.float32), lab.random(4)
    assert "computed in the call" in refusal(lab, lambda x: tf.matmul(x * tf.reduce_max(x), weights), (3, 4))
    assert "not per channel" in refusal(lab, lambda x: tf.matmul(x * zero, weights), (3, 4))
    assert "not per channel" in refusal(lab, lambda x: tf.matmul(x * wide, weights), (3, 1))
    assert "not per channel" in refusal(lab, lambda x: tf.matmul(2 / x, weights), (3, 4))


def test_what_is_behind_a_layer_is_left_to_it(lab: Any) -> None:
    import tensorflow as tf

    one, two, scale = lab.variable(6, 5), lab.variable(5, 4), lab.variable(5)
    reason = refusal(lab, lambda x: tf.matmul(tf.matmul(x, one) * scale, two), (3, 6))
    assert "a layer, whose own weights take" in reason


def test_weights_that_would_leave_the_range_of_their_type_are_refused(lab: Any) -> None:
    import tensorflow as tf

    weights = lab.variable(4, 5, dtype="float16")
    reason = refusal(lab, lambda x: tf.matmul(tf.cast(x, tf.float16) * 1e-7, weights), (3, 4))
    assert "too small or too large for float16" in reason


def test_weights_that_change_and_inputs_that_are_turned_over_are_refused(lab: Any) -> None:
    import tensorflow as tf

    weights = lab.variable(4, 5)
    assert "computed in the call" in refusal(lab, lambda x: tf.matmul(x / 255, weights * tf.reduce_max(x)), (3, 4))
    assert "turns its input" in refusal(lab, lambda x: tf.matmul(x / 255, weights, transpose_a=True), (4, 3))
