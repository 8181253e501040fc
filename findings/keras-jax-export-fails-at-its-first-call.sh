#!/usr/bin/env bash
# A SavedModel that Keras on JAX exports, and TensorFlow loads, may fail at its first call.
#
# One would guess: if export and loading succeed, the model can be called; what cannot be expressed is refused by the
# exporter.
#
# What happens: the graph is one XlaCallModule that holds serialized StableHLO; nobody reads it until the first call.
# There a model with erf or top_k raises InvalidArgumentError ("Cannot deserialize computation": JAX writes a newer
# form of the dialect than TensorFlow reads), one with a matrix inverse NotFoundError (a LAPACK kernel that
# TensorFlow has no handler for). Sort, softmax and rfft work.
#
# Why it matters: whether such a file can run is not seen from its graph, its signatures, or from loading it; all of
# its FLOPs are inside that one op.
#
# TensorFlow 2.21.0, Keras 3.15.1, JAX 0.10.2.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   sort: exported, loaded, called: runs
#   softmax: exported, loaded, called: runs
#   rfft: exported, loaded, called: runs
#   erf: exported, loaded, called: InvalidArgumentError
#   top_k: exported, loaded, called: InvalidArgumentError
#   inv: exported, loaded, called: NotFoundError
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'jax==0.10.2' 'jaxlib==0.10.2'

cat > program.py <<'PROGRAM'
import keras
import numpy as np
import tensorflow as tf


class Apply(keras.layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


FUNCTIONS = {
    "sort": keras.ops.sort,
    "softmax": keras.ops.softmax,
    "rfft": lambda x: keras.ops.rfft(x)[0],
    "erf": keras.ops.erf,
    "top_k": lambda x: keras.ops.top_k(x, 2)[0],
    "inv": lambda x: keras.ops.inv(keras.ops.reshape(x, (-1, 2, 2))),
}


def outcome(name):
    model = keras.Sequential([keras.Input((4,)), Apply(FUNCTIONS[name])])
    model.export(name, verbose=False)
    loaded = tf.saved_model.load(name)
    functions = [*loaded.signatures["serving_default"].graph.as_graph_def().library.function]
    ops = {node.op for function in functions for node in function.node_def}
    assert "XlaCallModule" in ops, ops
    try:
        loaded.serve(np.array([[1, 2, 3, 5]] * 4, "float32"))
    except tf.errors.OpError as error:
        return type(error).__name__
    return "runs"


outcomes = {name: outcome(name) for name in FUNCTIONS}
for name, what in outcomes.items():
    print(f"{name}: exported, loaded, called: {what}")
assert outcomes == {"sort": "runs", "softmax": "runs", "rfft": "runs", "erf": "InvalidArgumentError",
                    "top_k": "InvalidArgumentError", "inv": "NotFoundError"}
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
export KERAS_BACKEND=jax
venv/bin/python program.py
