#!/usr/bin/env bash
# Keras' `fit` under MirroredStrategy raises if the rows of the first batch do not divide by the number of replicas.
#
# One would guess: an odd batch is split 17 and 16 as later ones are, or the error speaks of the batch size.
#
# What happens: with a first batch of 64 rows any later one trains, one of 1 row too. With a first batch of 33 rows
# `fit` raises InvalidArgumentError about `AddN` and sizes [17,4] and [16,4]: before the first step Keras sums the
# replicas' input rows, only to learn their shape.
#
# Why it matters: a data set smaller than one batch, or an odd batch size, fails with a message about an op that is
# not in the model.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   65 rows in batches of 64: trained
#   33 rows in batches of 64: InvalidArgumentError: AddN, [17,4] and [16,4]
#   33 rows in batches of 33: InvalidArgumentError: AddN, [17,4] and [16,4]
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

import re  # noqa: E402

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def outcome(rows, batch):
    with replicas.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    try:
        model.fit(np.ones((rows, 4), "float32"), np.ones((rows, 1), "float32"), batch_size=batch, verbose=0)
    except tf.errors.InvalidArgumentError as error:
        first, second = re.search(r"AddN.*Input 0: (\S+) != input 1: (\S+)", str(error)).groups()
        return f"InvalidArgumentError: AddN, {first} and {second}"
    return "trained"


outcomes = {(rows, batch): outcome(rows, batch) for rows, batch in ((65, 64), (33, 64), (33, 33))}
for (rows, batch), what in outcomes.items():
    print(f"{rows} rows in batches of {batch}: {what}")
failed = "InvalidArgumentError: AddN, [17,4] and [16,4]"
assert list(outcomes.values()) == ["trained", failed, failed], outcomes
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
