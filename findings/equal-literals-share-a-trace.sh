#!/usr/bin/env bash
# A tf.function called with 2 and then with 2.0 answers with the trace of the first.
#
# One would guess: Python arguments of a tf.function are part of the signature with their type; another type means
# another trace.
#
# What happens: literals are compared with ==, and 2 == 2.0, 1 == True == 1.0, 0.0 == -0.0. The first call decides
# type and value for all of them: a function that divides integers for 2 answers the float call with a rounded
# integer, and 1/-0.0 is +inf. No warning, no second trace.
#
# Why it matters: the number of traces is not the number of distinct arguments, the dtype of a traced graph depends
# on the order of calls, and the wrong result is no numerical noise.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   7 / 2 -> 3 int32; 7 / 2.0 -> 3 int32; traces: 1
#   1 / -0.0 -> inf; without a trace before: -inf
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import tensorflow as tf


@tf.function
def seven_divided_by(number):
    if isinstance(number, int):
        return tf.constant(7) // number
    return tf.constant(7.0) / number


@tf.function
def reciprocal(number):
    return 1.0 / tf.constant(number)


integer, real = seven_divided_by(2), seven_divided_by(2.0)
print(f"7 / 2 -> {integer.numpy()} {integer.dtype.name}; 7 / 2.0 -> {real.numpy()} {real.dtype.name};"
      f" traces: {seven_divided_by.experimental_get_tracing_count()}")
assert (real.numpy(), real.dtype) == (3, tf.int32)
assert seven_divided_by.experimental_get_tracing_count() == 1

reciprocal(0.0)
print(f"1 / -0.0 -> {reciprocal(-0.0).numpy()}; without a trace before: {(1.0 / tf.constant(-0.0)).numpy()}")
assert reciprocal(-0.0).numpy() == float("inf")
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
