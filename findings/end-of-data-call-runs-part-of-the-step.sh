#!/usr/bin/env bash
# The call of a Keras train function that only finds the end of the data runs a good part of the step.
#
# One would guess: for a dataset of unknown size Keras asks once more, learns that nothing is left, and no op of
# the step runs.
#
# What happens: there is one more call per epoch, it has the name of a step, and each op that does not depend on
# the batch runs before OutOfRange arrives: the reads of all variables and Adam's bias corrections (Pow, Sqrt,
# RealDiv) of every variable. How many is a race with the iterator.
#
# Why it matters: neither "has ops" nor "has ops of the optimizer" separates a step from this call; averages over
# calls hold one false, short step per epoch. What it lacks is the batch: no matrix product, no update of a weight.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   11 calls for 10 batches; a step has 276 op events of the model
#   the call that finds the end has 117: {'ReadVariableOp': 43, 'Pow': 16, 'Sub': 16, 'AddV2': 9, 'Cast': 8}
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import bisect
import collections
import glob
import warnings

import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

warnings.filterwarnings("ignore")
BATCHES = 10
x, y = np.ones((64 * BATCHES, 20), "float32"), np.ones((64 * BATCHES, 1), "float32")
unknown_size = tf.data.Dataset.from_tensor_slices((x, y)).batch(64).filter(lambda *_: True)
layers = [keras.layers.Dense(8, activation="relu") for _ in range(3)]
model = keras.Sequential([keras.Input((20,)), *layers, keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(unknown_size, verbose=0)
tf.profiler.experimental.start("profile")
model.fit(unknown_size, verbose=0)
tf.profiler.experimental.stop()

(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
starts, ops = [], []
for plane in space.planes:
    for line in plane.lines:
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name
            if name.startswith("EagerLocalExecute: __inference_multi_step_on_iterator"):
                starts.append(event.offset_ps)
            elif name.startswith("StatefulPartitionedCall/"):
                ops.append((event.offset_ps, name.rpartition(":")[2]))
starts.sort()
calls = [collections.Counter() for _ in starts]
for start, kind in ops:
    calls[bisect.bisect(starts, start) - 1][kind] += 1

*steps, last = calls
print(f"{len(calls)} calls for {BATCHES} batches; a step has {steps[-1].total()} op events of the model")
print(f"the call that finds the end has {last.total()}: {dict(last.most_common(5))}")
assert len(calls) == BATCHES + 1
assert all(any("MatMul" in kind for kind in step) and "AssignAddVariableOp" in step for step in steps)
assert not any("MatMul" in kind for kind in last) and "AssignAddVariableOp" not in last, last
assert last["ReadVariableOp"] >= 5 and last.total() >= 10, last
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
