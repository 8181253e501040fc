#!/usr/bin/env bash
# A second MirroredStrategy in a process trains only models whose gradients have the sizes of the first one's.
#
# One would guess: a strategy is an object; a second one over the same devices knows nothing of an earlier one.
#
# What happens: collectives are numbered, each strategy begins at the same number, and the runtime remembers for each
# the size it first saw. A model of other size under a new strategy raises InvalidArgumentError, "Shape mismatch in
# the collective instance 100", in its first step. Under the first strategy, used again, the same model trains.
#
# Why it matters: notebooks, sweeps over models and tests that make a strategy per model fail, with an advice to look
# at input shapes and to restart the program.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   4 inputs, first strategy: trained
#   6 inputs, first strategy again: trained
#   4 inputs, second strategy: trained
#   6 inputs, third strategy: InvalidArgumentError: Shape mismatch in the collective instance
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

def new_strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def outcome(strategy, inputs):
    with strategy.scope():
        model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    try:
        model.fit(np.ones((128, inputs), "float32"), np.ones((128, 1), "float32"), batch_size=64, verbose=0)
    except tf.errors.InvalidArgumentError as error:
        assert "Shape mismatch in the collective instance" in str(error), error
        return "InvalidArgumentError: Shape mismatch in the collective instance"
    return "trained"


first = new_strategy()
cases = [(4, "first strategy", first), (6, "first strategy again", first)]
cases += [(4, "second strategy", new_strategy()), (6, "third strategy", new_strategy())]
outcomes = []
for inputs, name, strategy in cases:
    outcomes.append(outcome(strategy, inputs))
    print(f"{inputs} inputs, {name}: {outcomes[-1]}")
assert [what == "trained" for what in outcomes] == [True, True, True, False], outcomes
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
