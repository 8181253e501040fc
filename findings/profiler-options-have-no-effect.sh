#!/usr/bin/env bash
# The options of TensorFlow's profiler change nothing about what is recorded.
#
# One would guess: ProfilerOptions(host_tracer_level=0) records no events of the host, level 1 fewer than level 3, and
# python_tracer_level=1 adds the calls of Python functions, as the documentation of the class says.
#
# What happens: on a CPU the profile of the same program has the same events (but for one or two), with each level of
# each tracer; no Python function is in it.
#
# Why it matters: a recording cannot be made lighter, or richer by Python frames, this way: who needs Python lines has
# to record them by other means, and "recorded with the Python tracer" is no promise.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   default: 1960 events, Python function recorded: False
#   {'host_tracer_level': 0}: 1960 events, Python function recorded: False
#   {'host_tracer_level': 1}: 1960 events, Python function recorded: False
#   {'host_tracer_level': 3}: 1960 events, Python function recorded: False
#   {'python_tracer_level': 1}: 1960 events, Python function recorded: False
#   {'device_tracer_level': 0}: 1960 events, Python function recorded: False
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import glob

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

weights = tf.Variable(tf.random.normal([64, 64]))


@tf.function
def step(x):
    for _ in range(12):
        x = tf.tanh(tf.matmul(x, weights))
    return x


def a_python_function(x):
    return step(x).numpy()


def record(number, **levels):
    folder = f"profile_{number}"
    tf.profiler.experimental.start(folder, options=tf.profiler.experimental.ProfilerOptions(**levels))
    for _ in range(20):
        a_python_function(x)
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    names = [metadata.name for plane in space.planes for metadata in plane.event_metadata.values()]
    return (sum(len(line.events) for plane in space.planes for line in plane.lines),
            any("a_python_function" in name for name in names))


x = tf.random.normal([64, 64])
step(x)
settings = [{}, *[{"host_tracer_level": level} for level in (0, 1, 3)], {"python_tracer_level": 1},
            {"device_tracer_level": 0}]
seen = [record(number, **levels) for number, levels in enumerate(settings)]
for levels, (events, python) in zip(settings, seen):
    print(f"{levels or 'default'}: {events} events, Python function recorded: {python}")
counts = [events for events, _ in seen]
assert min(counts) > 500 and max(counts) < 1.05 * min(counts), counts
assert not any(python for _, python in seen)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
