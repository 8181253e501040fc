"""Which functions are loops over steps, and may be called only once."""

from __future__ import annotations

from collections.abc import Callable
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
