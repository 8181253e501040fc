"""From within: a block of a program, and a callback of Keras, are recorded and leave the process as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_hooks import Told, wrapped

import graphlens
from graphlens.errors import TargetError, UsageError
from graphlens.tf.watch import hooks

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def step() -> Callable[[], Any]:
    """A function that has run so often that TensorFlow leaves its cheap ops out of profiles."""
    import tensorflow as tf

    features, kernel = tf.random.normal((64, 128), seed=1), tf.Variable(tf.random.normal((128, 256), seed=2))
    function = tf.function(lambda: tf.reduce_sum(tf.nn.relu(features @ kernel) + 1.0))
    for _ in range(200):
        function()
    return function


def test_a_block_is_recorded_though_its_function_was_warm_and_the_process_is_left_as_it_was(
    step: Callable[[], Any],
) -> None:
    import tensorflow as tf
    from tensorflow.python.eager import context

    before, result = wrapped(), float(step())
    with graphlens.profile(steps=20) as recorded:
        results = {float(step()) for _ in range(40)}
    assert results == {result}
    assert wrapped() == before
    assert not hooks.are_installed()
    tf.function(lambda x: x + 1.0)(tf.constant(1.0))
    assert not context.export_run_metadata().function_graphs, "TensorFlow keeps no graphs any more"

    told = Told()
    watching = hooks.Hooks(told)
    watching.install()
    try:
        document = recorded.analysis.document
    finally:
        watching.remove()
    assert told.of == [], "judging calls nothing of TensorFlow"
    assert document.programs[0].runs == 20
    assert document.quality.join_rate == document.quality.coverage == 1.0
    seen = {op.op for op in document.ops if op.self_ns is not None}
    assert seen == {"MatMul", "ReadVariableOp", "AddV2", "Relu", "Sum"}, "all that computes, however cheap"
    assert recorded.analysis is recorded.analysis


def test_the_graphs_of_a_function_that_failed_are_not_those_of_the_next_one(step: Callable[[], Any]) -> None:
    """TensorFlow keeps them while its graphs are collected, and joins them to those of what it instantiates next."""
    import tensorflow as tf

    inverse = tf.function(tf.linalg.inv)
    with graphlens.profile(steps=5), pytest.raises(tf.errors.InvalidArgumentError):
        inverse(tf.zeros((2, 2)))
    with graphlens.profile(steps=5) as recorded:
        for _ in range(20):
            step()
    document = recorded.analysis.document
    assert "MatrixInverse" not in {op.op for op in document.ops}
    assert document.quality.coverage == 1.0


def test_a_block_that_raises_is_judged_and_raises(step: Callable[[], Any]) -> None:
    def fails() -> None:
        for _ in range(10):
            step()
        raise ValueError("of the program")

    recorded = graphlens.profile()
    with pytest.raises(ValueError, match="of the program"), recorded:
        fails()
    assert recorded.analysis.document.programs[0].runs == 7, "the first three are waited for"


def test_blocks_without_anything_to_judge_say_why(step: Callable[[], Any]) -> None:
    with graphlens.profile() as idle:
        pass
    with pytest.raises(TargetError, match="no function and no Session of TensorFlow was called"):
        _ = idle.analysis
    with graphlens.profile() as short:
        with pytest.raises(UsageError, match="still recording"):
            _ = short.analysis
        step()
    with pytest.raises(TargetError, match="nothing was called often enough"):
        _ = short.analysis
    with pytest.raises(UsageError, match="make another one"), short:
        pass
    with pytest.raises(UsageError, match="steps must be from 1"):
        graphlens.profile(steps=0)


def test_a_block_within_another_one_records_nothing_and_the_outer_one_goes_on(step: Callable[[], Any]) -> None:
    with graphlens.profile(steps=5) as outer:
        with pytest.warns(RuntimeWarning, match="this process is watched already"), graphlens.profile() as inner:
            step()
        for _ in range(10):
            step()
    assert outer.analysis.document.programs[0].runs == 5
    with pytest.raises(UsageError, match="this process is watched already"):
        _ = inner.analysis


def test_the_profiler_of_the_program_goes_before(step: Callable[[], Any], tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.profiler.experimental.Profile(str(tmp_path)), graphlens.profile() as refused:
        for _ in range(40):
            step()
    assert list(tmp_path.rglob("*.xplane.pb"))
    with pytest.raises(TargetError, match="TensorFlow's profiler did not start: Another profiler is running"):
        _ = refused.analysis


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, graphlens; block = graphlens.profile()\n"
        "with block: pass\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "graphlens.keras.ProfileCallback; assert 'keras' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- Keras ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[bool], dict[str, Any], dict[str, Any]]:
    """A callback after two fits, whether its report was there at the end of each epoch, and what training came to."""
    import keras
    import numpy as np

    report = tmp_path_factory.mktemp("callback") / "report.json"
    random = np.random.default_rng(7)
    samples, labels = random.random((640, 8), dtype="float32"), random.random((640, 4), dtype="float32")
    there: list[bool] = []

    def fit(*callbacks: Any) -> dict[str, Any]:
        keras.utils.set_random_seed(7)
        layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
        model = keras.Sequential([keras.Input((8,)), *layers])
        model.compile("adam", "mse")
        return dict(model.fit(samples, labels, batch_size=16, epochs=3, verbose=0, callbacks=list(callbacks)).history)

    alone = fit()
    explained = graphlens.keras.ProfileCallback(report, steps=20)
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: there.append(report.exists()))
    watched = fit(explained, seen)
    first = explained.analysis
    fit(explained)
    assert explained.analysis is not first
    return explained, there, alone, watched


def test_a_callback_explains_the_steps_of_a_fit(fitted: tuple[Any, Any, Any, Any]) -> None:
    document = fitted[0].analysis.document
    assert "multi_step_on_iterator" in document.programs[0].name
    assert (document.programs[0].runs, document.programs[0].steps) == (20, 20)


def test_its_report_is_there_at_the_end_of_the_epoch_in_which_the_steps_were_recorded(
    fitted: tuple[Any, list[bool], Any, Any],
) -> None:
    assert fitted[1] == [True, True, True]


def test_training_comes_to_the_same(fitted: tuple[Any, Any, dict[str, Any], dict[str, Any]]) -> None:
    assert fitted[2] == fitted[3]


def test_what_the_callback_cannot_write_is_refused_at_once_or_a_warning(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        graphlens.keras.ProfileCallback(tmp_path / "missing" / "report.html")
    idle = graphlens.keras.ProfileCallback(tmp_path / "report.html")
    idle.on_train_begin()
    with pytest.warns(RuntimeWarning, match="nothing to judge"):
        idle.on_train_end()
    assert not hooks.are_installed()
