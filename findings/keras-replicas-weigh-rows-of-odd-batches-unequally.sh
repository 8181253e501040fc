#!/usr/bin/env bash
# Under MirroredStrategy a batch that does not divide by the replicas trains Keras with other weights of its rows.
#
# One would guess: the same batches of rows give the same step, on one device or on two, as they do whenever the rows
# divide evenly; the loss that `fit` reports is the mean over all rows in both cases.
#
# What happens: each replica takes the mean over its own rows, and these means count alike. A last batch of one row
# moves the model half as far as on one device, because the replica that has no row counts as a mean of zero.
#
# Why it matters: training differs between one device and several by the length of the data set, and the reported
# loss, which is weighed by rows, does not show it.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11), one epoch in batches of 64 that differ in their last one:
#   64 rows, step of the last batch: 1 device 2.00000, 2 replicas 2.00000, ratio 1.0
#   65 rows, step of the last batch: 1 device 2.00000, 2 replicas 1.00000, ratio 0.5
#   loss of an epoch of 65 rows: 1 device 1.0, 2 replicas 1.0
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

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
alone = tf.distribute.get_strategy()


def weight_and_loss(strategy, rows):
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(1.0), "mse")
    x = np.zeros((rows, 1), "float32")
    x[rows - 1 - (rows - 1) % 64 :] = 1.0  # only the rows of the last batch move the weight
    history = model.fit(x, np.ones((rows, 1), "float32"), batch_size=64, shuffle=False, verbose=0)
    return float(model.variables[0].numpy()[0, 0]), history.history["loss"][0]


for rows, expected in ((64, 1.0), (65, 0.5)):
    (one, loss_of_one), (two, loss_of_two) = (weight_and_loss(strategy, rows) for strategy in (alone, replicas))
    print(f"{rows} rows, step of the last batch: 1 device {one:.5f}, 2 replicas {two:.5f}, ratio {two / one:.1f}")
    assert abs(two / one - expected) < 1e-3, (one, two)
print(f"loss of an epoch of 65 rows: 1 device {loss_of_one:.1f}, 2 replicas {loss_of_two:.1f}")
assert abs(loss_of_one - loss_of_two) < 1e-4
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
