"""Edits that bring bias and activation next to a matrix product: the numbers stay, and Grappler fuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edit_data import from_data
from graphlens.ir.edits import FlattenProduct, FoldAffine, Ops, SinkReshape

pytestmark = pytest.mark.tf


def dense(lab: Any, tf: Any, activation: Callable[[Any], Any], length: int = 8) -> Callable[[Any], Any]:
    """A dense layer of a tensor of rank 3, as Keras writes it."""
    weights, bias = lab.variable(16, 8), lab.variable(8)

    def layer(x: Any) -> Any:
        rows = tf.matmul(tf.reshape(x, [-1, 16]), weights, name="product")
        back = tf.reshape(rows, [-1, length, 8], name="back")
        return activation(tf.nn.bias_add(back, bias, name="bias"))

    return layer


def refusal(traced: Any, **edit: Any) -> str:
    with pytest.raises(RewriteError) as caught:
        traced.edited(from_data(edit))
    return str(caught.value)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_bias_and_activation_come_before_the_reshape_and_are_fused(lab: Any, tf: Any, activation: str) -> None:
    traced = lab.trace(dense(lab, tf, getattr(tf.nn, activation)), lab.random(3, 8, 16))
    edited = traced.edited(SinkReshape(Ops(traced=("back",))))
    assert edited.difference < 1e-6
    assert "back" not in edited.names
    ran = lab.ran_as(edited.built, traced.examples)
    assert any("FusedMatMul" in op for op in ran)
    assert not any("BiasAdd" in op for op in ran)


def test_what_reads_a_result_in_between_reads_it_reshaped(lab: Any, tf: Any) -> None:
    layer = dense(lab, tf, tf.nn.relu)
    traced = lab.trace(lambda x: (tf.reduce_sum(layer(x), [0, 1]), layer(x) + x[:, :, :8]), lab.random(3, 8, 16))
    edited = traced.edited(SinkReshape())
    assert edited.difference < 1e-6
    assert edited.types["Reshape"] == lab.types(traced.program)["Reshape"]


def test_a_residual_sum_stays_behind_the_reshape(lab: Any, tf: Any) -> None:
    layer = dense(lab, tf, lambda y: y)
    traced = lab.trace(lambda x: tf.add(layer(x), x[:, :, :8], name="sum"), lab.random(3, 8, 16))
    edited = traced.edited(SinkReshape(Ops(traced=("back",))))
    assert edited.difference < 1e-6
    (sum_,) = [node for node in edited.program.graph.node if node.name == "sum"]
    assert "bias/reshaped:0" in sum_.input


def test_a_returned_result_keeps_its_shape(lab: Any, tf: Any) -> None:
    traced = lab.trace(dense(lab, tf, lambda y: y), lab.random(3, 8, 16))
    assert traced.edited(SinkReshape()).difference < 1e-6


def test_the_edits_before_and_behind_it_fit(lab: Any, tf: Any) -> None:
    traced = lab.trace(dense(lab, tf, lambda y: tf.nn.relu(y * 3.0 + 1.0)), lab.random(3, 8, 16))
    for edits in (
        [SinkReshape(), FoldAffine()],
        [FoldAffine(), SinkReshape()],
    ):
        edited = traced.edited(*edits)
        assert edited.difference < 1e-6
        assert edited.types["Mul"] == 0


def test_a_reshape_is_not_sunk_where_the_last_axis_changes_or_others_read_it(lab: Any, tf: Any) -> None:
    weights, factor = lab.variable(16, 8), lab.variable(4)

    def split_heads(x: Any) -> Any:
        return tf.reshape(tf.matmul(x, weights), [-1, 2, 4], name="back") * factor

    def read_twice(x: Any) -> Any:
        back = tf.reshape(tf.matmul(x, weights), [-1, 2, 8], name="back")
        return tf.nn.relu(back), tf.reduce_sum(back, 1)

    def along_rows(x: Any) -> Any:
        return tf.reshape(tf.matmul(x, weights), [-1, 4, 8], name="back") * tf.reshape(factor, [4, 1])

    for function in (split_heads, read_twice, along_rows):
        assert "'back'" in refusal(lab.trace(function, lab.random(4, 16)), edit="sink-reshape", ops=["back"])


@pytest.mark.parametrize("adjoint", [False, True])
def test_rows_of_all_batches_are_multiplied_at_once(lab: Any, tf: Any, adjoint: bool) -> None:
    weights, bias = lab.variable(*((8, 16) if adjoint else (16, 8))), lab.variable(8)

    def layer(x: Any) -> Any:
        product = tf.raw_ops.BatchMatMulV2(x=x, y=weights, adj_y=adjoint, name="product")
        return tf.nn.relu(tf.nn.bias_add(product, bias))

    traced = lab.trace(layer, lab.random(3, 5, 16))
    edited = traced.edited(FlattenProduct(Ops(traced=("product",))))
    assert edited.difference < 1e-6
    assert (edited.types["BatchMatMulV2"], edited.types["MatMul"]) == (0, 1)
    assert any("FusedMatMul" in op for op in lab.ran_as(edited.built, traced.examples))


def test_open_batch_and_length_are_asked_for_in_the_call(lab: Any, tf: Any) -> None:
    weights, bias = lab.variable(16, 8), lab.variable(8)

    def layer(x: Any) -> Any:
        product = tf.raw_ops.BatchMatMulV2(x=x, y=weights, name="product")
        return tf.nn.relu(tf.nn.bias_add(product, bias))

    concrete = tf.function(layer).get_concrete_function(tf.TensorSpec([None, None, 16]))
    traced = lab.Traced(concrete, [tf.constant(lab.random(3, 5, 16))], lab.of_function(concrete))
    assert traced.edited(FlattenProduct()).difference < 1e-6


def test_products_of_two_batches_and_of_unread_biases_stay(lab: Any, tf: Any) -> None:
    weights = lab.variable(16, 8)
    pairwise = lab.trace(lambda x, y: tf.nn.relu(tf.matmul(x, y, name="p")), lab.random(2, 3, 4), lab.random(2, 4, 3))
    assert "one matrix" in refusal(pairwise, edit="flatten-product", ops=["p"])
    alone = lab.trace(lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=weights, name="p"), lab.random(2, 3, 16))
    assert "a bias" in refusal(alone, edit="flatten-product", ops=["p"])
