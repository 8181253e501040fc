#!/usr/bin/env bash
# Dataset.interleave with num_parallel_calls=AUTOTUNE mixes a third as many inputs as without, on small machines one.
#
# One would guess: num_parallel_calls changes how fast elements come, not which: the documentation says that the
# default of cycle_length is "the number of available CPU cores", and that the order is deterministic.
#
# What happens: with num_parallel_calls=AUTOTUNE the default cycle_length is a third of the cores, rounded up. On two
# cores the inputs are read to their end one after the other: nothing is mixed, and what was shuffled by
# interleaving is not any more. With a cycle_length that is written out both orders are the same.
#
# Why it matters: "add AUTOTUNE" is the standard advice for reading files. It changes the order of the training data,
# by the number of cores, and on small machines takes away what interleave is for.
#
# TensorFlow 2.21.0; the process is bound to one and to two cores.
#
# Seen on 2026-11-29 (Linux x86-64, Python 3.11):
#   2 cores, default:                   0 1 0 1 0 1 2 3 2 3 2 3
#   2 cores, AUTOTUNE:                  0 0 0 1 1 1 2 2 2 3 3 3
#   2 cores, AUTOTUNE, cycle_length=2:  0 1 0 1 0 1 2 3 2 3 2 3
#   1 core, default:                    0 0 0 1 1 1 2 2 2 3 3 3
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import os
import sys

cores = int(sys.argv[1])
available = sorted(os.sched_getaffinity(0))
assert len(available) >= cores, "this needs two cores"
os.sched_setaffinity(0, available[:cores])

import tensorflow as tf  # noqa: E402


def order(**how):
    inputs = tf.data.Dataset.range(4)
    mixed = inputs.interleave(lambda index: tf.data.Dataset.from_tensors(index).repeat(3), **how)
    return " ".join(str(element) for element in mixed.as_numpy_iterator())


MIXED, IN_TURN = "0 1 0 1 0 1 2 3 2 3 2 3", "0 0 0 1 1 1 2 2 2 3 3 3"
auto = tf.data.AUTOTUNE
if cores == 1:
    seen = {"1 core, default": order()}
    expected = [IN_TURN]
else:
    seen = {
        "2 cores, default": order(),
        "2 cores, AUTOTUNE": order(num_parallel_calls=auto),
        "2 cores, AUTOTUNE, cycle_length=2": order(num_parallel_calls=auto, cycle_length=2),
    }
    expected = [MIXED, IN_TURN, MIXED]
for name, elements in seen.items():
    print(f"{name + ':':35} {elements}")
assert list(seen.values()) == expected, seen
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py 2
venv/bin/python program.py 1
