#!/usr/bin/env bash
# OpenVINO computes tf.nn.local_response_normalization with a window that is too narrow, for TensorFlow's default too.
#
# One would guess: depth_radius=5 is a window of 11 channels, and an op with a rule of its own in the converter is
# converted as what it is.
#
# What happens: an even radius is right. An odd one becomes that of the radius below: 1 is no window at all, 5, the
# default of tf.nn.local_response_normalization, is 4. Nothing is said, and the differences are small enough to be
# taken for rounding or precision.
#
# Why it matters: the op is rare now, and is what the classic networks (AlexNet, GoogLeNet) and many ported ones hold.
# A comparison of a converted graph with the original by names and attributes finds nothing; only numbers do.
#
# TensorFlow 2.21.0, OpenVINO 2026.4.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   radius 1: a window of 3 channels in TensorFlow, 1 in OpenVINO
#   radius 2: a window of 5 channels in TensorFlow, 5 in OpenVINO
#   radius 3: a window of 7 channels in TensorFlow, 5 in OpenVINO
#   radius 4: a window of 9 channels in TensorFlow, 9 in OpenVINO
#   radius default: a window of 11 channels in TensorFlow, 9 in OpenVINO
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

x = np.ones((1, 4, 4, 32), "float32")


def window(result):
    """How many channels were summed for a channel in the middle: 1 / sqrt(1 + channels) is its value."""
    return round(float(result[0, 0, 0, 16]) ** -2 - 1)


def windows(**radius):
    serve = tf.function(
        lambda x: tf.nn.local_response_normalization(x, alpha=1.0, **radius),
        input_signature=[tf.TensorSpec(x.shape, tf.float32)],
    )
    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, "model", signatures=serve)
    compiled = ov.Core().compile_model(ov.convert_model("model"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return window(serve(x).numpy()), window(compiled([x])[0])


seen = {radius: windows(depth_radius=radius) for radius in (1, 2, 3, 4)} | {"default": windows()}
for radius, (ours, theirs) in seen.items():
    print(f"radius {radius}: a window of {ours} channels in TensorFlow, {theirs} in OpenVINO")
assert seen == {1: (3, 1), 2: (5, 5), 3: (7, 5), 4: (9, 9), "default": (11, 9)}, seen
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
