#!/usr/bin/env bash
# Adam of Keras 3 runs 27 ops per variable and step, and computes its bias correction for each variable anew.
#
# One would guess: one fused ResourceApplyAdam per variable (TensorFlow has it, the Adam of tf.compat.v1 uses it), and
# the two powers of beta, which are the same for all variables, once per step.
#
# What happens: each variable has its own chain of 6 reads, a cast of the iteration number, 2 Pow, 2 Sqrt, 4 Mul, 4 Sub
# and so on. The graph optimizer does not merge the equal ones: each chain begins at a ReadVariableOp of its own. A
# model of 200 variables runs 5,400 small ops for its optimizer alone.
#
# Why it matters: small models are bound by their optimizer and by op dispatch, not by their layers. SGD has 3 ops per
# variable.
#
# TensorFlow 2.21.0, Keras 3.15.1. Counted in profiles of 10 steps, by the scope of the optimizer.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   2 variables: Adam 54 ops per step (27.0 per variable), 4 Pow; SGD 6 (3.0 per variable)
#    8 variables: Adam 216 ops per step (27.0 per variable), 16 Pow; SGD 24 (3.0 per variable)
#   32 variables: Adam 864 ops per step (27.0 per variable), 64 Pow; SGD 96 (3.0 per variable)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import collections
import glob

import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

STEPS = 10
x, y = np.ones((64 * STEPS, 16), "float32"), np.ones((64 * STEPS, 16), "float32")


def optimizer_ops_per_step(optimizer, layers):
    model = keras.Sequential([keras.Input((16,)), *[keras.layers.Dense(16) for _ in range(layers)]])
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=64, verbose=0)
    folder = f"{optimizer}_{layers}"
    tf.profiler.experimental.start(folder)
    model.fit(x, y, batch_size=64, verbose=0)
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    kinds = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if name.startswith(f"StatefulPartitionedCall/{optimizer}"):
                    kinds[name.rpartition(":")[2]] += 1
    return kinds.total() / STEPS, kinds["Pow"] / STEPS


for layers in (1, 4, 16):
    variables = 2 * layers
    (adam, powers), (sgd, _) = optimizer_ops_per_step("adam", layers), optimizer_ops_per_step("sgd", layers)
    print(f"{variables:2} variables: Adam {adam:.0f} ops per step ({adam / variables:.1f} per variable),"
          f" {powers:.0f} Pow; SGD {sgd:.0f} ({sgd / variables:.1f} per variable)")
    assert 24 <= adam / variables <= 30 and powers == 2 * variables and sgd / variables <= 4, (adam, powers, sgd)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
