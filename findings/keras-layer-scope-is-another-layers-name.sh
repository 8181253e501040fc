#!/usr/bin/env bash
# The ops of the Keras layer `dense` carry the scope `dense_1`, which is the name of the next layer.
#
# One would guess: a layer's ops lie in the name scope of the layer, so that a layer is found by its name.
#
# What happens: a layer opens its name scope twice per call, TensorFlow makes the second one unique, and the ops
# land there: `dense` computes in `.../dense_1/`, `dense_1` in `.../dense_1_2/`, `dense_2` in `.../dense_2_1/`.
#
# Why it matters: a profile or graph joined to layers by name gives the time of one layer to another, and a layer
# without any time looks unused. The variable that an op reads (its handle among the captures) is a safe join.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   scope dense_1    reads the kernel of layer dense
#   scope dense_1_2  reads the kernel of layer dense_1
#   scope dense_2_1  reads the kernel of layer dense_2
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import keras
import tensorflow as tf

names = ["dense", "dense_1", "dense_2"]
model = keras.Sequential([keras.Input((8,)), *[keras.layers.Dense(4, name=name) for name in names]])
graph = tf.function(model).get_concrete_function(tf.TensorSpec([None, 8])).graph
layer_of_handle = {
    inner.name: variable.path.split("/")[-2]
    for outer, inner in graph.captures
    for variable in model.variables
    if outer is variable.value.handle
}
owners = {}
for op in graph.get_operations():
    if op.type == "MatMul":
        scope = op.name.split("/")[-2]
        owners[scope] = layer_of_handle[op.inputs[1].op.inputs[0].name]
for scope, layer in owners.items():
    print(f"scope {scope:10} reads the kernel of layer {layer}")
assert owners == {"dense_1": "dense", "dense_1_2": "dense_1", "dense_2_1": "dense_2"}, owners
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
