#!/usr/bin/env bash
# BatchNormalization of Keras 3 is never the fused op, in training or inference; that of tf-keras is.
#
# One would guess: a batch normalization becomes FusedBatchNormV3, which TensorFlow has made for it and whose patterns
# (with convolution and relu) its graph optimizer knows.
#
# What happens: Keras 3 writes Rsqrt, Mul, Sub and AddV2 over variables that are read in each call, and the optimizer,
# which looks for FusedBatchNormV3 and for constants, leaves them: some eight elementwise ops per layer, several of
# them over the whole activation. tf-keras gives one op for the same layer.
#
# Why it matters: "use a fused batch normalization" is an advice that a Keras 3 user cannot follow, and rules that look
# for FusedBatchNormV3 are blind in every Keras 3 model.
#
# TensorFlow 2.21.0, Keras 3.15.1, tf-keras 2.21.0. Ops of the graph as executed.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   keras    training=False: 11 ops, fused: False; {'Mul': 3, 'AddV2': 2, 'Reshape': 1, 'Rsqrt': 1}
#   tf_keras training=False:  2 ops, fused: True; {'_FusedConv2D': 1, '_FusedBatchNormEx': 1}
#   keras    training=True : 25 ops, fused: False; {'Mul': 7, 'AddV2': 4, 'Squeeze': 3, 'Mean': 2}
#   tf_keras training=True :  5 ops, fused: True; {'AssignVariableOp': 2, '_FusedConv2D': 1, '_FusedBatchNormEx': 1, 'Identity': 1}
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'tf-keras==2.21.0'

cat > program.py <<'PROGRAM'
import collections

import keras
import tensorflow as tf
import tf_keras
from tensorflow.python.eager import context

PLUMBING = ("Const", "_Arg", "_Retval", "ReadVariableOp")


def executed(package, training):
    layers = package.layers
    stack = [layers.Input((16, 16, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()]
    model = package.Sequential(stack)
    function = tf.function(lambda x: model(x, training=training))
    with context.collect_graphs() as graphs:
        function(tf.ones([4, 16, 16, 3]))
    return collections.Counter(node.op for graph in graphs for node in graph.node if node.op not in PLUMBING)


for training in (False, True):
    for package in (keras, tf_keras):
        ops = executed(package, training)
        fused = any("FusedBatchNorm" in op for op in ops)
        print(f"{package.__name__:8} training={training!s:5}: {ops.total():2} ops, fused: {fused};"
              f" {dict(ops.most_common(4))}")
        assert fused == (package is tf_keras), ops
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
