#!/usr/bin/env bash
# Under MirroredStrategy, Dropout and GaussianNoise of Keras draw the same numbers on each replica.
#
# One would guess: replicas draw independently, as tf.nn.dropout does on them.
#
# What happens: the layer's seed is a mirrored variable, so each replica computes with the same one. Row k of
# every replica's share of the batch gets the same mask, in every step.
#
# Why it matters: noise that should average out over the batch does so over the rows of one replica only; training
# on eight devices is not training with eight times the batch.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   step 0: equal on both replicas: Dropout 100%, GaussianNoise 100%, tf.nn.dropout 51%
#   step 1: equal on both replicas: Dropout 100%, GaussianNoise 100%, tf.nn.dropout 50%
#   step 2: equal on both replicas: Dropout 100%, GaussianNoise 100%, tf.nn.dropout 50%
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import keras
import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    dropout, noise = keras.layers.Dropout(0.5), keras.layers.GaussianNoise(1.0)


@tf.function
def step():
    def replica():
        ones = tf.ones([10_000])
        return dropout(ones, training=True), noise(ones, training=True), tf.nn.dropout(ones, 0.5)

    return strategy.run(replica)


for number in range(3):
    shares = []
    for value in step():
        first, second = strategy.experimental_local_results(value)
        shares.append(float(tf.reduce_mean(tf.cast(tf.identity(first) == tf.identity(second), tf.float32))))
    print("step {}: equal on both replicas: Dropout {:.0%}, GaussianNoise {:.0%}, tf.nn.dropout {:.0%}".format(number, *shares))
    assert shares[0] == shares[1] == 1 and 0.45 < shares[2] < 0.55, shares
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
