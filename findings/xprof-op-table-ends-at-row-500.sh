#!/usr/bin/env bash
# XProf's table of operations ends after 500 rows, and says nothing about the others.
#
# One would guess: the table has a row for every op of the profile, and the sum over the rows of a type is the time and
# the number of that type.
#
# What happens: of 1400 ops 499 have a row (and IDLE). The rows are the longest ones, so that a type with many cheap ops
# is all but missing: 700 Mul run in each step, and a handful is in the table. There is no note and no row for the
# rest; only the cumulative percentage, which ends below 1, tells.
#
# Why it matters: an unrolled recurrent model, or an optimizer with a dozen ops for each variable, has thousands of
# small ops, and their sum is what one looks for. Ranking by type in that table, or exporting it, underrates just those.
#
# TensorFlow 2.21.0, XProf 2.24.2.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   ops with events in the profile: 700 MatMul, 700 Mul
#   rows of the table: 500, of them 492 MatMul, 7 Mul
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'xprof==2.24.2'

cat > program.py <<'PROGRAM'
import glob
import json
from collections import Counter

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from xprof.convert import raw_to_tool_data


@tf.function
def function(x):
    for _ in range(700):
        x = tf.linalg.matmul(x, x) * 0.01
    return x


x = tf.ones([40, 40])
function(x)
tf.profiler.experimental.start("profile")
for step in range(3):
    with tf.profiler.experimental.Trace("train", step_num=step, _r=1):
        function(x)
tf.profiler.experimental.stop()
paths = glob.glob("profile/**/*.xplane.pb", recursive=True)

space = xplane_pb2.XSpace.FromString(open(paths[0], "rb").read())
names = {
    plane.event_metadata[event.metadata_id].name for plane in space.planes for line in plane.lines for event in line.events
}
ran = Counter("Mul" if name.endswith(":Mul") else "MatMul" for name in names if name.endswith((":Mul", "MatMul")))

data, _ = raw_to_tool_data.xspace_to_tool_data(paths, "framework_op_stats", {})
table = json.loads(data)[0]
columns = [column["id"] for column in table["cols"]]
rows = [dict(zip(columns, [cell["v"] for cell in row["c"]])) for row in table["rows"]]
shown = Counter("MatMul" if row["type"].endswith("MatMul") else row["type"] for row in rows)
print(f"ops with events in the profile: {ran['MatMul']} MatMul, {ran['Mul']} Mul")
print(f"rows of the table: {len(rows)}, of them {shown['MatMul']} MatMul, {shown['Mul']} Mul")
assert ran == {"MatMul": 700, "Mul": 700}, ran
assert len(rows) == 500, len(rows)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
