#!/usr/bin/env bash
# Keras compiles a grouped convolution with XLA, also where jit_compile is False.
#
# One would guess: on a CPU, where model.jit_compile is False, no op of the model goes through XLA.
#
# What happens: a Conv2D with groups > 1 is wrapped in a function of its own with jit_compile=True (TensorFlow's CPU
# kernel cannot do it). It is in the traced graph and in the exported SavedModel as a call of `_conv_xla` with
# `_XlaMustCompile`, and XLA compiles it anew for each new batch size, while a request waits.
#
# Why it matters: a profile of such a model is half compiled: the convolution's time is in no Conv2D event, and a model
# served with changing batch sizes stalls at each new one. "No XLA" cannot be concluded from the model's settings.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   groups=1: jit_compile False, functions that must be compiled: 0
#   groups=4: jit_compile False, functions that must be compiled: 1
#   served batches of 1, 2, 3 and 3 rows: compiled 3 times
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import glob

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def model(groups):
    return keras.Sequential([keras.Input((16, 16, 32)), keras.layers.Conv2D(64, 3, groups=groups)])


def compiled_functions(model, path):
    model.compile("sgd", "mse")
    model.export(path, verbose=False)
    graph = tf.saved_model.load(path).signatures["serving_default"].graph.as_graph_def()
    names = [f.signature.name for f in graph.library.function if f.attr["_XlaMustCompile"].b]
    return model.jit_compile, [name for name in names if "_conv_xla" in name]


plain, grouped = compiled_functions(model(1), "plain"), compiled_functions(model(4), "grouped")
print(f"groups=1: jit_compile {plain[0]}, functions that must be compiled: {len(plain[1])}")
print(f"groups=4: jit_compile {grouped[0]}, functions that must be compiled: {len(grouped[1])}")
assert plain == (False, []) and grouped[0] is False and grouped[1], (plain, grouped)

loaded = tf.saved_model.load("grouped")
tf.profiler.experimental.start("profile")
for batch in (1, 2, 3, 3):
    loaded.serve(tf.ones([batch, 16, 16, 32]))
tf.profiler.experimental.stop()
(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
compilations = sum(
    plane.event_metadata[event.metadata_id].name.startswith("CpuCompiler::CompileCpuExecutable")
    for plane in space.planes
    for line in plane.lines
    for event in line.events
)
print(f"served batches of 1, 2, 3 and 3 rows: compiled {compilations} times")
assert compilations == 3, compilations
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
