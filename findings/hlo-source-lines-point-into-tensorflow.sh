#!/usr/bin/env bash
# The source lines in the HLO of a compiled tf.function are all one line of TensorFlow's own ops.py.
#
# One would guess: source_file and source_line of an HLO instruction name the line of the program that made the op;
# for JAX they do, and tools show them as such.
#
# What happens: the innermost frame of a traced op is the line of framework/ops.py at which every op is built, and
# this frame is what XLA is given. All instructions that have a source have the same one. op_name is right.
#
# Why it matters: a table of kernels by source line has one row. The user's line must be taken from the traceback
# of the traced op (here the frames are there), joined over op_name.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   hlo: 10 instructions with a source, distinct: [('python/framework/ops.py', '1221')]
#   optimized_hlo: 7 instructions with a source, distinct: [('python/framework/ops.py', '1221')]
#   frames of the traced MatMul: the user's file is among them: True, innermost: ops.py
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import re

import tensorflow as tf


@tf.function(jit_compile=True)
def step(x):
    y = tf.matmul(x, x)
    z = tf.nn.softmax(y)
    return tf.reduce_sum(z * y)


x = tf.ones([8, 8])
for stage in ("hlo", "optimized_hlo"):
    text = step.experimental_get_compiler_ir(x)(stage=stage)
    sources = re.findall(r'source_file="([^"]*)" source_line=(\d+)', text)
    distinct = {("/".join(file.split("/")[-3:]), line) for file, line in sources}
    print(f"{stage}: {len(sources)} instructions with a source, distinct: {sorted(distinct)}")
    assert len(sources) >= 3 and len(distinct) == 1, distinct
    assert next(iter(distinct))[0] == "python/framework/ops.py", distinct

graph = step.get_concrete_function(x).graph
(matmul,) = [op for op in graph.get_operations() if op.type == "MatMul"]
frames = [frame.filename.split("/")[-1] for frame in matmul.traceback]
print(f"frames of the traced MatMul: the user's file is among them: {'program.py' in frames}, innermost: {frames[-1]}")
assert "program.py" in frames and frames[-1] == "ops.py"
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
