#!/usr/bin/env bash
# Session.run spends most of its time converting a feed, and no event of the profile covers it.
#
# One would guess: the event SessionRun lasts as long as the call of Session.run; where a call is slow, some event is.
#
# What happens: feeds are converted in Python and copied to C order before SessionRun begins, outside of every event.
# Feeding the same numbers as a transposed view of an array costs several times the run itself, and the profile
# shows a gap on the line of the caller, nothing else.
#
# Why it matters: the step by SessionRun and the step by the clock differ by a factor that depends on the layout and
# dtype of the user's arrays; the difference has to be reported as such, not as "idle".
#
# TensorFlow 2.21.0 (tf.compat.v1).
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   fed in C order: call 1.46 ms by the clock, SessionRun 0.10 ms, longest event 0.10 ms
#   fed transposed: call 136.11 ms by the clock, SessionRun 0.19 ms, longest event 0.19 ms
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import glob
import time

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

with tf.Graph().as_default() as graph:
    fed = tf.compat.v1.placeholder(tf.float32, [4096, 1024])
    first = fed[0, 0] + 1.0
session = tf.compat.v1.Session(graph=graph)


def measure(folder, array):
    session.run(first, {fed: array})
    clock_ms = []
    tf.profiler.experimental.start(folder)
    for _ in range(15):
        start = time.perf_counter()
        session.run(first, {fed: array})
        clock_ms.append((time.perf_counter() - start) * 1e3)
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    longest = {}
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name.split("#")[0]
                longest.setdefault(name, []).append(event.duration_ps / 1e9)
    assert len(longest["SessionRun"]) == 15
    return min(clock_ms), min(longest["SessionRun"]), max(min(values) for values in longest.values())


array = np.ones((4096, 1024), "float32")
contiguous = measure("contiguous", array)
transposed = measure("transposed", np.ascontiguousarray(array.T).T)
for name, (clock, run, event) in (("in C order", contiguous), ("transposed", transposed)):
    print(f"fed {name}: call {clock:.2f} ms by the clock, SessionRun {run:.2f} ms, longest event {event:.2f} ms")
assert transposed[0] > 2 * transposed[2], transposed
assert transposed[0] > 3 * contiguous[0], (transposed, contiguous)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
