"""Adam for the rows of a table that a gradient is about: the others keep their values and their moments."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def update(optimizer: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Update ``variable`` as ``keras.optimizers.Adam.update_step`` does, by the rows of an ``IndexedSlices``."""
    rows, position = tf.unique(gradient.indices)
    summed = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    kind = variable.dtype
    rate, step = tf.cast(learning_rate, kind), tf.cast(optimizer.iterations + 1, kind)
    summed = tf.cast(summed, kind)
    first, second = tf.cast(optimizer.beta_1, kind), tf.cast(optimizer.beta_2, kind)
    alpha = rate * tf.sqrt(1 - tf.pow(second, step)) / (1 - tf.pow(first, step))
    index = optimizer._get_variable_index(variable)
    momentum = _moved(_held(optimizer._momentums[index]), rows, summed, first)
    velocity = _moved(_held(optimizer._velocities[index]), rows, tf.square(summed), second)
    change = alpha * momentum / (tf.sqrt(velocity) + optimizer.epsilon)
    _held(variable).scatter_sub(tf.IndexedSlices(change, rows))


def _held(variable: Any) -> tf.Variable:
    """Return the variable of TensorFlow that one of Keras holds."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def _moved(moment: Any, rows: Any, towards: Any, decay: Any) -> Any:
    """Move the rows of a moving average, and return them."""
    before = tf.gather(moment, rows)
    after = before + (towards - before) * (1 - decay)
    moment.scatter_update(tf.IndexedSlices(after, rows))
    return after
