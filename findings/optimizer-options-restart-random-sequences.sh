#!/usr/bin/env bash
# Changing an option of the graph optimizer in the middle of a program makes random numbers begin anew.
#
# One would guess: tf.config.optimizer.set_experimental_options and set_jit decide how graphs are rewritten, and change
# no value that a program computes; a dropout goes on with new masks.
#
# What happens: a change throws away the cached kernels, and the state of a stateful random op with a seed lives in its
# kernel. After the change every function repeats the numbers it has given since the program's start, dropout masks and
# all. Setting the option to the value it has already does nothing. Eager random ops go on. tf.random.Generator, whose
# state is a variable, is not concerned.
#
# Why it matters: a program that turns an optimizer off for a part of its work (to compare, to get a readable graph)
# trains on the masks it had before. A profiler must not change these options around a step that it watches.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   two masks, and two more:   ['101001111101', '001100100010'] ['110010101011', '101011110010']
#   loop_optimization off:     ['101001111101', '001100100010']
#   off, as it was:            ['110010101011', '101011110010']
#   set_jit(True):             ['101001111101', '001100100010']
#   tf.random.Generator goes on: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import tensorflow as tf

tf.random.set_seed(1)


@tf.function
def kept():
    return tf.nn.dropout(tf.ones([12]), 0.5)


def masks():
    return ["".join("01"[int(value > 0)] for value in kept().numpy()) for _ in range(2)]


def option(value):
    tf.config.optimizer.set_experimental_options({"loop_optimization": value})


first, second = masks(), masks()
print(f"two masks, and two more:   {first} {second}")
option(False)
changed = masks()
print(f"loop_optimization off:     {changed}")
option(False)
unchanged = masks()
print(f"off, as it was:            {unchanged}")
tf.config.optimizer.set_jit(True)
compiled = masks()
print(f"set_jit(True):             {compiled}")
assert first != second and changed == first and unchanged == second and compiled == first

generator = tf.random.Generator.from_seed(1)
before = float(generator.uniform([]))
option(True)
after = float(generator.uniform([]))
print(f"tf.random.Generator goes on: {before != after}")
assert before != after
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
