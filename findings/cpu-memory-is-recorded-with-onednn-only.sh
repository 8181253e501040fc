#!/usr/bin/env bash
# Whether TensorFlow knows the memory of a CPU depends on oneDNN, a switch of numerics.
#
# One would guess: TF_ENABLE_ONEDNN_OPTS chooses between two kernels for an op; the allocator, get_memory_info and the
# memory events of a profile are there in either case, or in neither.
#
# What happens: the allocator that counts is oneDNN's. With TF_ENABLE_ONEDNN_OPTS=0 a profile has no memory event and
# get_memory_info("CPU:0") raises ValueError. With it, only buffers of 256 KiB and more appear.
#
# Why it matters: the variable's default depends on the processor, so that the memory page of one and the same program
# is full on one machine and empty on another, without a word; and an empty page does not mean that nothing was
# allocated. Who turns oneDNN off for reproducible numbers turns the memory profile off with it.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   oneDNN 1: allocations of 1.4 MB: 1, of 160 kB: 0; get_memory_info: known
#   oneDNN 0: allocations of 1.4 MB: 0, of 160 kB: 0; get_memory_info: ValueError: Allocator stats not available for device 'CPU:0'
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import glob
import os
import sys

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def allocations(side):
    function = tf.function(lambda x: tf.tanh(tf.matmul(x, x)))
    x = tf.ones([side, side])
    function(x)
    tf.profiler.experimental.start(f"profile{side}")
    function(x)
    tf.profiler.experimental.stop()
    (path,) = glob.glob(f"profile{side}/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    return sum(
        plane.event_metadata[event.metadata_id].name == "MemoryAllocation"
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )


large, small = allocations(600), allocations(200)
try:
    info = "known" if tf.config.experimental.get_memory_info("CPU:0")["peak"] > 0 else "zero"
except ValueError as error:
    info = f"ValueError: {error}"
onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"]
print(f"oneDNN {onednn}: allocations of 1.4 MB: {large}, of 160 kB: {small}; get_memory_info: {info}")
if onednn == "1":
    assert large >= 1 and small == 0 and info == "known", (large, small, info)
else:
    assert large == small == 0 and info.startswith("ValueError"), (large, small, info)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
for onednn in 1 0; do
  rm -rf profile*
  TF_ENABLE_ONEDNN_OPTS=$onednn venv/bin/python program.py
done
