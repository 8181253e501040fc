#!/usr/bin/env bash
# Under MirroredStrategy, Keras' BatchNormalization keeps the moving statistics of the first replica's rows only.
#
# One would guess: moving mean and variance are averaged over the replicas, as gradients are summed over them.
#
# What happens: after a step on two replicas the moving mean has moved towards the mean of the first half of the
# batch; what the second replica saw is dropped.
#
# Why it matters: inference uses statistics of 1/R of the data. With data that differs by replica (sorted, sharded by
# file or by class) they are wrong, and neither training loss nor a warning tells.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11), rows of 1.0 in the first half and 3.0 in the second, momentum 0:
#   1 device:   moving mean 2.0, moving variance 1.0
#   2 replicas: moving mean 1.0, moving variance 0.0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402

x = np.repeat(np.array([1.0, 3.0], "float32"), 32)[:, None]
y = np.zeros((64, 1), "float32")


def statistics(strategy):
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.0)])
        model.compile("sgd", "mse")
    model.fit(x, y, batch_size=64, shuffle=False, verbose=0)
    layer = model.layers[-1]
    return [round(float(np.asarray(value)[0]), 4) for value in (layer.moving_mean, layer.moving_variance)]


one = statistics(tf.distribute.get_strategy())
two = statistics(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
print(f"1 device:   moving mean {one[0]}, moving variance {one[1]}")
print(f"2 replicas: moving mean {two[0]}, moving variance {two[1]}")
assert one == [2.0, 1.0], one
assert two == [1.0, 0.0], two
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
