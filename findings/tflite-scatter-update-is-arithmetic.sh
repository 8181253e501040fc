#!/usr/bin/env bash
# Converted to TensorFlow Lite, tensor_scatter_nd_update multiplies and adds, and does not replace.
#
# One would guess: an update puts the new value in the place of the old one, whatever the old one was; the same place
# written twice with the same value holds that value.
#
# What happens: the converter writes x * (1 - scatter(ones)) + scatter(updates). A place that is named twice with the
# value 5 gets x * (1 - 2) + 10, that is neither the old value nor the new one; a place that held inf or NaN becomes
# NaN instead of being repaired. No warning.
#
# Why it matters: updates with padded indices (the same row again, with the same value) are deterministic in TensorFlow
# and usual; replacing the infinite scores of a mask is another use. Four ops over the whole tensor stand where one was
# that touches a few rows, as well.
#
# TensorFlow 2.21.0 (its own converter and interpreter).
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   [1, 2, 3], place 0 becomes 5: TensorFlow [5.0, 2.0, 3.0], Lite [5.0, 2.0, 3.0]
#   [1, 2, 3], place 0 becomes 5, twice: TensorFlow [5.0, 2.0, 3.0], Lite [9.0, 2.0, 3.0]
#   [inf, 2, 3], place 0 becomes 5: TensorFlow [5.0, 2.0, 3.0], Lite [nan, 2.0, 3.0]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import numpy as np
import tensorflow as tf


def converted(function, x):
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(x.shape))
    model = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert()
    interpreter = tf.lite.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def update(*indices):
    return lambda x: tf.tensor_scatter_nd_update(x, [[index] for index in indices], [5.0] * len(indices))


cases = {
    "[1, 2, 3], place 0 becomes 5": (update(0), [1, 2, 3], True),
    "[1, 2, 3], place 0 becomes 5, twice": (update(0, 0), [1, 2, 3], False),
    "[inf, 2, 3], place 0 becomes 5": (update(0), [np.inf, 2, 3], False),
}
for name, (function, values, equal) in cases.items():
    x = np.array(values, "float32")
    ours, theirs = function(x).numpy(), converted(function, x)
    print(f"{name}: TensorFlow {ours.tolist()}, Lite {theirs.tolist()}")
    assert ours.tolist() == [5, 2, 3] and (theirs.tolist() == [5, 2, 3]) is equal, (name, ours, theirs)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
