"""Grappler sorts the inputs of a product by name: hard swishes get names with which it recognizes them."""

from __future__ import annotations

from typing import Any

import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edits import FoldAffine, OrderNames

pytestmark = pytest.mark.tf


def block(lab: Any, tf: Any, layer: str, activation: str) -> Any:
    """A convolution and a hard swish whose ops have these names."""
    weights, bias = lab.variable(3, 3, 4, 8), lab.variable(8)

    def function(x: Any) -> Any:
        y = tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), bias, name=layer)
        return y * tf.divide(tf.nn.relu6(y + 3.0), 6.0, name=activation)

    return lab.trace(function, lab.random(2, 6, 6, 4))


def is_one_kernel(lab: Any, edited: Any, traced: Any) -> bool:
    ran = lab.ran_as(edited.built, traced.examples)
    return not any(op.endswith(("Mul", "Relu6", "AddV2")) for op in ran)


def test_the_factor_is_named_behind_its_argument(lab: Any, tf: Any) -> None:
    from graphlens.tf import private

    traced = block(lab, tf, "conv", "activation")
    edited = traced.edited(OrderNames())
    assert edited.difference < 1e-6
    assert "activation" not in edited.names
    assert "conv_hard_sigmoid" in edited.names
    if private.onednn_enabled():
        assert not is_one_kernel(lab, traced.edited(), traced)
        assert is_one_kernel(lab, edited, traced)


def test_an_order_that_is_recognized_stays(lab: Any, tf: Any) -> None:
    with pytest.raises(RewriteError, match="in an order"):
        block(lab, tf, "a_conv", "b_activation").edited(OrderNames())


def test_folding_a_normalization_orders_the_names_behind_it(lab: Any, tf: Any) -> None:
    """As in MobileNetV3, where the normalization is ``conv_bn`` and what follows it ``activation``."""
    weights, scale, shift = lab.variable(3, 3, 4, 8), lab.variable(8), lab.variable(8)

    def function(x: Any) -> Any:
        y = tf.add(tf.nn.conv2d(x, weights, 1, "SAME") * scale, shift, name="conv_bn")
        return y * tf.divide(tf.nn.relu6(y + 3.0), 6.0, name="activation")

    edited = lab.trace(function, lab.random(2, 6, 6, 4)).edited(FoldAffine())
    assert edited.difference < 1e-6
    assert "conv_bn_hard_sigmoid" in edited.names


def test_a_factor_that_the_function_returns_keeps_its_name(lab: Any, tf: Any) -> None:
    def function(x: Any) -> Any:
        y = tf.exp(x, name="z")
        factor = tf.divide(tf.nn.relu6(y + 3.0), 6.0, name="a")
        return y * factor, tf.raw_ops.Identity(input=factor)

    traced = lab.trace(function, lab.random(2, 4))
    assert traced.edited(OrderNames()).difference < 1e-6


def test_products_of_other_things_stay(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.exp(x, name="z") * tf.nn.relu6(x + 3.0, name="a"), lab.random(2, 4))
    with pytest.raises(RewriteError, match="no hard swish"):
        traced.edited(OrderNames())
