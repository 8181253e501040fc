#!/usr/bin/env bash
# An op that has run some hundred times and is cheap is no longer recorded in a profile.
#
# One would guess: what a profile shows of a function depends on the function and on the profiler's options; warming up
# before one records, as everybody advises, makes the times steadier and leaves the events what they are.
#
# What happens: the executor keeps a running estimate of each kernel's cost, which begins high. When it has fallen under
# a threshold of a few microseconds, the kernel's event gets a level that is not recorded. The same five calls of a
# function of 100 small ops give 500 events when they are the first calls, and none after 300 others.
#
# Why it matters: the counts of ops in a profile are no counts. A recurrent step made of small ops is an empty gap in a
# warm profile, and an op that is missing did run. Two profiles of one program differ by how long it ran before.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   five calls of a function of 100 ops: 500 events of ops
#   the same after 300 calls: 0 events of ops
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import glob
from collections import Counter

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


@tf.function
def function(x):
    for _ in range(50):
        x = tf.tanh(x) * 1.5
    return x


def recorded(folder):
    tf.profiler.experimental.start(folder)
    for _ in range(5):
        function(x)
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    ops = Counter(
        plane.event_metadata[event.metadata_id].name.rpartition(":")[2]
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )
    return ops["Tanh"] + ops["Mul"]


x = tf.ones([4])
function(x)
cold = recorded("cold")
for _ in range(300):
    function(x)
warm = recorded("warm")
print(f"five calls of a function of 100 ops: {cold} events of ops")
print(f"the same after 300 calls: {warm} events of ops")
assert cold == 500 and warm < 50, (cold, warm)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
