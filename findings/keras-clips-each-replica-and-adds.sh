#!/usr/bin/env bash
# Keras' gradient clipping under MirroredStrategy lets the summed gradient be as many times too long as there are replicas.
#
# One would guess: `clipnorm`, `global_clipnorm` and `clipvalue` bound the gradient that is applied, with replicas as
# without: the global batch, the loss and the unclipped steps are the same.
#
# What happens: each replica clips its own gradient, which is 1/R of the global one, to the whole limit, and what is
# then applied is the sum over replicas: on two replicas a step of SGD is up to twice as long as the limit allows.
#
# Why it matters: a model whose clipping was tuned on one device trains with another limit on two, and with yet
# another on eight, silently.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11), the length of one step of SGD(1.0):
#   no clipping            1 device: 1.58114, 2 replicas: 1.58114
#   clipnorm=0.01          1 device: 0.01000, 2 replicas: 0.02000
#   global_clipnorm=0.01   1 device: 0.01000, 2 replicas: 0.02000
#   clipvalue=0.01         1 device: 0.02000, 2 replicas: 0.04000
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
x = np.tile(np.array([[0.5, 1.0, 1.5, 2.0]], "float32"), (64, 1)) / np.sqrt(12.0).astype("float32")
y = np.ones((64, 1), "float32")


def step_length(strategy, **clipping):
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(1.0, **clipping), "mse")
    model.fit(x, y, batch_size=64, verbose=0)
    return float(np.linalg.norm(model.variables[0].numpy()))


alone = tf.distribute.get_strategy()
lengths = {}
for clipping in ({}, {"clipnorm": 0.01}, {"global_clipnorm": 0.01}, {"clipvalue": 0.01}):
    name = ", ".join(f"{key}={value}" for key, value in clipping.items()) or "no clipping"
    lengths[name] = step_length(alone, **clipping), step_length(replicas, **clipping)
    print(f"{name:22} 1 device: {lengths[name][0]:.5f}, 2 replicas: {lengths[name][1]:.5f}")

unclipped, *clipped = (on_two / on_one for on_one, on_two in lengths.values())
assert abs(unclipped - 1.0) < 1e-3, lengths
assert all(abs(ratio - 2.0) < 1e-2 for ratio in clipped), lengths
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
