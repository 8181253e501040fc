#!/usr/bin/env bash
# tf2onnx writes tf.where as a sum of products: the branch that is not taken reaches the result.
#
# One would guess: tf.where becomes ONNX' Where, which has existed since opset 9; a guard against log(0) or 1 / 0
# survives the conversion.
#
# What happens: where(c, x, y) is converted to cast(c) * x + cast(not c) * y, at opset 18 as well. 0 * inf is NaN, so
# the element that the guard protects is NaN: log(0), and 1 / 0 after the customary where(y == 0, 0, x / y). Its source
# says that Mul and Add are faster than Where in ONNX Runtime; Where is written if a branch is a constant that holds inf
# or NaN, or the condition is is_nan or is_inf. Finite values agree, no warning is given.
#
# Why it matters: tests with ordinary random inputs pass. The branches are arithmetic in the converted graph: six ops
# for one, and no selection any more for whoever reads it.
#
# TensorFlow 2.21.0, tf2onnx 1.17.0 (opset 18), ONNX Runtime 1.32.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   guarded log:   TensorFlow [0.0, 0.0], ONNX [nan, 0.0] by ['Log', 'Greater', 'Not', 'Cast', 'Mul', 'Cast', 'Mul', 'Add']
#   guarded x / y: TensorFlow [0.0, 2.0], ONNX [nan, 2.0] by ['Div', 'Equal', 'Not', 'Cast', 'Mul', 'Cast', 'Mul', 'Add']
#   finite:        TensorFlow [7.0, 2.0], ONNX [7.0, 2.0] by ['Greater', 'Not', 'Cast', 'Mul', 'Cast', 'Mul', 'Add']
#   or else -inf:  TensorFlow [7.0, -inf], ONNX [7.0, -inf] by ['Greater', 'Where']
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


def floats(*values):
    return np.array(values, np.float32)


logarithm = converted(lambda x: tf.where(x > 0, tf.math.log(x), 0.0), floats(0, 1))
quotient = converted(lambda x, y: tf.where(tf.equal(y, 0), 0.0, x / y), floats(1, 2), floats(0, 1))
finite = converted(lambda x: tf.where(x > 0, x, 2.0), floats(7, -1))
masked = converted(lambda x: tf.where(x > 0, x, -float("inf")), floats(7, -1))
print("guarded log:   TensorFlow {}, ONNX {} by {}".format(*logarithm))
print("guarded x / y: TensorFlow {}, ONNX {} by {}".format(*quotient))
print("finite:        TensorFlow {}, ONNX {} by {}".format(*finite))
print("or else -inf:  TensorFlow {}, ONNX {} by {}".format(*masked))
for guarded in (logarithm, quotient):
    assert np.isfinite(guarded[0]).all() and np.isnan(guarded[1]).tolist() == [True, False], guarded
    assert "Where" not in guarded[2], guarded
assert finite[0] == finite[1] and "Where" not in finite[2], finite
assert masked[0] == masked[1] and "Where" in masked[2], masked
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
