"""No edit brings about a kernel that TensorFlow does not have; with the kernels of oneDNN, and without.

Everything here runs twice: which kernels there are is settled when TensorFlow is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edit_data import own_edits
from graphlens.ir.edits import FreezeVariables

pytestmark = pytest.mark.tf


def normalized(lab: Any, tf: Any, inputs_per_group: int) -> Any:
    """A convolution of four channels and a normalization that trains."""
    weights, *numbers = lab.variable(3, 3, inputs_per_group, 4), *(lab.variable(4) for _ in range(4))
    mean, variance, gamma, beta = numbers

    def function(x: Any) -> Any:
        layer = tf.nn.conv2d(x, weights, 1, "SAME")
        y, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(layer, gamma, beta, is_training=True)
        mean.assign_sub((mean - batch_mean) * 0.01)
        variance.assign_sub((variance - batch_variance) * 0.01)
        return y

    return lab.trace(function, lab.random(2, 4, 4, 4))


def checked(lab: Any, tf: Any, inputs_per_group: int) -> Any:
    """A convolution of four channels, and a check between it and its bias."""
    weights, bias = lab.variable(3, 3, inputs_per_group, 4), lab.variable(4)

    def function(x: Any) -> Any:
        layer = tf.debugging.check_numerics(tf.nn.conv2d(x, weights, 1, "SAME"), "not a number")
        return tf.nn.relu(tf.nn.bias_add(layer, bias))

    return lab.trace(function, lab.random(2, 4, 4, 4))


BLOCKS: dict[str, Callable[[Any, Any, int], Any]] = {"use-moving-statistics": normalized, "remove-debug-ops": checked}


def call_edited(lab: Any, traced: Any, edit: str) -> None:
    """Edit and call, whatever kernels there are."""
    from graphlens.tf.rewrite.draft import Draft
    from graphlens.tf.rewrite.registry import rewrites

    draft = Draft(traced.program)
    rewrites()[edit](draft, own_edits()[edit]())
    lab.rewrite.build(draft.finished()).call(traced.examples)


@pytest.mark.parametrize("edit", BLOCKS)
def test_an_edit_is_refused_exactly_where_every_call_would_fail(lab: Any, tf: Any, edit: str) -> None:
    traced = BLOCKS[edit](lab, tf, 2)
    if lab.private.onednn_enabled():
        call_edited(lab, traced, edit)
        lab.rewrite.apply(traced.program, [own_edits()[edit]()])
        return
    with pytest.raises(tf.errors.UnimplementedError, match="does not support grouped convolutions"):
        call_edited(lab, traced, edit)
    with pytest.raises(RewriteError, match="has no kernel for that without oneDNN"):
        lab.rewrite.apply(traced.program, [own_edits()[edit]()])


@pytest.mark.parametrize("edit", BLOCKS)
def test_an_ordinary_convolution_has_its_kernel(lab: Any, tf: Any, edit: str) -> None:
    traced = BLOCKS[edit](lab, tf, 4)
    call_edited(lab, traced, edit)
    lab.rewrite.apply(traced.program, [own_edits()[edit]()])


def test_what_had_no_kernel_before_may_be_edited(lab: Any, tf: Any) -> None:
    """The program may run elsewhere, and this edit is not at fault."""
    weights, bias = lab.variable(3, 3, 2, 4), lab.variable(4)
    traced = lab.trace(
        lambda x: tf.identity(tf.nn.bias_add(tf.nn.conv2d(tf.identity(x), weights, 1, "SAME"), bias)),
        lab.random(2, 4, 4, 4),
    )
    assert not lab.types(lab.rewrite.apply(traced.program, [FreezeVariables()]))["ReadVariableOp"]


def test_all_of_this_holds_with_the_other_kernels(lab: Any) -> None:
    lab.assert_holds_with_the_other_kernels(__file__)
