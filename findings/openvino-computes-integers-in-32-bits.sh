#!/usr/bin/env bash
# OpenVINO on a CPU computes int64 in 32 bits, and small integers without wrapping, in silence.
#
# One would guess: an int64 model that converts, whose inputs and outputs are declared int64, computes with int64; and
# uint8 arithmetic wraps as it does in TensorFlow and NumPy.
#
# What happens: the CPU device converts int64 to int32. A time in milliseconds divided by 1000 is a negative number, the
# day of the week made of it is another day, and the output still says int64. uint8 and int8 saturate: 100 + 200 is
# 255, in TensorFlow 44.
#
# Why it matters: times, ids and hashes are int64 in nearly every TensorFlow graph with features; the converted model
# passes each test with small numbers. A comparison of two runtimes must feed integers above 2**31.
#
# TensorFlow 2.21.0, OpenVINO 2026.4.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   seconds of [1700000000]: TensorFlow [1700000], OpenVINO [1700000] (int64)
#   seconds of [1700000000000]: TensorFlow [1700000000], OpenVINO [-807050] (int64)
#   weekday of [1700000000000]: TensorFlow [5], OpenVINO [4] (int64)
#   add_200 of [3]: TensorFlow [203], OpenVINO [203] (uint8)
#   add_200 of [100]: TensorFlow [44], OpenVINO [255] (uint8)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'openvino==2026.4.1'

cat > program.py <<'PROGRAM'
import numpy as np
import openvino as ov
import tensorflow as tf


def both(name, function, x):
    serve = tf.function(function, input_signature=[tf.TensorSpec([None], x.dtype)])
    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, name, signatures=serve)
    compiled = ov.Core().compile_model(ov.convert_model(name), "CPU")
    ours, theirs = serve(x).numpy(), compiled([x])[0]
    print(f"{name} of {x.tolist()}: TensorFlow {ours.tolist()}, OpenVINO {theirs.tolist()} ({theirs.dtype})")
    assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype)
    return ours.tolist() == theirs.tolist()


small, time = np.array([1700000000], "int64"), np.array([1700000000000], "int64")
assert both("seconds", lambda x: x // 1000, small)
assert not both("seconds", lambda x: x // 1000, time)
assert not both("weekday", lambda x: x // 86400000 % 7, time)
assert both("add_200", lambda x: x + np.uint8(200), np.array([3], "uint8"))
assert not both("add_200", lambda x: x + np.uint8(200), np.array([100], "uint8"))
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
