#!/usr/bin/env bash
# XProf finds no step in what Keras' own TensorBoard callback records, and advises to use Keras.
#
# One would guess: the documented way to profile Keras (TensorBoard(profile_batch=...)) marks its steps so that the
# documented viewer shows their time.
#
# What happens: the callback marks each batch with a step number but without the `_r` that makes a mark a step root,
# so the overview has a step time of 0.0 ms, no rows, "No step time measured" and the guess "if you are not using
# Keras". The same model, marked with _r=1 by six lines of a callback, has steps (XProf drops first and last).
#
# Why it matters: the most common TensorFlow profile of all has no step for a tool that insists on `_r`. The mark
# "Profiled batch" with its step_num is in the file.
#
# TensorFlow 2.21.0, Keras 3.15.1, XProf 2.24.2, TensorBoard 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   TensorBoard callback: 0 steps, 'No step marker observed': True, marks in file: True
#   marked with _r=1:     18 steps, 'No step marker observed': False
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'xprof==2.24.2' 'tensorboard==2.21.0'

cat > program.py <<'PROGRAM'
import glob
import json

import keras
import numpy as np
import tensorflow as tf
from xprof.convert import raw_to_tool_data

x, y = np.ones((1280, 200), "float32"), np.ones((1280, 1), "float32")


class Marked(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        tf.profiler.experimental.start("marked")

    def on_train_batch_begin(self, batch, logs=None):
        self.mark = tf.profiler.experimental.Trace("step", step_num=batch, _r=1)
        self.mark.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        self.mark.__exit__(None, None, None)

    def on_train_end(self, logs=None):
        tf.profiler.experimental.stop()


def overview(folder, callback):
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=64, verbose=0)
    model.fit(x, y, batch_size=64, verbose=0, callbacks=[callback])
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    text, _ = raw_to_tool_data.xspace_to_tool_data([path], "overview_page", {})
    tables = [table for table in json.loads(text) if isinstance(table, dict)]
    (steps,) = [table for table in tables if "steptime_ms_average" in table.get("p", {})]
    return len(steps["rows"]), "No step marker observed" in str(text), open(path, "rb").read()


rows, warned, raw = overview("board", keras.callbacks.TensorBoard("board", profile_batch=(5, 15)))
marks = b"Profiled batch" in raw
print(f"TensorBoard callback: {rows} steps, 'No step marker observed': {warned}, marks in file: {marks}")
assert (rows, warned, marks) == (0, True, True)
rows, warned, _ = overview("marked", Marked())
print(f"marked with _r=1:     {rows} steps, 'No step marker observed': {warned}")
assert rows >= 15 and not warned
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
