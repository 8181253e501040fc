"""Live objects in the user's own process: `graphlens.analyze(function, inputs=...)`."""

from __future__ import annotations

import os
from typing import Any

import pytest

import graphlens
from graphlens.errors import ExecutionError, GraphLensError, TargetError, UsageError
from graphlens.ir.ops import runtime_type

pytestmark = pytest.mark.tf

STEPS = 8


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


@pytest.fixture
def dense(tf: Any) -> Any:
    """A function of cheap ops, which a warm profiler would no longer show."""
    weights = tf.Variable(tf.random.stateless_normal((64, 64), (1, 2)), name="weights")

    @tf.function
    def step(x: Any) -> Any:
        hidden = tf.nn.relu(tf.matmul(x, weights, name="product"), name="hidden")
        return tf.reduce_sum(tf.exp(hidden * 0.01 + 1.0), axis=-1)

    return step


def check(analysis: graphlens.Analysis) -> dict[str, str]:
    """What holds for every live analysis; returns the executed ops by name, without the marks of oneDNN."""
    assert analysis.step is not None
    assert analysis.step.n == STEPS
    assert analysis.quality.join_rate is not None
    assert analysis.quality.join_rate >= 0.97
    assert sum(row.ns for row in analysis.ledger) == analysis.step.median_ns
    assert analysis.document.target.kind == "callable"
    return {name: runtime_type(op) for name, op in analysis.to_networkx("executed").nodes(data="op")}


def test_a_function(tf: Any, dense: Any) -> None:
    analysis = graphlens.analyze(dense, inputs=(tf.ones((8, 64)),), steps=STEPS)
    assert {"MatMul", "Exp"} <= {op.removeprefix("_Fused") for op in check(analysis).values()}
    assert analysis.quality.coverage is not None
    assert analysis.quality.coverage >= 0.95


def test_a_function_that_is_warm(tf: Any, dense: Any) -> None:
    """After some 90 calls TensorFlow no longer reports cheap ops; the recorder makes it forget."""
    for _ in range(200):
        dense(tf.ones((8, 64)))
    traces = dense.experimental_get_tracing_count()
    analysis = graphlens.analyze(dense, inputs=(tf.ones((8, 64)),), steps=STEPS)
    check(analysis)
    assert analysis.quality.coverage is not None
    assert analysis.quality.coverage >= 0.95
    assert dense.experimental_get_tracing_count() == traces  # the user's own trace was measured


def test_a_concrete_function(tf: Any, dense: Any) -> None:
    concrete = dense.get_concrete_function(tf.TensorSpec((8, 64)))
    check(graphlens.analyze(concrete, inputs=(tf.ones((8, 64)),), steps=STEPS))


def test_arguments_by_name(tf: Any, dense: Any) -> None:
    check(graphlens.analyze(dense, inputs={"x": tf.ones((8, 64))}, steps=STEPS))


def test_a_plain_function(tf: Any) -> None:
    def step(left: Any, right: Any) -> Any:
        return tf.matmul(left, right)

    executed = check(graphlens.analyze(step, inputs=(tf.ones((4, 8)), tf.ones((8, 2))), steps=STEPS))
    assert "MatMul" in executed.values()


def test_a_keras_model_with_and_without_inputs(tf: Any) -> None:
    import keras

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4, name="head"), keras.layers.Softmax()])
    made = graphlens.analyze(model, steps=STEPS)
    given = graphlens.analyze(model, inputs=(tf.ones((3, 16)),), steps=STEPS)
    for analysis, batch in ((made, 1), (given, 3)):
        assert "Softmax" in check(analysis).values()
        executed = analysis.to_networkx().nodes(data=True)
        shapes = [data["shapes"] for _, data in executed if runtime_type(data["op"]) == "Softmax"]
        assert shapes == [[(batch, 4)]]


def test_a_training_step_updates_the_users_variables(tf: Any) -> None:
    """A live step is the user's own program: it runs, and does what it does."""
    counter = tf.Variable(0.0)

    @tf.function
    def step() -> Any:
        return counter.assign_add(1.0)

    check(graphlens.analyze(step, inputs=(), steps=STEPS))
    assert counter.numpy() >= 2 * STEPS


def test_two_analyses_in_one_process_do_not_mix(tf: Any, dense: Any) -> None:
    other = tf.function(lambda x: tf.math.erf(x, name="only_here"))
    check(graphlens.analyze(dense, inputs=(tf.ones((8, 64)),), steps=STEPS))
    executed = check(graphlens.analyze(other, inputs=(tf.ones((8, 64)),), steps=STEPS))
    assert "only_here" in executed
    assert "product" not in executed


def test_the_users_function_still_works_afterwards(tf: Any, dense: Any) -> None:
    before = dense(tf.ones((8, 64))).numpy()
    graphlens.analyze(dense, inputs=(tf.ones((8, 64)),), steps=STEPS)
    assert (dense(tf.ones((8, 64))).numpy() == before).all()


def test_tensorflow_no_longer_keeps_the_graphs_of_what_runs_afterwards(tf: Any, dense: Any) -> None:
    """Otherwise the user's process would grow with every function, and a later recording would find all of them."""
    from tensorflow.python.eager import context

    graphlens.analyze(dense, inputs=(tf.ones((8, 64)),), steps=STEPS)
    tf.function(lambda x: x * 3.0 + 1.0)(tf.ones(3))
    assert list(context.context().export_run_metadata().function_graphs) == []


@pytest.mark.parametrize("case", ["no callable", "no inputs", "wrong inputs", "fails in the step", "static"])
def test_mistakes_are_typed_errors_of_one_line(tf: Any, case: str) -> None:
    @tf.function
    def needs_two_by_two(x: Any) -> Any:
        tf.debugging.assert_equal(tf.shape(x), [2, 2])
        return tf.linalg.inv(x)

    two = (tf.eye(2),)
    calls: dict[str, tuple[type[GraphLensError], Any]] = {
        "no callable": (TargetError, lambda: graphlens.analyze(3)),
        "no inputs": (UsageError, lambda: graphlens.analyze(needs_two_by_two)),
        "wrong inputs": (ExecutionError, lambda: graphlens.analyze(needs_two_by_two, inputs=(1, 2, 3))),
        "fails in the step": (ExecutionError, lambda: graphlens.analyze(needs_two_by_two, inputs=(tf.zeros((2, 2)),))),
        "static": (UsageError, lambda: graphlens.analyze(needs_two_by_two, inputs=two, static=True)),
    }
    error, call = calls[case]
    with pytest.raises(error) as raised:
        call()
    assert "\n" not in str(raised.value)
