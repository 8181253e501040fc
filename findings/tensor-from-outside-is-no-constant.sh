#!/usr/bin/env bash
# A tf.constant made outside of a tf.function is not a constant in it, and nothing made of it is folded.
#
# One would guess: sqrt(TABLE) with a constant TABLE is computed once, by constant folding, whether TABLE is a NumPy
# array or a tf.constant; and a SavedModel, in which the tensor is written as a Const, is optimized alike by all who
# load it.
#
# What happens: an eager tensor is captured, that is passed as an argument with each call. With a NumPy array Sqrt is
# folded, with a tf.constant it runs in every call; saved and loaded by tf.saved_model.load it still does. The same
# file loaded into a Session, where the call and the Const lie in one graph, runs without Sqrt.
#
# Why it matters: the cost of "constant" tables, masks and scales depends on which library made the array, and a
# measurement in Python is none of a server that runs the graph as a whole. Exporters that write weights as captured
# tensors (onnx2tf does) give models whose constant arithmetic is repeated in each request.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   NumPy array: Sqrt runs as built False, loaded False, in a Session False
#   tf.constant: Sqrt runs as built True, loaded True, in a Session False
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

X = np.ones((2, 64), "float32")


class Model(tf.Module):
    def __init__(self, table):
        super().__init__()
        self.table = table

    @tf.function(input_signature=[tf.TensorSpec([None, 64])])
    def serve(self, x):
        return x @ tf.sqrt(self.table)


def sqrt_runs_in_call(function):
    context.enable_run_metadata()
    function(tf.constant(X))
    metadata = context.export_run_metadata()
    context.disable_run_metadata()
    return any(node.op == "Sqrt" for graph in metadata.partition_graphs for node in graph.node)


def sqrt_runs_in_session(path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
        (source,), (result,) = signature.inputs.values(), signature.outputs.values()
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        session.run(result.name, {source.name: X}, options, metadata)
        return any(node.op == "Sqrt" for graph in metadata.partition_graphs for node in graph.node)


seen = {}
for name, table in {"NumPy array": np.ones((64, 64), "float32"), "tf.constant": tf.ones((64, 64))}.items():
    model, path = Model(table), name.replace(" ", "_")
    tf.saved_model.save(model, path, signatures=model.serve)
    loaded = tf.saved_model.load(path).signatures["serving_default"]
    seen[name] = sqrt_runs_in_call(model.serve), sqrt_runs_in_call(loaded), sqrt_runs_in_session(path)
    print(f"{name}: Sqrt runs as built {seen[name][0]}, loaded {seen[name][1]}, in a Session {seen[name][2]}")
assert seen == {"NumPy array": (False, False, False), "tf.constant": (True, True, False)}, seen
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
