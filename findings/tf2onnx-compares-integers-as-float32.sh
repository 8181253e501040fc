#!/usr/bin/env bash
# tf2onnx compares integers as float32 for > and <, and as integers for >=, <= and ==.
#
# One would guess: a comparison of two integer tensors is exact, and the six comparisons go one way.
#
# What happens: > and < cast both operands to float32 first (ONNX' first versions of these ops took floats only), at
# opset 18 as well: integers above 2**24 that differ in their last digits are neither greater nor less. >=, <= and ==
# compare the integers. So for x = 16777217 and y = 16777216, x >= y, not x == y, and still not x > y.
#
# Why it matters: ids, hashes, timestamps in seconds and sizes in bytes are above 2**24; filters by time
# and merges of sorted ids are off by some. The Casts are also ops that the program does not have.
#
# TensorFlow 2.21.0, tf2onnx 1.17.0 (opset 18), ONNX Runtime 1.32.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   x = 1764374400 (a time in seconds), y = x - 1
#   x > y:  TensorFlow True, ONNX False by ['Cast', 'Cast', 'Greater']
#   y < x:  TensorFlow True, ONNX False by ['Cast', 'Cast', 'Less']
#   x >= y: TensorFlow True, ONNX True by ['GreaterOrEqual']
#   y <= x: TensorFlow True, ONNX True by ['LessOrEqual']
#   x == y: TensorFlow False, ONNX False by ['Equal']
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'tf2onnx==1.17.0' 'onnx==1.23.2' 'onnxruntime==1.32.0'

cat > program.py <<'PROGRAM'
import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx


def converted(function, *arrays):
    """Return what TensorFlow and ONNX Runtime answer, and the ops of the converted graph."""
    specs = [tf.TensorSpec(array.shape, array.dtype, name=f"x{at}") for at, array in enumerate(arrays)]
    model, _ = tf2onnx.convert.from_function(tf.function(function, input_signature=specs), specs, opset=18)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    answer = session.run(None, dict(zip([one.name for one in session.get_inputs()], arrays)))[0]
    ops = [op.op_type for op in model.graph.node]
    return function(*map(tf.constant, arrays)).numpy().tolist(), answer.tolist(), ops


later, earlier = np.int64(1764374400), np.int64(1764374399)
print(f"x = {later} (a time in seconds), y = x - 1")
answers = {}
for words, function, arguments in (
    ("x > y", tf.greater, (later, earlier)),
    ("y < x", tf.less, (earlier, later)),
    ("x >= y", tf.greater_equal, (later, earlier)),
    ("y <= x", tf.less_equal, (earlier, later)),
    ("x == y", tf.equal, (later, earlier)),
):
    by_tensorflow, by_onnx, ops = converted(lambda a, b: function(a, b), *map(np.asarray, arguments))
    answers[words] = (by_tensorflow, by_onnx)
    print(f"{words + ':':7} TensorFlow {by_tensorflow}, ONNX {by_onnx} by {ops}")
assert answers["x > y"] == answers["y < x"] == (True, False), answers
assert answers["x >= y"] == answers["y <= x"] == (True, True), answers
assert answers["x == y"] == (False, False), answers
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
