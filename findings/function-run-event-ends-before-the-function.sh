#!/usr/bin/env bash
# The `FunctionRun` event of a profile ends long before the function does.
#
# One would guess: FunctionRun lasts as long as the function runs, and the ops that belong to it lie inside it.
#
# What happens: it ends as soon as the calling thread has handed the graph over to the executor's threads. The
# ops go on for the rest of the step on other lines, outside of it.
#
# Why it matters: a step measured by FunctionRun, or by the ops nested in it on the caller's thread, is too short
# by one or more orders of magnitude, differently in each step. The event `EagerLocalExecute: __inference_...`
# around it lasts as long as the step, and FunctionRun's `id` leads to the ops on the other threads.
#
# TensorFlow 2.21.0. The clock is the program's own, around the call and the reading of its result.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   step by the clock: 20 calls, median 30.2 ms
#   FunctionRun: 20 events, median 2.4% of the step, shortest 0.04%
#   EagerLocalExecute: __inference_step: 20 events, median 97.9% of the step, shortest 95.95%
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import glob
import statistics
import time

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

weights = tf.Variable(tf.random.normal([512, 512]))


@tf.function
def step(x):
    for _ in range(24):
        x = tf.tanh(tf.matmul(x, weights))
    return x


x = tf.random.normal([512, 512])
step(x).numpy()
clock = []
tf.profiler.experimental.start("profile")
for _ in range(20):
    start = time.perf_counter()
    step(x).numpy()
    clock.append((time.perf_counter() - start) * 1e6)
tf.profiler.experimental.stop()

(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
durations_us = {"FunctionRun": [], "EagerLocalExecute: __inference_step": []}
for plane in space.planes:
    for line in plane.lines:
        for event in line.events:
            for name, values in durations_us.items():
                if plane.event_metadata[event.metadata_id].name.startswith(name):
                    values.append(event.duration_ps / 1e6)

step_us = statistics.median(clock)
share = {name: statistics.median(values) / step_us for name, values in durations_us.items()}
print(f"step by the clock: 20 calls, median {step_us / 1000:.1f} ms")
for name, values in durations_us.items():
    print(f"{name}: {len(values)} events, median {share[name]:.1%} of the step, shortest {min(values) / step_us:.2%}")
assert all(len(values) == 20 for values in durations_us.values())
assert share["FunctionRun"] < 0.5, share
assert 0.7 < share["EagerLocalExecute: __inference_step"] < 1.05, share
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
