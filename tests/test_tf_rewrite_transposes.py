"""Transposes go although there is something between them, and the outputs keep every bit.

The oracle is TensorFlow, which runs both programs on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edits import Ops, RemoveTransposes
from graphlens.ir.permuting import Asked, moved

CHANNELS = 6
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@pytest.fixture(scope="module")
def lab() -> Any:
    import rewrite_lab

    return rewrite_lab


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


def conv(tf: Any, x: Any, seed: int) -> Any:
    """A convolution of a tensor with channels first, as an exporter writes it for a machine that has them last."""
    weights = np.random.default_rng(seed).normal(0, 0.3, (3, 3, x.shape[1], CHANNELS)).astype("float32")
    y = tf.nn.conv2d(tf.transpose(x, TO_LAST), weights, 1, "SAME")
    return tf.transpose(y, TO_FIRST)


def between(tf: Any, lab: Any) -> dict[str, Callable[[Any], Any]]:
    """What exporters put between two convolutions, of a tensor with channels first."""
    shift = lab.random(1, CHANNELS, 1, 1)
    slope = np.abs(shift)
    variable = lab.variable(1, CHANNELS, 1, 1)
    return {
        "a shift per channel": lambda y: y + shift,
        "a scale per channel": lambda y: y * shift,
        "a scale per channel without the batch": lambda y: y * shift[0],
        "a constant of the whole image": lambda y: y + tf.constant(lab.random(1, CHANNELS, 8, 7)),
        "a variable per channel": lambda y: y + variable,
        "a variable of three axes": lambda y: y * variable[0],
        "a leaky relu with a slope per channel": lambda y: tf.nn.relu(y) - slope * tf.nn.relu(-y),
        "a tensor on two ways": lambda y: y + tf.nn.relu(y),
        "a gate": lambda y: y * tf.sigmoid(y + shift),
        "a selection": lambda y: tf.where(y > 0.0, y, y * shift),
        "a bias with channels first": lambda y: tf.nn.bias_add(y, shift.reshape(-1), data_format="NCHW"),
        "zeros around the image": lambda y: tf.pad(y, [[0, 0], [0, 0], [1, 2], [3, 0]]),
        "a mirrored border": lambda y: tf.pad(y, [[0, 0], [0, 0], [1, 2], [3, 0]], "REFLECT"),
        "channels concatenated with others": lambda y: tf.concat([y, tf.nn.relu(y)], 1),
        "a concatenation of slices": lambda y: tf.concat([y[:, 3:], y[:, :3]], 1),
        "every second row": lambda y: y[:, :, ::2, 1:],
        "a slice behind an ellipsis": lambda y: y[..., 1:-1],
        "a slice by begin and size": lambda y: tf.slice(y, [0, 1, 0, 2], [-1, 4, -1, 3]),
        "a split along the channels": lambda y: tf.add_n(tf.split(y, 3, 1)),
        "a split into unequal parts": lambda y: tf.concat(tf.split(y, [1, 5], 1)[::-1], 1),
        "a cumulative sum": lambda y: tf.cumsum(y, 1),
        "a softmax along the channels": lambda y: tf.nn.softmax(y, 1),
        "a maximum that keeps its axes": lambda y: y - tf.reduce_max(y, [2, 3], keepdims=True),
        "channels in reverse": lambda y: tf.reverse(y, [1]),
        "channels gathered": lambda y: tf.gather(y, [5, 0, 3, 3], axis=1),
        "tiles": lambda y: tf.tile(y, [1, 2, 1, 3]),
        "a cast": lambda y: tf.cast(tf.cast(y, tf.float64) * 2.0, tf.float32),
        "images joined and taken apart": lambda y: tf.reshape(
            tf.reshape(y, [-1, CHANNELS, 56]) * 2.0, [-1, CHANNELS, 8, 7]
        ),
        "an axis of one that comes and goes": lambda y: tf.squeeze(tf.nn.relu(tf.expand_dims(y, 2)), [2]),
        "a product with another convolution": lambda y: y * conv(tf, y, 5),
    }


KINDS = """a shift per channel|a scale per channel|a scale per channel without the batch|a constant of the whole image|
a variable per channel|a variable of three axes|a leaky relu with a slope per channel|a tensor on two ways|a gate|
a selection|a bias with channels first|zeros around the image|a mirrored border|channels concatenated with others|
a concatenation of slices|every second row|a slice behind an ellipsis|a slice by begin and size|
a split along the channels|a split into unequal parts|a cumulative sum|a softmax along the channels|
a maximum that keeps its axes|channels in reverse|channels gathered|tiles|a cast|images joined and taken apart|
an axis of one that comes and goes|a product with another convolution""".replace("\n", "").split("|")


def test_every_kind_is_tried(lab: Any, tf: Any) -> None:
    assert list(between(tf, lab)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_no_transpose_is_left_between_two_convolutions(lab: Any, tf: Any, kind: str) -> None:
    inner = between(tf, lab)[kind]
    traced = lab.trace(lambda x: conv(tf, inner(conv(tf, x, 1)), 2), lab.random(2, CHANNELS, 8, 7))
    edited = traced.edited(RemoveTransposes())
    # Next to the convolution, Grappler multiplies its weights by the scale, which rounds in another place.
    assert edited.difference <= (1e-6 if "scale" in kind else 0)
    assert edited.types["Transpose"] == 2  # where the images come in and where they go out


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "left out"])
def test_sums_along_an_axis_are_of_the_same_numbers(lab: Any, tf: Any, keeps: bool) -> None:
    def gated(x: Any) -> Any:
        y = conv(tf, x, 1)
        mean = tf.reduce_mean(y, [2, 3], keepdims=keeps)
        return conv(tf, y * tf.sigmoid(mean if keeps else tf.reshape(mean, [-1, CHANNELS, 1, 1])), 2)

    edited = lab.trace(gated, lab.random(2, CHANNELS, 8, 7)).edited(RemoveTransposes())
    assert edited.difference < 1e-6
    assert edited.types["Transpose"] == 2


# -- residual networks ------------------------------------------------------------------------------------------------


def residual(tf: Any, blocks: int) -> Callable[[Any], Any]:
    """A residual network as onnx2tf writes it: sums, mean and classes with channels first, convolutions with last."""

    def network(x: Any) -> Any:
        y = conv(tf, tf.transpose(x, TO_FIRST), 0)
        for block in range(blocks):
            y = tf.nn.relu(y + conv(tf, tf.nn.relu(conv(tf, y, 2 * block + 1)), 2 * block + 2))
        flat = tf.reshape(tf.transpose(tf.reduce_mean(y, [2, 3], keepdims=True), TO_LAST), [-1, CHANNELS])
        return tf.matmul(flat, tf.ones([CHANNELS, 3]) / 7)

    return network


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_residual_network_with_channels_first_in_part_has_no_transpose_left(lab: Any, tf: Any, blocks: int) -> None:
    traced = lab.trace(residual(tf, blocks), lab.random(2, 8, 7, CHANNELS))
    assert lab.types(traced.program)["Transpose"] == 2 * (2 * blocks + 1) + 2
    edited = traced.edited(RemoveTransposes())
    assert edited.difference < 1e-6
    assert edited.types["Transpose"] == 0


def test_a_sum_of_two_transposed_tensors_is_transposed_once_less(lab: Any, tf: Any) -> None:
    """Two come in and one goes out; without them nothing is transposed."""

    def sum_of_two(x: Any, y: Any) -> Any:
        both = tf.add(tf.transpose(x, TO_FIRST, name="one"), tf.transpose(y, TO_FIRST, name="other"), name="sum")
        return tf.transpose(both, TO_LAST, name="back")

    traced = lab.trace(sum_of_two, lab.random(2, 4, 5, 3), lab.random(2, 4, 5, 3))
    edited = traced.edited(RemoveTransposes(Ops(("one", "other", "back"))))
    assert (edited.difference, edited.types["Transpose"]) == (0, 0)


def test_a_reshape_between_transposes_that_is_one_reshape(lab: Any, tf: Any) -> None:
    def rows(x: Any) -> Any:
        first = tf.reshape(tf.transpose(x, TO_FIRST), [-1, 3, 20])
        return tf.transpose(first, [0, 2, 1])

    edited = lab.trace(rows, lab.random(2, 4, 5, 3)).edited(RemoveTransposes())
    assert (edited.difference, edited.types["Transpose"], edited.types["Reshape"]) == (0, 0, 1)


def test_a_reshape_is_followed_by_its_numbers_where_an_annotation_knows_less() -> None:
    """Rows of sixteen are no rows of any length: both shapes begin with axes that the annotation leaves open."""
    numbers, swapped = (-1, 16, 8), (1, 0, 2)
    reshape = Asked("Reshape", {}.get, [(None, None, 8), (3,)], [(None, None, 8)], lambda _: numbers)
    assert moved(reshape, swapped) is None


# -- what has to be transposed ----------------------------------------------------------------------------------------


def test_a_tensor_that_is_read_in_both_orders_is_transposed_once(lab: Any, tf: Any) -> None:
    def used_twice(x: Any) -> Any:
        y = tf.nn.relu(tf.transpose(x, [0, 2, 1], name="there"))
        return tf.transpose(y, [0, 2, 1], name="back"), tf.linalg.matvec(y, tf.ones(4))

    edited = lab.trace(used_twice, lab.random(2, 4, 5)).edited(RemoveTransposes(Ops(("there", "back"))))
    assert (edited.difference, edited.types["Transpose"]) == (0, 1)


def test_two_transposes_in_turn_that_do_not_undo_each_other_become_one(lab: Any, tf: Any) -> None:
    def twice(x: Any) -> Any:
        return tf.exp(tf.transpose(tf.transpose(x, TO_LAST, name="there"), TO_LAST, name="back"))

    edited = lab.trace(twice, lab.random(2, 4, 5, 3)).edited(RemoveTransposes(Ops(("there",))))
    assert (edited.difference, edited.types["Transpose"]) == (0, 1)


def test_a_shape_that_is_asked_for_is_in_the_order_that_is_written(lab: Any, tf: Any) -> None:
    def with_shape(x: Any) -> Any:
        y = tf.nn.relu(tf.transpose(x, TO_FIRST))
        return tf.transpose(y, TO_LAST), tf.shape(y), tf.size(y)

    traced = lab.trace(with_shape, lab.random(2, 4, 5, 3))
    edited = traced.edited(RemoveTransposes())
    assert (edited.difference, edited.types["Transpose"]) == (0, 0)
    assert edited.built.call(traced.examples)[1].numpy().tolist() == [2, 3, 4, 5]


def test_a_shape_that_is_asked_of_a_transpose_is_in_the_order_that_it_gave(lab: Any, tf: Any) -> None:
    def with_shape(x: Any) -> Any:
        there = tf.transpose(x, TO_FIRST)
        return tf.transpose(tf.nn.relu(there), TO_LAST), tf.shape(there), tf.shape(there, tf.int64)[1], tf.rank(there)

    traced = lab.trace(with_shape, lab.random(2, 4, 5, 3))
    edited = traced.edited(RemoveTransposes())
    assert (edited.difference, edited.types["Transpose"]) == (0, 0)
    assert edited.built.call(traced.examples)[1].numpy().tolist() == [2, 3, 4, 5]


def test_a_small_tensor_is_transposed_instead_of_a_large_one(lab: Any, tf: Any) -> None:
    """What is not constant and not transposed itself is brought into the order of the others, if it is smaller."""

    def mixed(x: Any, scale: Any) -> Any:
        return tf.transpose(tf.transpose(x, TO_FIRST, name="there") * scale, TO_LAST, name="back")

    small = lab.trace(mixed, lab.random(2, 4, 5, 3), lab.random(1, 3, 4, 5))
    edited = small.edited(RemoveTransposes(Ops(("there", "back"))))
    assert (edited.difference, edited.types["Transpose"]) == (0, 1)


@pytest.mark.parametrize(
    "fixed",
    {
        "rows that are torn apart": lambda tf, y: tf.reshape(tf.reshape(y, [-1, 60]) * 2.0, [-1, 3, 4, 5]),
        "a softmax along the last axis": lambda tf, y: tf.nn.softmax(y),
        "a product along the last axis": lambda tf, y: tf.linalg.matmul(y, tf.eye(5) * 2.0),
        "axes that are computed": lambda tf, y: tf.reverse(y, [tf.cast(tf.reduce_sum(y), tf.int32) % 2]),
    }.values(),
)
def test_an_op_whose_axes_have_a_meaning_keeps_the_transposes(lab: Any, tf: Any, fixed: Any) -> None:
    def function(x: Any) -> Any:
        return tf.transpose(fixed(tf, tf.transpose(x, TO_FIRST, name="there")), TO_LAST, name="back")

    with pytest.raises(RewriteError, match=r"as much would have to be transposed elsewhere.*axes of .* are fixed"):
        lab.trace(function, lab.random(2, 4, 5, 3)).edited(RemoveTransposes(Ops(("there", "back"))))


# -- any program ------------------------------------------------------------------------------------------------------


def drawn(tf: Any, random: np.random.Generator) -> Callable[[Any], Any]:
    """A program of transposes and ops on tensors of three different lengths, which gives all that nobody reads."""
    choices = random.integers(0, 10**6, 40).tolist()

    def program(x: Any) -> Any:
        known, unread = [tf.ensure_shape(x, [3, 4, 5])], {0}
        for number in choices:
            at = number % len(known) if number % 3 else len(known) - 1
            value = known[at]
            made = step(tf, value, known, number // 7)
            unread -= {at}
            unread.add(len(known))
            known.append(made)
        return [known[at] for at in sorted(unread)]

    return program


def step(tf: Any, value: Any, known: list[Any], number: int) -> Any:
    """One op of a drawn program."""
    sizes = value.shape.as_list()
    axis, kind = number % 3, number // 3 % 9
    alike = [other for other in known if other.shape.as_list() == sizes and other is not value]
    steps = {
        0: lambda: tf.abs(value) - 0.5,
        1: lambda: value + tf.constant(np.arange(sizes[axis]).reshape([-1] + [1] * (2 - axis)), value.dtype),
        2: lambda: tf.maximum(value, alike[number % len(alike)]) if alike else -value,
        3: lambda: tf.reverse(value, [axis]),
        4: lambda: value - tf.reduce_max(value, axis, keepdims=True),
        5: lambda: tf.roll(value, 1, axis),  # which is left as it is
    }
    order = [[0, 2, 1], [2, 0, 1], [1, 2, 0], [2, 1, 0]][number % 4]
    return steps.get(kind, lambda: tf.transpose(value, order))()


@pytest.mark.parametrize("seed", range(7, 19))
def test_a_drawn_program_gives_the_same_and_transposes_less(lab: Any, tf: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Eighths are added exactly: where two sums come to stand beside each other, Grappler makes one of them.
    traced = lab.trace(drawn(tf, random), random.integers(-50, 50, (3, 4, 5)).astype("float32") / 8)
    edited = traced.edited(RemoveTransposes())
    assert edited.difference == 0
    assert edited.types["Transpose"] < lab.types(traced.program)["Transpose"]
