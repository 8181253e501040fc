"""A program that others profile: ``python profiled_program.py PORT ROWS`` runs a small step again and again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Without a rest the program would take a core, and a second of profile a hundred thousand events.
REST_S = 0.002


def dense_step(rows: int = 64) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A dense layer, which runs as one fused op, and a mean."""

    @tf.function
    def step(x: Any, w: Any, b: Any) -> Any:
        with tf.name_scope("dense"):
            y = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, w), b))
        return tf.reduce_mean(tf.nn.tanh(y, name="squashed"), name="mean")

    return step, (tf.ones((rows, 256)), tf.ones((256, 256)), tf.ones((256,)))


def main(port: int, rows: int) -> None:
    parent = os.getppid()
    tf.profiler.experimental.server.start(port)
    step, arguments = dense_step(rows)
    number = 0
    while os.getppid() == parent:  # never outlives the test that started it
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            step(*arguments).numpy()
        if not number:
            print("ready", flush=True)
        number += 1
        time.sleep(REST_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
