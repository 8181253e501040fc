"""Applying twice the edits to twice the graph is at most twice the work, by the lines that are executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from line_counts import lines_of, what_grows_faster

from graphlens.ir.edits import Edit, FoldAffine, FoldConstant, Ops, RemoveCasts, RemoveIdentities, ShareComputation

pytestmark = pytest.mark.tf


def fold_affine(layer: str) -> Edit:
    return FoldAffine(where=Ops((f"{layer}/product",)))


def fold_constant(layer: str) -> Edit:
    return FoldConstant(where=Ops((f"{layer}/sum",)))


def remove_identities(layer: str) -> Edit:
    return RemoveIdentities(where=Ops((f"{layer}/once",)))


def remove_casts(layer: str) -> Edit:
    return RemoveCasts(where=Ops((f"{layer}/wide", f"{layer}/narrow")))


def share_computation(layer: str) -> Edit:
    return ShareComputation(where=Ops((f"{layer}/first", f"{layer}/second")))


EDITS = (fold_affine, fold_constant, remove_identities, remove_casts, share_computation)


def network(names: Sequence[str]) -> Any:
    """A stack of layers, each with something to do for every edit; variables are written in the end."""
    import tensorflow as tf

    weights, offset = tf.Variable(tf.eye(4)), tf.Variable(tf.ones(4))
    counts = [tf.Variable(0.0) for _ in names]

    @tf.function
    def run(x: Any) -> Any:
        for name, count in zip(names, counts, strict=True):
            with tf.name_scope(name):
                factor = tf.add(offset, 1.0, name="sum")
                x = tf.add(tf.multiply(tf.matmul(x, weights, name="product"), factor), offset)
                x = tf.multiply(x, tf.constant(1.0), name="once")
                x = tf.cast(tf.cast(x, tf.float64, name="wide"), tf.float32, name="narrow")
                x = tf.add(tf.tanh(x, name="first"), tf.tanh(x, name="second"))
            count.assign_add(tf.reduce_sum(x))
        return x

    return run, tf.TensorSpec((2, 4), tf.float32)


@pytest.mark.parametrize("edit", EDITS, ids=[edit.__name__ for edit in EDITS])
def test_an_edit_of_each_layer_of_twice_as_many_is_at_most_twice_the_work(edit: Callable[[str], Edit]) -> None:
    from graphlens.tf.rewrite.program import of_function
    from graphlens.tf.rewrite.registry import apply

    def edited(count: int) -> Callable[[], Any]:
        names = [f"layer{number}" for number in range(count)]
        run, spec = network(names)
        program = replace(of_function(run.get_concrete_function(spec)), owner=run)  # which holds the variables
        return lambda: apply(program, [edit(name) for name in names])

    edited(2)()  # what is imported and looked up once is no growth
    assert not what_grows_faster(lines_of(edited(12)), lines_of(edited(24)))
