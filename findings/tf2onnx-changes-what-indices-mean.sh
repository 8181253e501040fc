#!/usr/bin/env bash
# tf2onnx changes what equal and negative indices mean: scatter_nd no longer adds, one_hot(-1) is the last class.
#
# One would guess: ops on indices keep TensorFlow's rules (values at equal indices are added; an index of -1 stands
# for nothing and gives zeros), as ONNX' ScatterND has reduction="add" and the converter uses it for
# tensor_scatter_nd_add.
#
# What happens: tf.scatter_nd becomes a ScatterND without reduction, and the last of the values at an index wins
# (TensorFlow: their sum). tf.one_hot becomes OneHot, which counts -1 from the end: a label for padding is the last
# class. unsorted_segment_sum drops ids of -1 in TensorFlow and adds them to the last segment after conversion.
#
# Why it matters: sums by index, such as histograms and the gradient of gather_nd, are scatter_nd; -1 is a usual
# label for "ignore". All results have the right shape, and those with distinct indices from 0 on agree.
#
# TensorFlow 2.21.0, tf2onnx 1.17.0 (opset 18), ONNX Runtime 1.32.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   scatter_nd at 0, 0, 1:            TensorFlow [3.0, 3.0, 0.0], ONNX [2.0, 3.0, 0.0]
#   tensor_scatter_nd_add at 0, 0, 1: TensorFlow [3.0, 3.0, 0.0], ONNX [3.0, 3.0, 0.0]
#   one_hot of 0, -1: TensorFlow [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], ONNX [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
#   segment sums of 0, -1, 1:         TensorFlow [1.0, 3.0, 0.0], ONNX [1.0, 3.0, 2.0]
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


values = np.array([1, 2, 3], np.float32)
scattered = converted(lambda x, at: tf.scatter_nd(at[:, None], x, [3]), values, integers(0, 0, 1))
added = converted(
    lambda x, at: tf.tensor_scatter_nd_add(tf.zeros([3]), at[:, None], x), values, integers(0, 0, 1)
)
one_hot = converted(lambda at: tf.one_hot(at, 3), integers(0, -1))
segments = converted(lambda x, at: tf.math.unsorted_segment_sum(x, at, 3), values, integers(0, -1, 1))
print("scatter_nd at 0, 0, 1:            TensorFlow {}, ONNX {}".format(*scattered))
print("tensor_scatter_nd_add at 0, 0, 1: TensorFlow {}, ONNX {}".format(*added))
print("one_hot of 0, -1: TensorFlow {}, ONNX {}".format(*one_hot))
print("segment sums of 0, -1, 1:         TensorFlow {}, ONNX {}".format(*segments))
assert scattered[0] == [3, 3, 0] and scattered[1] in ([1, 3, 0], [2, 3, 0]), scattered
assert added[0] == added[1] == [3, 3, 0], added
assert one_hot[0][1] == [0, 0, 0] and one_hot[1][1] == [0, 0, 1], one_hot
assert segments[:2] == ([1, 3, 0], [1, 3, 2]), segments
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
