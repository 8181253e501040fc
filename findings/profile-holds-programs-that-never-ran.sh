#!/usr/bin/env bash
# A profile of a function without XLA holds compiled programs (HLO) of functions that did not run while recording.
#
# One would guess: the plane /host:metadata describes what the recorded events refer to; no XLA in the recorded
# step, no HLO in the file.
#
# What happens: it holds the HLO module of every function that the process has compiled up to then. Tools that ask
# "is there HLO?" (XProf's list of tools does) take the recorded step for a compiled one.
#
# Why it matters: the presence of HLO says nothing about the step; only an event that names the module
# (hlo_module, program_id) ties a run to it. Shapes and costs read from the plane may be those of another model.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   HLO modules in the profile: ['a_inference_compiled_before_12']
#   events that name the compiled function: 0, the recorded one: 2
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


@tf.function(jit_compile=True)
def compiled_before(x):
    return tf.tanh(x @ x)


@tf.function
def recorded(x):
    return tf.sigmoid(x + x)


x = tf.random.normal([64, 64])
compiled_before(x), recorded(x)
tf.profiler.experimental.start("profile")
recorded(x).numpy()
tf.profiler.experimental.stop()

(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
space = xplane_pb2.XSpace.FromString(open(path, "rb").read())
programs, running = [], set()
for plane in space.planes:
    if plane.name == "/host:metadata":
        programs = [metadata.name for metadata in plane.event_metadata.values()]
    for line in plane.lines:
        running |= {plane.event_metadata[event.metadata_id].name.split("#")[0] for event in line.events}
print(f"HLO modules in the profile: {[name.split('__XlaMustCompile')[0] for name in programs]}")
print(f"events that name the compiled function: {sum('compiled_before' in name for name in running)},"
      f" the recorded one: {sum('recorded' in name for name in running)}")
assert len(programs) == 1 and "compiled_before" in programs[0], programs
assert not any("compiled_before" in name for name in running), running
assert any("recorded" in name for name in running), running
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
