#!/usr/bin/env bash
# Keras' gradient accumulation, and overwriting by the moving average (EMA), raise under MirroredStrategy.
#
# One would guess: `gradient_accumulation_steps`, the usual way to a large batch on few devices, works under the
# strategy that trains on several devices.
#
# What happens: `fit` raises RuntimeError: the update stands in a `cond` of the replica's context, and the optimizer
# calls `merge_call` within it, which TensorFlow does not allow. `use_ema=True` alone trains; with
# `ema_overwrite_frequency` it raises alike. LossScaleOptimizer, which also has a `cond`, trains.
#
# Why it matters: advice to accumulate must ask for the strategy first; what is left is a custom loop.
#
# TensorFlow 2.21.0, Keras 3.15.1; two logical CPU devices.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   SGD: trained
#   use_ema: trained
#   LossScaleOptimizer: trained
#   gradient_accumulation_steps=2: RuntimeError: merge_call
#   ema_overwrite_frequency=2: RuntimeError: merge_call
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
optimizers = {
    "SGD": lambda: keras.optimizers.SGD(),
    "use_ema": lambda: keras.optimizers.SGD(use_ema=True),
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
    "gradient_accumulation_steps=2": lambda: keras.optimizers.SGD(gradient_accumulation_steps=2),
    "ema_overwrite_frequency=2": lambda: keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2),
}


def outcome(optimizer):
    with replicas.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer(), "mse")
    try:
        model.fit(np.ones((128, 4), "float32"), np.ones((128, 1), "float32"), batch_size=64, verbose=0)
    except RuntimeError as error:
        return "RuntimeError: merge_call" if "merge_call" in str(error) else f"RuntimeError: {error}"
    return "trained"


outcomes = {name: outcome(optimizer) for name, optimizer in optimizers.items()}
for name, what in outcomes.items():
    print(f"{name}: {what}")
assert list(outcomes.values()) == ["trained"] * 3 + ["RuntimeError: merge_call"] * 2, outcomes
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
