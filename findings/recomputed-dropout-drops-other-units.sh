#!/usr/bin/env bash
# tf.recompute_grad around dropout gives the gradient of another dropout.
#
# One would guess: gradient checkpointing costs time and changes no gradient. A layer that is random is run again
# with the numbers it had.
#
# What happens: the second forward pass draws anew. Half of the units that were dropped get a gradient, half of
# those that were kept get none. Nothing warns. A stateless dropout is right.
#
# Why it matters: saving memory silently trains with gradients of outputs that nobody saw; in a graph both draws
# are the same op with the same seed attributes, and only their number tells.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   units whose derivative fits their output: 100%, with recompute_grad 48%
#   with recompute_grad and stateless_dropout 100%
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import tensorflow as tf


def agreement(layer):
    """Of dropout with inputs of one, output and derivative are the same number: 0 or 2."""

    @tf.function
    def step(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        return outputs, tape.gradient(outputs, inputs)

    outputs, gradient = step(tf.ones([10_000]))
    return float(tf.reduce_mean(tf.cast(outputs == gradient, tf.float32)))


def dropout(values):
    return tf.nn.dropout(values, 0.5)


def same_seed(values):
    return tf.nn.experimental.stateless_dropout(values, 0.5, seed=[1, 2])


plain, recomputed = agreement(dropout), agreement(tf.recompute_grad(dropout))
stateless = agreement(tf.recompute_grad(same_seed))
print(f"units whose derivative fits their output: {plain:.0%}, with recompute_grad {recomputed:.0%}")
print(f"with recompute_grad and stateless_dropout {stateless:.0%}")
assert plain == 1 and stateless == 1 and 0.45 < recomputed < 0.55, (plain, recomputed, stateless)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
