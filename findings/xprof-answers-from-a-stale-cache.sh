#!/usr/bin/env bash
# XProf goes on showing the ops of a profile that has been replaced by another.
#
# One would guess: what is shown is what the file holds; a file written anew is read anew.
#
# What happens: the first look leaves a converted copy beside the profile (ALL_HOSTS.op_stats_v2.pb), and every later
# look at the ops is answered from it, without comparing time, size or content of the profile. The trace viewer reads
# the profile itself, so that two pages of one tool show two different programs.
#
# Why it matters: a comparison "before and after", recorded into the same folder, shows the old numbers twice; and a
# folder of profiles may hold files that are not the profile's own.
#
# TensorFlow 2.21.0, XProf 2.24.2.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   ops of the first profile: {'_MklMatMul'}, after it was replaced: {'_MklMatMul'}, of the replacement: {'_MklSoftmax'}
#   trace viewer shows Softmax: True; beside the profile: ['ALL_HOSTS.op_stats_v2.pb']
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'xprof==2.24.2'

cat > program.py <<'PROGRAM'
import glob
import json
import os
import shutil

import tensorflow as tf
from xprof.convert import raw_to_tool_data


def record(folder, op):
    function = tf.function(op)
    x = tf.random.normal([256, 256])
    function(x)
    tf.profiler.experimental.start(folder)
    for _ in range(5):
        function(x).numpy()
    tf.profiler.experimental.stop()
    (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
    return path


def ops(path):
    text, _ = raw_to_tool_data.xspace_to_tool_data([path], "framework_op_stats", {})
    table = json.loads(text)[0]
    position = [column["id"] for column in table["cols"]].index("type")
    return {row["c"][position]["v"] for row in table["rows"]} - {"IDLE"}


def viewer_shows(path, word):
    text, _ = raw_to_tool_data.xspace_to_tool_data([path], "trace_viewer", {})
    return word in str(text)


product = record("product", lambda x: tf.linalg.matmul(x, x))
softmax = record("softmax", lambda x: tf.nn.softmax(x))
before = ops(product)
shutil.copy(softmax, product)
after = ops(product)
print(f"ops of the first profile: {before}, after it was replaced: {after}, of the replacement: {ops(softmax)}")
print(f"trace viewer shows Softmax: {viewer_shows(product, 'Softmax')}; beside the profile: "
      f"{[name for name in os.listdir(os.path.dirname(product)) if not name.endswith('.xplane.pb')]}")
assert before == after != ops(softmax)
assert "MatMul" in str(after) and "Softmax" in str(ops(softmax)) and viewer_shows(product, "Softmax")
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
