#!/usr/bin/env bash
# Some epochs of a tf.data pipeline take up to twice as long: their end waits until the autotuning's next turn.
#
# One would guess: when the last element is taken, a loop over a dataset ends.
#
# What happens: every few epochs, by chance, a loop over autotuned data returns later, with no thread at work meanwhile:
# 10 ms × (2 ** n − 1) after it began, for the least n that is long enough. An epoch of 0.35 s takes 0.63 s, one of 0.65
# s takes 1.27 s. Those are the moments at which a thread that tunes the pipeline wakes, as its sleeps become twice as
# long from 10 ms on. With `options.autotune.enabled = False` no epoch is late.
#
# Why it matters: the steps of the epoch are as fast as ever, so that no profile of steps shows it; divided by steps it
# is up to half of the time. Loops in Python and in functions, over a dataset and over its iterator, are late alike.
#
# TensorFlow 2.21.0. Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   autotuned: 60 epochs, median 351 ms, 19 of them late: 626 to 632 ms
#   not autotuned: 60 epochs, median 347 ms, 0 of them late
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import statistics
import time

import tensorflow as tf

EPOCHS, ROWS, ROW_S = 60, 32, 0.01


def sleep(row):
    time.sleep(ROW_S)
    return row


def read(row):
    return tf.ensure_shape(tf.numpy_function(sleep, [row], tf.int64), [])


@tf.function
def epoch(dataset):
    total = tf.constant(0, tf.int64)
    for batch in iter(dataset):
        total += tf.reduce_sum(batch)
    return total


def late(name, dataset):
    epoch(dataset)
    times_ms = []
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        epoch(dataset)
        times_ms.append(1000 * (time.perf_counter() - begun))
    median = statistics.median_low(times_ms)
    found = sorted(round(ms) for ms in times_ms if ms > 1.4 * ROWS * ROW_S * 1000)
    extremes = f": {found[0]} to {found[-1]} ms" if found else ""
    print(f"{name}: {EPOCHS} epochs, median {median:.0f} ms, {len(found)} of them late{extremes}")
    return len(found)


rows = tf.data.Dataset.range(ROWS).map(read).batch(2)
plain = tf.data.Options()
plain.autotune.enabled = False
assert late("autotuned", rows) >= 1
assert late("not autotuned", rows.with_options(plain)) == 0
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py 2> /dev/null
