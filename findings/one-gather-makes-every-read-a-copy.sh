#!/usr/bin/env bash
# One tf.gather of a variable makes every later read of the whole variable a copy, for the rest of the process.
#
# One would guess: reading a variable hands out its buffer, and a gather of three rows changes nothing about that.
#
# What happens: the first op that gathers from or scatters to a variable in place switches the variable to
# copy-on-read. From then on each ReadVariableOp copies all of it. Assigning a new value does not switch it back;
# tf.train.Checkpoint.save does. Keras' Embedding reads the whole table in each call, so predict becomes many
# times slower after one gather, or after training with an optimizer that scatters.
#
# Why it matters: the same graph and the same op are fast or slow depending on what ran before; ReadVariableOp at
# the top of a profile is not a matter of memory bandwidth. The other variable, never gathered from, stays fast.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   first calls          :    1.0 times the read of an untouched variable (98 us)
#   before               :    1.0 times the read of an untouched variable (98 us)
#   after one tf.gather  :   33.9 times the read of an untouched variable (99 us)
#   after an assignment  :   36.1 times the read of an untouched variable (97 us)
#   after Checkpoint.save:    1.1 times the read of an untouched variable (95 us)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import time

import tensorflow as tf

table = tf.Variable(tf.zeros([200_000, 64]))
untouched = tf.Variable(tf.zeros([200_000, 64]))


@tf.function
def first_of_whole(variable):
    return variable.read_value()[0, 0]


def read_us(variable):
    times = []
    for _ in range(40):
        start = time.perf_counter()
        first_of_whole(variable).numpy()
        times.append((time.perf_counter() - start) * 1e6)
    return min(times)  # of many: what the machine does besides does not count


def both(moment):
    seen = read_us(table), read_us(untouched)
    print(f"{moment}: {seen[0] / seen[1]:6.1f} times the read of an untouched variable ({seen[1]:.0f} us)")
    return seen[0] / seen[1]


both("first calls          ")
before = both("before               ")
tf.gather(table, [1, 2, 3])
gathered = both("after one tf.gather  ")
table.assign(tf.zeros([200_000, 64]))
assigned = both("after an assignment  ")
tf.train.Checkpoint(table=table).save("checkpoint/here")
saved = both("after Checkpoint.save")
assert before < 3 and saved < 3, (before, saved)
assert gathered > 10 and assigned > 10, (gathered, assigned)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
