#!/usr/bin/env bash
# Whether Keras' train function has a fixed or an unknown batch size depends on the number of samples.
#
# One would guess: fit(x, y, batch_size=64) traces the step for batches of unknown size, or for 64 rows and once more
# for the remainder, the same way for each data set.
#
# What happens: 640 samples (divisible) give a step traced for (64, 16); then 1000 samples retrace it for (None, 16),
# once; after that neither 640 nor 100 samples retrace. Starting with 1000 samples there is one trace, with no
# static batch at all.
#
# Why it matters: shapes, and with them FLOPs and memory, are known or unknown by the length of the data; a retrace in
# the second fit has no cause that one sees in the program; with jit_compile it is one more compilation.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   fit with 640 samples traces [(64, 16)]; fit with 512 samples traces nothing; fit with 1000 samples traces [(None, 16)]; fit with 640 samples traces nothing; fit with 100 samples traces nothing
#   fit with 1000 samples traces [(None, 16)]; fit with 640 samples traces nothing
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import keras
import numpy as np


def traces(sample_counts):
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    shapes = []
    train_step = model.train_step

    def watched(data):
        shapes.append(tuple(data[0].shape))
        return train_step(data)

    model.train_step = watched
    new_shapes = []
    for samples in sample_counts:
        before = len(shapes)
        model.fit(np.ones((samples, 16), "float32"), np.ones((samples, 1), "float32"), batch_size=64, verbose=0)
        new_shapes.append(shapes[before:])
    return new_shapes


for counts, expected in (
    ((640, 512, 1000, 640, 100), [[(64, 16)], [], [(None, 16)], [], []]),
    ((1000, 640), [[(None, 16)], []]),
):
    seen = traces(counts)
    print("; ".join(f"fit with {count} samples traces {shapes or 'nothing'}" for count, shapes in zip(counts, seen)))
    assert seen == expected, seen
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
