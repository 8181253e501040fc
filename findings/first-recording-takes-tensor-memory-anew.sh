#!/usr/bin/env bash
# The first recording of a process makes tf.data functions take the memory of their tensors anew: half as slow again.
#
# One would guess: a recording costs an event per op, some 100 bytes and a microsecond, and the first one no more than a
# later one.
#
# What happens: while the first profile of a process is made, a map of 36 products of 150 kB each has 45,000 to 90,000
# page faults in 30 batches, 180 to 360 MB, though its events are no more than a few MB. Without a recording it has next
# to none, and in the second one of the same length half of them or fewer. What the recording holds lies where freed
# tensors would have been taken from, so that the system is asked for new pages. A batch takes up to 1.7 times
# as long, where a fault takes two microseconds.
#
# Why it matters: everybody profiles once. The pipeline in that profile is slower than it is, and a step that waits for
# it waits longer; timed in the same process without the profiler it does not.
#
# TensorFlow 2.21.0 on the allocator of glibc 2.36; AVX512 and oneDNN on or off.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   before: 1 page faults, 20.6 ms a batch
#   first recording: 85485 page faults, 31.0 ms a batch
#   between: 0 page faults, 20.9 ms a batch
#   second: 2201 page faults, 21.7 ms a batch
# and with TF_ENABLE_ONEDNN_OPTS=0
#   before: 2359 page faults, 11.4 ms a batch
#   first recording: 46804 page faults, 18.3 ms a batch
#   between: 249 page faults, 10.8 ms a batch
#   second: 1658 page faults, 15.3 ms a batch
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import resource
import time

import tensorflow as tf

SIDE, PRODUCTS, BATCH = 192, 18, 8


def augment(row):
    for _ in range(PRODUCTS):
        row = tf.tanh(0.07 * row @ row)
    return row


rows = tf.random.stateless_normal([BATCH * 30, SIDE, SIDE], (7, 7))
elements = iter(tf.data.Dataset.from_tensor_slices(rows).repeat().map(augment).batch(BATCH))


def taken(count=30):
    faults, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(count):
        next(elements)
    seconds = time.perf_counter() - begun
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults, 1000 * seconds / count


def recorded():
    tf.profiler.experimental.start("profile")
    found = taken()
    tf.profiler.experimental.stop(save=False)
    return found


taken()
before, first, between, second = taken(), recorded(), taken(), recorded()
for name, (faults, ms) in (("before", before), ("first recording", first), ("between", between), ("second", second)):
    print(f"{name}: {faults} page faults, {ms:.1f} ms a batch")
assert first[0] > 20_000, first
assert first[0] > 10 * max(before[0], between[0]), (before, first, between)
assert first[0] > second[0], (first, second)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py 2> /dev/null
