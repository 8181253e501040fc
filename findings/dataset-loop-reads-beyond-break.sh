#!/usr/bin/env bash
# A loop over a dataset inside a tf.function, left with `break`, takes an element more than it uses.
#
# One would guess: `for x in dataset:` takes one element per round. What the loop did not ask for is still in the
# source (a generator, a queue, a socket) for the next reader.
#
# What happens: AutoGraph turns the loop into the pipeline Scan + TakeWhile + Reduce. The break becomes a flag that is
# looked at with the next element, so that one more element is taken, and the loop's body (the function of the Scan) is
# entered for it; a Prefetch that tf.data puts behind the TakeWhile may take more. The same loop over iter(dataset),
# and the eager loop, take what they use.
#
# Why it matters: the element is lost without a word; in a profile the body runs more often than there are steps, and
# steps counted by runs of the body or by elements of the source are too many.
#
# TensorFlow 2.21.0. inject_prefetch=False, so that the loop alone decides how much is taken.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   for x in dataset in a tf.function: 9 steps, 10 elements taken, body entered 10 times
#   for x in iter(dataset) in a tf.function: 9 steps, 9 elements taken
#   for x in dataset, eager: 9 steps, 9 elements taken
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import collections
import glob

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

LAST = 8
taken = []


def numbers():
    for number in range(64):
        taken.append(number)
        yield number


options = tf.data.Options()
options.experimental_optimization.inject_prefetch = False
dataset = tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec([], tf.int32)).with_options(options)


@tf.function
def loop(source):
    steps = 0
    for number in source:
        steps += 1
        if number >= LAST:
            break
    return steps


def eager_loop(source):
    for steps, number in enumerate(source, 1):
        if number >= LAST:
            return steps


def body_runs(folder):
    """How often tf.data entered the body of the loop."""
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
    names = collections.Counter(
        plane.event_metadata[event.metadata_id].name.split("#")[0]
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )
    return names["InstantiatedCapturedFunction::Run"]


loop(dataset)
taken.clear()
tf.profiler.experimental.start("profile")
steps = int(loop(dataset))
tf.profiler.experimental.stop()
in_pipeline = steps, len(taken), body_runs("profile")
taken.clear()
in_while = int(loop(iter(dataset))), len(taken)
taken.clear()
eager = eager_loop(dataset), len(taken)
print("for x in dataset in a tf.function: {} steps, {} elements taken, body entered {} times".format(*in_pipeline))
print("for x in iter(dataset) in a tf.function: {} steps, {} elements taken".format(*in_while))
print("for x in dataset, eager: {} steps, {} elements taken".format(*eager))
assert in_pipeline == (LAST + 1, LAST + 2, LAST + 2), in_pipeline
assert in_while == eager == (LAST + 1, LAST + 1), (in_while, eager)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
