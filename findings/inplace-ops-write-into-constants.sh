#!/usr/bin/env bash
# InplaceAdd, registered as stateless, changes the constants of a function and the values of variables.
#
# One would guess: tensors are immutable, and an op that is registered as stateless and takes values, no references,
# gives a new one; "in place" is an optimization for when nobody else holds the buffer.
#
# What happens: InplaceAdd, InplaceSub and InplaceUpdate write into the buffer that they are given, whoever holds it. A
# tf.constant that a function uses has another value after each call, so that equal calls give different results;
# applied to variable.read_value() they write into the variable, without an assignment. tf.tensor_scatter_nd_add
# copies if it has to.
#
# Why it matters: purity cannot be taken from the registry: is_stateful is False, no argument is a reference, and yet
# merging, folding or moving such an op changes results. The ops are public, in tf.raw_ops.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   InplaceAdd: stateful False, references in its signature: 0
#   InplaceAdd(c, 0, 5) called twice: [6.0, 2.0, 3.0], [11.0, 2.0, 3.0]; the constant c is [11.0, 2.0, 3.0]
#   tensor_scatter_nd_add called twice: [6.0, 2.0, 3.0], [6.0, 2.0, 3.0]; the constant is [1.0, 2.0, 3.0]
#   InplaceAdd of a read value: the variable is [6.0, 2.0, 3.0]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

definition = op_def_registry.get("InplaceAdd")
references = sum(one.is_ref for one in [*definition.input_arg, *definition.output_arg])
print(f"InplaceAdd: stateful {definition.is_stateful}, references in its signature: {references}")
assert not definition.is_stateful and not references

c, d = tf.constant([1.0, 2.0, 3.0]), tf.constant([1.0, 2.0, 3.0])


@tf.function
def in_place():
    return tf.raw_ops.InplaceAdd(x=c, i=[0], v=[5.0])


@tf.function
def scattered():
    return tf.tensor_scatter_nd_add(d, [[0]], [5.0])


def twice(function):
    return [function().numpy().tolist() for _ in range(2)]


first, second = twice(in_place)
print(f"InplaceAdd(c, 0, 5) called twice: {first}, {second}; the constant c is {c.numpy().tolist()}")
assert (first, second, c.numpy().tolist()) == ([6, 2, 3], [11, 2, 3], [11, 2, 3])

first, second = twice(scattered)
print(f"tensor_scatter_nd_add called twice: {first}, {second}; the constant is {d.numpy().tolist()}")
assert (first, second, d.numpy().tolist()) == ([6, 2, 3], [6, 2, 3], [1, 2, 3])

variable = tf.Variable([1.0, 2.0, 3.0])
tf.raw_ops.InplaceAdd(x=variable.read_value(), i=[0], v=[5.0])
print(f"InplaceAdd of a read value: the variable is {variable.numpy().tolist()}")
assert variable.numpy().tolist() == [6, 2, 3]
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
