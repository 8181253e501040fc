#!/usr/bin/env bash
# tf2onnx turns the floor division of integers into one that rounds to zero, and the remainder with it.
#
# One would guess: FloorDiv and FloorMod keep their floor, as their names say; for floats the converter writes the
# Floor, so for integers it does as well.
#
# What happens: for integers, FloorDiv becomes ONNX' Div, which rounds to zero, and x % y becomes x - y * Div(x, y). All
# results with operands of different sign and a remainder are off: -7 // 2 is -3, -1 % 24 is -1, and the usual
# ceil division -(-n // 4) rounds down. Floats are right.
#
# Why it matters: indices are computed with // and %: an hour before midnight is -1, which a Gather takes as "the
# last", and a number of blocks is one too small. Tests with positive numbers pass.
#
# TensorFlow 2.21.0, tf2onnx 1.17.0 (opset 18), ONNX Runtime 1.32.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   x // 2:       TensorFlow [-4, 3], ONNX [-3, 3] by ['Div']
#   x % 24:       TensorFlow [23, 1], ONNX [-1, 1] by ['Div', 'Mul', 'Sub']
#   -(-n // 4):   TensorFlow [2, 2, 1], ONNX [1, 2, 0] by ['Neg', 'Div', 'Neg']
#   x // 2.0:     TensorFlow [-4.0, 3.0], ONNX [-4.0, 3.0] by ['Div', 'Floor']
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


def integers(*values):
    return np.array(values, np.int32)


division = converted(lambda x: x // 2, integers(-7, 7))
remainder = converted(lambda x: x % 24, integers(-1, 25))
ceiling = converted(lambda n: -(-n // 4), integers(5, 8, 1))
floats = converted(lambda x: x // 2.0, np.array([-7, 7], np.float32))
print("x // 2:       TensorFlow {}, ONNX {} by {}".format(*division))
print("x % 24:       TensorFlow {}, ONNX {} by {}".format(*remainder))
print("-(-n // 4):   TensorFlow {}, ONNX {} by {}".format(*ceiling))
print("x // 2.0:     TensorFlow {}, ONNX {} by {}".format(*floats))
assert division[:2] == ([-4, 3], [-3, 3]), division
assert remainder[:2] == ([23, 1], [-1, 1]), remainder
assert ceiling[:2] == ([2, 2, 1], [1, 2, 0]), ceiling
assert floats[0] == floats[1] == [-4.0, 3.0], floats
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
