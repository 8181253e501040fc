#!/usr/bin/env bash
# `for x in dataset` inside a tf.function runs its ops on one thread each; `for x in iter(dataset)` on all.
#
# One would guess: the two spellings are the same loop, and a matrix product uses all cores in both.
#
# What happens: the first is turned into a tf.data pipeline (Scan or Reduce) whose function is the body of the
# loop. tf.data gives the functions of its pipelines an intra-op parallelism of 1, so each kernel is computed by
# one thread. `iter(dataset)` gives an ordinary While loop. threading.max_intra_op_parallelism = 0 in the
# dataset's options gives the first form its threads back.
#
# Why it matters: a training loop may be many times slower than its model, no op is at fault, and no roofline of
# the machine applies to it. The profile shows it: no work on the lines of the Eigen pool.
#
# TensorFlow 2.21.0, TF_ENABLE_ONEDNN_OPTS=0 (the Eigen kernels then split their work visibly); two or more cores.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   for x in dataset:                       0 events on the Eigen pool
#   for x in iter(dataset):                 1810
#   dataset with max_intra_op_parallelism=0: 1803
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

BATCHES = 20
weights = tf.random.normal([512, 512])
batches = tf.data.Dataset.from_tensors(tf.random.normal([1024, 512])).repeat(BATCHES)
options = tf.data.Options()
options.threading.max_intra_op_parallelism = 0


@tf.function
def train(batches):
    total = 0.0
    for batch in batches:
        total += tf.reduce_sum(tf.tanh(tf.matmul(batch, weights)))
    return total


def pieces_on_the_pool(argument, folder):
    """Pieces of kernels that threads of the Eigen pool computed."""
    train(argument())
    tf.profiler.experimental.start(folder)
    train(argument()).numpy()
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    return sum(len(line.events) for plane in space.planes for line in plane.lines if "Eigen" in line.name)


in_pipeline = pieces_on_the_pool(lambda: batches, "a")
in_while = pieces_on_the_pool(lambda: iter(batches), "b")
freed = pieces_on_the_pool(lambda: batches.with_options(options), "c")
print(f"for x in dataset:                       {in_pipeline} events on the Eigen pool")
print(f"for x in iter(dataset):                 {in_while}")
print(f"dataset with max_intra_op_parallelism=0: {freed}")
assert in_pipeline == 0, in_pipeline
assert in_while >= 5 * BATCHES and freed >= 5 * BATCHES, (in_while, freed)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
export TF_ENABLE_ONEDNN_OPTS=0
venv/bin/python program.py
