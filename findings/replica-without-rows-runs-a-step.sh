#!/usr/bin/env bash
# Under MirroredStrategy a replica that gets no row of the last batch runs a complete step all the same.
#
# One would guess: if one row is left for two replicas, one of them trains on it and the other waits.
#
# What happens: the other gets a batch of shape (0, features) and computes forward pass, loss and gradients on it,
# ops and all-reduce included, once per epoch whenever the samples leave such a remainder.
#
# Why it matters: op events per replica, rows per event and FLOPs per event of that step are not those of the
# others; a kernel that ran on 0 rows is no fast kernel, and rates computed from its time are nonsense.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   rows that the replicas saw in 3 batches of 129 samples: [32, 32, 32, 32, 1, 0]
#   gradient products that ran: {'replica 1': 3, 'replica 0': 3}
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import collections
import glob

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402

rows = []


class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        def note(values):
            rows.append(len(values))
            return values

        if not isinstance(x, keras.KerasTensor):
            x = tf.ensure_shape(tf.numpy_function(note, [x], tf.float32), [None, 20])
        return self.dense(x)


with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = Model()
    model.build((None, 20))
    model.compile("adam", "mse")
x, y = np.ones((129, 20), "float32"), np.ones((129, 1), "float32")
model.fit(x, y, batch_size=64, verbose=0)
rows.clear()
tf.profiler.experimental.start("profile")
model.fit(x, y, batch_size=64, verbose=0)
tf.profiler.experimental.stop()

(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
products = collections.Counter()
for plane in space.planes:
    for line in plane.lines:
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name
            if "gradient_tape" in name and name.endswith("MatMul"):
                products["replica 1" if "replica_1" in name else "replica 0"] += 1
print(f"rows that the replicas saw in 3 batches of 129 samples: {sorted(rows, reverse=True)}")
print(f"gradient products that ran: {dict(products)}")
assert sorted(rows) == [0, 1, 32, 32, 32, 32], rows
assert products == {"replica 0": 3, "replica 1": 3}, products
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
