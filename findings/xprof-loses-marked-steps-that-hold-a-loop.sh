#!/usr/bin/env bash
# XProf finds no step in a correctly marked program if the step holds a While loop.
#
# One would guess: a span marked as a step (Trace with step_num and _r=1) is a step, whatever runs inside.
#
# What happens: the same layer, unrolled, gives steps; as a While loop (what LSTM, GRU, tf.map_fn, tf.scan become) the
# overview has no step, a step time of 0.0 ms and the warning "No step marker observed". The marks are in the file.
#
# Why it matters: for recurrent models and loops over time XProf's step time, and all that is relative to it, is
# missing, and its message names causes that do not apply. The executor's events of a loop carry other ids than
# those of the step around it; the mark's own span is enough to find the step.
#
# TensorFlow 2.21.0, Keras 3.15.1, XProf 2.24.2.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   LSTM unrolled:       18 steps of 20, 'No step marker observed': False
#   LSTM as While loop:  0 steps of 20, 'No step marker observed': True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'xprof==2.24.2'

cat > program.py <<'PROGRAM'
import glob
import json

import keras
import tensorflow as tf
from xprof.convert import raw_to_tool_data

STEPS = 20
x = tf.random.normal([64, 10, 8])


def overview(unroll):
    layer = keras.layers.LSTM(8, unroll=unroll)
    function = tf.function(lambda x: layer(x))
    function(x)
    folder = f"unroll_{unroll}"
    tf.profiler.experimental.start(folder)
    for number in range(STEPS):
        with tf.profiler.experimental.Trace("step", step_num=number, _r=1):
            function(x).numpy()
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    text, _ = raw_to_tool_data.xspace_to_tool_data([path], "overview_page", {})
    tables = [table for table in json.loads(text) if isinstance(table, dict)]
    (steps,) = [table for table in tables if "steptime_ms_average" in table.get("p", {})]
    return len(steps["rows"]), "No step marker observed" in str(text)


unrolled, loop = overview(True), overview(False)
print("LSTM unrolled:       {} steps of {}, 'No step marker observed': {}".format(unrolled[0], STEPS, unrolled[1]))
print("LSTM as While loop:  {} steps of {}, 'No step marker observed': {}".format(loop[0], STEPS, loop[1]))
assert unrolled[0] >= STEPS - 3 and not unrolled[1], unrolled
assert loop == (0, True), loop
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
