"""Which functions are loops over steps, and may be called only once; and what changed in what replicas are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytestmark = pytest.mark.tf


def traced(function: Callable[..., Any], *arguments: Any) -> Any:
    import tensorflow as tf

    return tf.function(function).get_concrete_function(*arguments)


def kernel() -> Any:
    import tensorflow as tf

    return tf.Variable(tf.zeros((2, 2)))


def recurrent(inputs: Any, state: Any) -> Any:
    import tensorflow as tf

    for _ in tf.range(10):
        state = tf.tanh(state @ inputs)
    return state


@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_step_with_a_recurrent_layer_is_none(is_drawn: bool) -> None:
    import tensorflow as tf

    from graphlens.tf.watch.programs import is_loop

    weights = kernel()
    one = tf.data.Dataset.from_tensors(tf.ones((2, 2))).repeat()

    def trains(features: Any) -> None:
        weights.assign_sub(recurrent(features, tf.ones((2, 2))))

    def predicts(iterator: Any) -> Any:
        return recurrent(next(iterator), tf.ones((2, 2)))

    concrete = traced(predicts, iter(one)) if is_drawn else traced(trains, tf.ones((2, 2)))
    assert not is_loop(concrete)


def test_a_loop_that_draws_or_trains_is_one_and_so_is_one_that_does_nothing_else() -> None:
    import tensorflow as tf

    from graphlens.tf.watch.programs import is_loop

    weights = kernel()
    features = tf.data.Dataset.from_tensors(tf.ones((2, 2)))

    def over_dataset(elements: Any) -> Any:
        total = tf.zeros((2, 2))
        for element in elements:
            total += element @ element
        return total

    def step() -> None:
        weights.assign_sub(tf.ones((2, 2)))

    def counted() -> None:
        for _ in tf.range(3):
            tf.function(step)()

    assert is_loop(traced(over_dataset, features))
    assert is_loop(traced(over_dataset, iter(features)))
    assert is_loop(traced(counted))
    assert is_loop(traced(recurrent, tf.ones((2, 2)), tf.ones((2, 2)))), "a text that is generated word by word"


def test_what_has_no_loop_is_none() -> None:
    import tensorflow as tf

    from graphlens.tf.watch.programs import is_loop

    assert not is_loop(traced(lambda x: x @ x, tf.ones((2, 2))))


def test_calls_over_the_same_data_are_told_from_others() -> None:
    """The recorded call made as many steps as those that were given the same: these tell how long a step takes."""
    import tensorflow as tf

    from graphlens.tf import private
    from graphlens.tf.watch.calls import Call, CallLog

    def over(elements: Any, _rate: Any) -> None:
        for _ in elements:
            pass

    same, other = tf.data.Dataset.range(3), tf.data.Dataset.range(5)
    function = tf.function(over)
    concrete = function.get_concrete_function(iter(same), tf.constant(0.5))
    log = CallLog()
    called = log.of_function(function)

    def ended(ms: int, data: Any) -> None:
        given = partial(type(function).__call__, function, iter(data), tf.constant(1.0 / ms))
        log.ended(called, function, Call(concrete, [], 0, ms * 1_000_000, given))

    ended(5, same)
    ended(6, other)
    log.recording_changes()
    ended(9, same)
    log.recording_changes()
    ended(4, same)
    (told,) = log.script(0, 0).functions
    assert told.alike_ns == {private.function_name(concrete): (5_000_000, 4_000_000)}
    log.recording_changes()
    ended(9, same)
    ended(9, other)
    assert not log.script(0, 0).functions[0].alike_ns, "of which of the two the others were is not known"


def test_an_argument_of_several_replicas_changes_in_one_of_them() -> None:
    from types import SimpleNamespace

    import tensorflow as tf
    from tensorflow.python.distribute.values import PerReplicaSpec

    from graphlens.tf.watch.changes import changes

    def given(*rows: int) -> Any:
        batch = PerReplicaSpec(*(tf.TensorSpec((count, 4)) for count in rows))
        return SimpleNamespace(parameters={"batch": SimpleNamespace(type_constraint=batch)})

    assert changes(given(64, 64), given(64, 1)) == ("batch's replica 1: the shape (64, 4) became (1, 4)",)
