#!/usr/bin/env bash
# The gradient of a gather inside a loop of a tf.function is a dense tensor of the whole table, added up in each
# round.
#
# One would guess: tf.gather of some rows has a gradient of those rows (IndexedSlices), in a loop as outside of
# it.
#
# What happens: what leaves the gradient of a While is a tensor, so each round turns its row into a table of zeros
# with one row set, and adds it to the sum. 50 rounds over a table of 200,000 rows take some 200 times as long as
# the same gather at once, whose gradient stays sparse.
#
# Why it matters: the cost is in unsorted sums and additions of the size of the table, in a loop that seems to
# touch 50 rows; it grows with the table and not with the work.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   table of   1,000 rows: EagerTensor in   0.70 ms in a loop, IndexedSlices in  0.19 ms at once
#   table of 200,000 rows: EagerTensor in  47.22 ms in a loop, IndexedSlices in  0.20 ms at once
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import time

import tensorflow as tf

rows = tf.range(50)


@tf.function
def in_a_loop(table):
    with tf.GradientTape() as tape:
        total = tf.zeros([16])
        for row in rows:
            total += tf.gather(table, row)
        loss = tf.reduce_sum(total)
    return tape.gradient(loss, table)


@tf.function
def at_once(table):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, rows))
    return tape.gradient(loss, table)


def seconds(step, table):
    times = []
    for _ in range(12):
        start = time.perf_counter()
        step(table)
        times.append(time.perf_counter() - start)
    return min(times[2:])


for height in (1_000, 200_000):
    table = tf.Variable(tf.ones([height, 16]))
    loop, once = seconds(in_a_loop, table), seconds(at_once, table)
    kinds = type(in_a_loop(table)).__name__, type(at_once(table)).__name__
    print(f"table of {height:7,d} rows: {kinds[0]} in {loop * 1e3:6.2f} ms in a loop, {kinds[1]} in {once * 1e3:5.2f} ms at once")
assert "IndexedSlices" in kinds[1] and "IndexedSlices" not in kinds[0], kinds
assert loop > 10 * once, (loop, once)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
