#!/usr/bin/env bash
# Keras' steps_per_execution above 1 cannot train under MirroredStrategy with two replicas.
#
# One would guess: steps_per_execution, made for strategies with a costly step start, works with any of them, as
# it does without a strategy.
#
# What happens: with one replica each value works, with two replicas only 1. With 5 the first call of the train
# function raises InvalidArgumentError about a placeholder `while/.../cond/Placeholder_N` that nobody feeds: the
# test for the next element of the distributed iterator refers to tensors of a graph around it.
#
# Why it matters: the usual advice for a step of many small ops ("raise steps_per_execution") must not be given
# to a program that trains on replicas.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   steps_per_execution=1, replicas=1: trained
#   steps_per_execution=5, replicas=1: trained
#   steps_per_execution=1, replicas=2: trained
#   steps_per_execution=5, replicas=2: InvalidArgumentError: You must feed a value for placeholder
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import re

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402


def outcome(steps_per_execution, replicas):
    x, y = np.ones((640, 20), "float32"), np.ones((640, 1), "float32")
    with tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)]).scope():
        model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    try:
        model.fit(x, y, batch_size=64, verbose=0)
    except tf.errors.InvalidArgumentError as error:
        return "InvalidArgumentError: " + re.search(r"You must feed a value for placeholder", str(error)).group()
    return "trained"


outcomes = {(steps, replicas): outcome(steps, replicas) for replicas in (1, 2) for steps in (1, 5)}
for (steps, replicas), what in outcomes.items():
    print(f"steps_per_execution={steps}, replicas={replicas}: {what}")
assert [what == "trained" for what in outcomes.values()] == [True, True, True, False], outcomes
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
