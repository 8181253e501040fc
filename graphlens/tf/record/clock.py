"""The clock: how a call is timed, to the completion of its outputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

EMPTY_CALLS = 101  # of which the median is taken; together they take some ten milliseconds


def synchronous(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return a ``call`` that ends when its outputs are complete."""
    if not tf.config.list_logical_devices("GPU"):
        return call  # on CPUs a function returns when its outputs are complete

    def step() -> Any:
        outputs = call()
        tf.test.experimental.sync_devices()
        return outputs

    return step


def timed(step: Callable[[], Any]) -> int:
    """Return the nanoseconds that one call takes."""
    start = time.perf_counter_ns()
    step()
    return time.perf_counter_ns() - start


def timed_steps(step: Callable[[], Any], count: int) -> list[int]:
    """Return the nanoseconds of each of ``count`` calls."""
    return [timed(step) for _ in range(count)]


def empty_call_ns() -> int:
    """Return what a call takes at least: that of a function which hands on its argument."""
    call = tf.function(lambda tensor: tensor, autograph=False).get_concrete_function(tf.TensorSpec([]))
    argument = tf.constant(0.0)
    return round(statistics.median(timed_steps(lambda: call(argument), EMPTY_CALLS)))
