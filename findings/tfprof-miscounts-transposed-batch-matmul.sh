#!/usr/bin/env bash
# TensorFlow's own FLOP counter is wrong for a batched product whose first operand is transposed.
#
# One would guess: 2 * batch * m * k * n, however the operands lie in memory; with rank 2 that is what comes.
#
# What happens: for rank 3 and more (BatchMatMulV2) the counter takes the wrong axis of a transposed first operand
# as the inner one and counts 2 * batch * m * m * n. With m = 64 and k = 16 that is four times too many. A transposed
# second operand is counted right.
#
# Why it matters: attention and the gradients of batched layers are such products; FLOPs, utilization and rooflines
# taken from tf.compat.v1.profiler are off by m / k, in either direction.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   rank 2, plain                     :    65536 counted,    65536 right
#   rank 2, first operand transposed  :    65536 counted,    65536 right
#   rank 3, plain                     :   262144 counted,   262144 right
#   rank 3, second operand transposed :   262144 counted,   262144 right
#   rank 3, first operand transposed  :  1048576 counted,   262144 right
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import logging

import tensorflow as tf

tf.get_logger().setLevel(logging.ERROR)
BATCH, M, K, N = 4, 64, 16, 32


def flops(*shapes, **transposed):
    with tf.Graph().as_default() as graph:
        tf.matmul(*[tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes], **transposed)
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


single, batched = 2 * M * K * N, 2 * BATCH * M * K * N
rows = [
    ("rank 2, plain", single, flops([M, K], [K, N])),
    ("rank 2, first operand transposed", single, flops([K, M], [K, N], transpose_a=True)),
    ("rank 3, plain", batched, flops([BATCH, M, K], [BATCH, K, N])),
    ("rank 3, second operand transposed", batched, flops([BATCH, M, K], [BATCH, N, K], transpose_b=True)),
    ("rank 3, first operand transposed", batched, flops([BATCH, K, M], [BATCH, K, N], transpose_a=True)),
]
for name, right, counted in rows:
    print(f"{name:34}: {counted:8} counted, {right:8} right")
assert [counted / right for _, right, counted in rows] == [1, 1, 1, 1, M / K]
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
