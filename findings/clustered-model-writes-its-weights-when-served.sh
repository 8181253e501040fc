#!/usr/bin/env bash
# A model clustered by the optimization toolkit and saved without strip_clustering writes its weights per request.
#
# One would guess: wrappers of weight clustering matter while training; a served function only reads, and costs at
# worst a little more.
#
# What happens: the serving function compares every weight with every centroid and assigns a variable per kernel, in
# every call. The answers are those of the stripped model; the time is a multiple of it, whatever the batch.
#
# Why it matters: "the matmul is slow" is not what is wrong, and a served model whose graph assigns variables is neither
# constant (nothing folds) nor safe to call from several threads. AssignVariableOp in serving_default is the sign.
#
# TensorFlow 2.21.0, tf-keras 2.21.0, tensorflow-model-optimization 0.8.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   clustered: 2 assignments in the serving function, 18.96 ms per call
#   stripped:  0 assignments, 0.26 ms (73 times faster); results equal: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'tf-keras==2.21.0' 'tensorflow-model-optimization==0.8.1'

cat > program.py <<'PROGRAM'
import time

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.clustering import keras as clustering

layers = tf_keras.layers
base = tf_keras.Sequential([layers.Input((512,)), layers.Dense(512, activation="relu"), layers.Dense(512)])
clustered = clustering.cluster_weights(
    base, number_of_clusters=16, cluster_centroids_init=clustering.CentroidInitialization.LINEAR
)
x = tf.random.normal([4, 512])


def served(model, path):
    tf.saved_model.save(model, path)
    loaded = tf.saved_model.load(path)
    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    library = function.graph.as_graph_def().library.function
    assignments = sum(node.op == "AssignVariableOp" for each in library for node in each.node_def)
    times = []
    for _ in range(25):
        start = time.perf_counter()
        (result,) = function(**{name: x}).values()
        result.numpy()
        times.append(time.perf_counter() - start)
    return assignments, min(times) * 1e3, result.numpy()


as_trained = served(clustered, "clustered")
stripped = served(clustering.strip_clustering(clustered), "stripped")
same = np.allclose(as_trained[2], stripped[2], rtol=1e-4, atol=1e-4)
print(f"clustered: {as_trained[0]} assignments in the serving function, {as_trained[1]:.2f} ms per call")
print(f"stripped:  {stripped[0]} assignments, {stripped[1]:.2f} ms ({as_trained[1] / stripped[1]:.0f} times faster);"
      f" results equal: {same}")
assert as_trained[0] == 2 and stripped[0] == 0 and same
assert as_trained[1] > 3 * stripped[1]
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
export TF_USE_LEGACY_KERAS=1
venv/bin/python program.py
