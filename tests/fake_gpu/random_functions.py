"""Random functions, fixed by a seed: ops for every rule of placement, wired at random, some with explicit devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = (tf.float32, tf.int32, tf.int64, tf.bool, tf.float64, tf.float16, tf.uint8)
ARITHMETIC = (tf.float32, tf.int32, tf.int64)
DEVICES = (None, None, None, "CPU:0", "GPU:0")
SHARE_OF_UNARY = 0.6
SHARE_OF_COLOCATED = 0.15

Random = np.random.RandomState
Function = tuple[Callable[..., Any], tuple[Any, ...]]


def random_function(seed: int) -> Function:
    """Return a function of three tensors and four variables; those with odd seeds ask for devices explicitly."""
    variables = [tf.Variable(np.ones(4, dtype)) for dtype in (np.float32, np.int32, np.int64)]
    with tf.device("CPU:0"):
        variables.append(tf.Variable(np.ones(4, np.float32)))

    @tf.function(autograph=False)
    def wired(*arguments: tf.Tensor) -> tuple[tf.Tensor, ...]:
        random = Random(seed)  # made here, so that a second tracing makes the same graph
        pool = [*arguments, *(variable.read_value() for variable in variables)]
        for _ in range(random.randint(8, 25)):
            pool.append(_anywhere(random, pool) if seed % 2 else _op(random, pool))
        target = variables[random.randint(len(variables))]
        target.assign(tf.cast(_four_numbers(pool[-1]), target.dtype))
        return tuple(pool[-3:])

    arguments = (tf.constant([1.0, 2.0, 3.0]), tf.constant([1, 2, 3]), tf.constant([3, 1, 2], tf.int64))
    return wired, arguments


def _anywhere(random: Random, pool: list[tf.Tensor]) -> tf.Tensor:
    """Add an op under a random device, or next to another op."""
    with tf.device(DEVICES[random.randint(len(DEVICES))]):
        if random.rand() >= SHARE_OF_COLOCATED:
            return _op(random, pool)
        with tf.compat.v1.colocate_with(_any(random, pool)):
            return _op(random, pool)


def _op(random: Random, pool: list[tf.Tensor]) -> tf.Tensor:
    if random.rand() < SHARE_OF_UNARY:
        return UNARY[random.randint(len(UNARY))](_any(random, pool), random)
    dtype = ARITHMETIC[random.randint(len(ARITHMETIC))]
    left, right = (_flat(_any(random, pool), dtype)[:1] for _ in range(2))
    return BINARY[random.randint(len(BINARY))](left, right)


def _any(random: Random, pool: list[tf.Tensor]) -> tf.Tensor:
    return pool[random.randint(len(pool))]


def _flat(x: tf.Tensor, dtype: Any) -> tf.Tensor:
    return tf.reshape(tf.cast(x, dtype), [-1])


def _four_numbers(x: tf.Tensor) -> tf.Tensor:
    return tf.concat([_flat(x, tf.float32), tf.zeros([4])], 0)[:4]


def _counted_loop(x: tf.Tensor, random: Random) -> tf.Tensor:
    value = tf.cast(x, ARITHMETIC[random.randint(len(ARITHMETIC))])
    shapes = [tf.TensorShape([]), tf.TensorShape(None)]
    return tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, v + 1), [0, value], shape_invariants=shapes)[1]


def _loop_over_capture(x: tf.Tensor, _: Random) -> tf.Tensor:
    """A loop that reads a tensor from outside in every iteration."""
    start = tf.zeros_like(_flat(x, tf.float32))
    return tf.while_loop(
        lambda total: tf.reduce_sum(total) < 2.0, lambda total: total + 1.0 + _flat(x, tf.float32) % 1, [start]
    )[0]


def _nested_loop(x: tf.Tensor, _: Random) -> tf.Tensor:
    """A loop in a loop; the inner one looks words up, which only the host can."""
    words = tf.strings.as_string(_flat(x, tf.int32))

    def inner(total: tf.Tensor) -> tf.Tensor:
        step = tf.reduce_sum(tf.strings.to_hash_bucket_fast(words, 2))
        return tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, v + tf.cast(step, tf.float32)), [0, total])[1]

    return tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, inner(v)), [0, 0.0])[1]


def _branch(x: tf.Tensor, _: Random) -> tf.Tensor:
    """Branches that read a tensor from outside, wherever it is."""
    return tf.cond(tf.size(x) > 2, lambda: tf.cast(x, tf.float32) * 2.0, lambda: tf.cast(x, tf.float32))


def _partition(x: tf.Tensor, _: Random) -> tf.Tensor:
    return tf.dynamic_partition(tf.reshape(x, [-1]), tf.zeros([tf.size(x)], tf.int32), 2)[0]


UNARY: tuple[Callable[[tf.Tensor, Random], tf.Tensor], ...] = (
    # moves, views and metadata
    lambda x, _: tf.identity(x),
    lambda x, random: tf.cast(x, DTYPES[random.randint(len(DTYPES))]),
    lambda x, _: tf.zeros_like(x),
    lambda x, _: tf.reshape(x, [-1]),
    lambda x, _: tf.expand_dims(x, 0),
    lambda x, _: tf.stop_gradient(x),
    lambda x, _: tf.shape(x),
    lambda x, _: tf.size(x, out_type=tf.int64),
    lambda x, _: tf.rank(x),
    lambda x, _: tf.tile(tf.reshape(x, [-1]), [2])[:4],
    lambda x, _: tf.reverse(tf.reshape(x, [-1]), [0]),
    # ops with arguments or results in the host's memory
    lambda x, _: tf.where(tf.cast(x, tf.bool)),
    lambda x, _: tf.unique(tf.reshape(x, [-1]))[0],
    lambda x, _: tf.range(tf.size(x)),
    lambda x, _: tf.fill(tf.shape(x), 3.0),
    lambda x, _: tf.random.uniform(tf.shape(x)),
    lambda x, _: tf.one_hot(tf.cast(x, tf.int32) % 3, 3),
    _partition,
    # ops without a kernel on a GPU, or for some types only
    lambda x, _: tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 9),
    lambda x, _: tf.sequence_mask(_flat(x, tf.int32) % 4, 4),
    lambda x, _: tf.math.bincount(tf.abs(_flat(x, tf.int32)) % 5),
    lambda x, _: tf.histogram_fixed_width(tf.cast(x, tf.float32), [0.0, 1.0]),
    lambda x, _: tf.searchsorted(tf.constant([1.0, 2.0, 3.0]), _flat(x, tf.float32)),
    lambda x, _: tf.bitwise.invert(tf.cast(x, tf.int32)),
    # numbers
    lambda x, _: tf.reduce_sum(tf.cast(x, tf.int32)),
    lambda x, _: tf.cumsum(tf.cast(x, tf.float32)),
    lambda x, _: tf.argsort(_flat(x, tf.float32)),
    lambda x, _: tf.nn.softmax(tf.reshape(tf.cast(x, tf.float32), [-1, 1])),
    lambda x, _: tf.linalg.diag_part(tf.linalg.diag(_flat(x, tf.float32))),
    lambda x, _: tf.quantization.fake_quant_with_min_max_args(tf.cast(x, tf.float32)),
    lambda x, _: tf.math.lgamma(tf.cast(x, tf.float32)),
    # control flow
    _counted_loop,
    _loop_over_capture,
    _nested_loop,
    _branch,
)

BINARY: tuple[Callable[[tf.Tensor, tf.Tensor], tf.Tensor], ...] = (
    tf.add,
    tf.subtract,
    tf.multiply,
    tf.maximum,
    tf.greater,
    tf.equal,
    tf.math.squared_difference,
    lambda a, b: tf.math.floormod(a, b + 1),
    lambda a, b: tf.concat([a, b], 0),
    lambda a, b: tf.stack([a, b]),
    lambda a, b: tf.gather(tf.concat([a, b, a, b], 0), tf.cast(tf.abs(b), tf.int32) % 2),
)
