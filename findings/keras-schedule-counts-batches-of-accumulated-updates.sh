#!/usr/bin/env bash
# With gradient_accumulation_steps, a learning rate schedule of Keras counts batches while the optimizer counts
# updates.
#
# One would guess: a schedule is a function of optimizer.iterations, and that is the number of
# updates.
#
# What happens: optimizer.iterations is divided by the number of accumulated batches, and the schedule gets what
# is not divided. A rate to be halved after 10 updates is halved after 10 batches, at update 2 of 4 batches each:
# warm-up and decay run four times too fast.
#
# Why it matters: accumulating to fit a larger batch into memory shortens the schedule, and whoever plots the rate
# over optimizer.iterations sees no schedule that anybody wrote.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   the rate that is to be halved after 10 updates is lower from update 11
#   with gradient_accumulation_steps=4 from update 2, by optimizer.iterations
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import keras
import numpy as np

BATCHES, ACCUMULATED = 40, 4


def after_training(accumulated):
    halved = keras.optimizers.schedules.PiecewiseConstantDecay([10], [1.0, 0.5])
    optimizer = keras.optimizers.SGD(halved, gradient_accumulation_steps=accumulated)
    rates = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append((int(optimizer.iterations), float(optimizer.learning_rate)))
    )
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(np.zeros((BATCHES, 3)), np.zeros((BATCHES, 1)), batch_size=1, shuffle=False, verbose=0, callbacks=[note])
    return next(iterations for iterations, rate in rates if rate < 1)


plain, accumulating = after_training(None), after_training(ACCUMULATED)
print(f"the rate that is to be halved after 10 updates is lower from update {plain}")
print(f"with gradient_accumulation_steps={ACCUMULATED} from update {accumulating}, by optimizer.iterations")
assert plain > 10 and accumulating <= 10 / ACCUMULATED + 1, (plain, accumulating)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
