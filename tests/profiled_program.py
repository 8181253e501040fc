"""A program that others profile: ``python profiled_program.py PORT matmul|conv`` runs a small step until it is ended."""

from __future__ import annotations

import os
import sys

import tensorflow as tf

PARENT = os.getppid()


def matmul_step() -> tuple[tf.types.experimental.PolymorphicFunction, tuple[tf.Tensor, ...]]:
    """A product with a bias and an activation."""

    @tf.function
    def step(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.nn.relu(tf.matmul(x, w, name="product"), name="rectified"), name="total")

    return step, (tf.ones((64, 64)), tf.ones((64, 64)))


def conv_step() -> tuple[tf.types.experimental.PolymorphicFunction, tuple[tf.Tensor, ...]]:
    """A convolution."""

    @tf.function
    def step(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.conv2d(x, w, 1, "SAME", name="convolved"), name="mean")

    return step, (tf.ones((2, 32, 32, 3)), tf.ones((3, 3, 3, 8)))


def main(port: int, name: str) -> None:
    tf.profiler.experimental.server.start(port)
    step, arguments = {"matmul": matmul_step, "conv": conv_step}[name]()
    number = 0
    while os.getppid() == PARENT:  # never outlives the test that started it
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            step(*arguments).numpy()
        if not number:
            print("ready", flush=True)
        number += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
