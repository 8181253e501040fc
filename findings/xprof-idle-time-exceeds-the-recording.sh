#!/usr/bin/env bash
# XProf's IDLE row is longer than the recording.
#
# One would guess: IDLE is the part of the recorded time in which nothing ran, so at most all of it, and the rest of the
# table adds up to the busy part.
#
# What happens: IDLE is a sum over threads: each thread that ran any op counts from its first to its last op, and
# what lies between its ops is idle. Eight executor threads of which a few are needed give several times the length of
# the recording, at the top of the table of ops with its share of "host time".
#
# Why it matters: shares of that table are shares of thread time, not of the step; "37 % idle" says nothing about the
# step, and tables with the IDLE row must not be compared between machines with different thread pools.
#
# TensorFlow 2.21.0, XProf 2.24.2; eight inter-op threads.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   recorded 1013 ms; IDLE 4446 ms (4.4 times), rank 1, share 58% of 'host time'
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'xprof==2.24.2'

cat > program.py <<'PROGRAM'
import glob
import json
import time

import tensorflow as tf
from xprof.convert import raw_to_tool_data

tf.config.threading.set_inter_op_parallelism_threads(8)
weights = tf.random.normal([400, 400])


@tf.function
def step(x):
    branches = [x + float(number) for number in range(16)]
    for _ in range(4):
        branches = [tf.tanh(tf.matmul(branch, weights)) for branch in branches]
    return tf.add_n(branches)


x = tf.random.normal([400, 400])
step(x)
tf.profiler.experimental.start("profile")
start = time.perf_counter()
for _ in range(10):
    step(x).numpy()
    time.sleep(0.05)
recorded_ms = (time.perf_counter() - start) * 1e3
tf.profiler.experimental.stop()

(path,) = glob.glob("profile/**/*.xplane.pb", recursive=True)
text, _ = raw_to_tool_data.xspace_to_tool_data([path], "framework_op_stats", {})
table = json.loads(text)[0]
names = [column["id"] for column in table["cols"]]
rows = [dict(zip(names, [cell["v"] for cell in row["c"]])) for row in table["rows"]]
(idle,) = [row for row in rows if row["type"] == "IDLE"]
ratio = idle["total_time"] / 1e3 / recorded_ms
print(f"recorded {recorded_ms:.0f} ms; IDLE {idle['total_time'] / 1e3:.0f} ms ({ratio:.1f} times),"
      f" rank {idle['rank']:.0f}, share {idle['host_total_self_time_percent']:.0%} of 'host time'")
assert ratio > 1.3, ratio
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
