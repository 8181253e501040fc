#!/usr/bin/env bash
# Converted to TensorFlow Lite, softplus of 89 is infinite, and log_sigmoid of -89.
#
# One would guess: the converter keeps what makes softplus a function of its own: that it does not overflow where
# log(1 + exp(x)) does.
#
# What happens: it becomes EXP, ADD, LOG. Above 88.7 the result is inf, where TensorFlow gives x; log_sigmoid becomes
# the same and gives -inf. float32, no quantization, no warning.
#
# Why it matters: softplus is the usual last op for a scale or a variance, log_sigmoid for a log-likelihood; one large
# logit makes a device's answer infinite, and NaN two ops later. In a graph the op "decomposed" looks like a mere
# matter of speed.
#
# TensorFlow 2.21.0 (its own converter and interpreter).
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   softplus of [1.0, 50.0, 88.0, 89.0, 200.0]: TensorFlow [88.0, 89.0, 200.0], Lite [88.0, inf, inf] at the end
#   log_sigmoid of [-1.0, -50.0, -88.0, -89.0, -200.0]: TensorFlow [-88.0, -89.0, -200.0], Lite [-88.0, -inf, -inf] at the end
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


x = np.array([1, 50, 88, 89, 200], "float32")
for function, values in ((tf.nn.softplus, x), (tf.math.log_sigmoid, -x)):
    ours, theirs = function(values).numpy(), converted(function, values)
    print(f"{function.__name__} of {values.tolist()}: TensorFlow {ours[2:].tolist()}, Lite {theirs[2:].tolist()} at the end")
    assert np.allclose(ours[:3], theirs[:3], rtol=1e-5), (ours, theirs)
    assert np.isfinite(ours).all() and np.isinf(theirs[3:]).all(), (ours, theirs)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
