#!/usr/bin/env bash
# A Keras Normalization layer goes on with its old mean and variance when its variables are set or restored.
#
# One would guess: `mean` and `variance` are weights of the layer; after set_weights, or after a checkpoint was restored
# and assert_consumed() passed, the model computes with what its variables hold.
#
# What happens: the layer computes with two tensors that adapt() made from the variables, and nothing computes with the
# variables. set_weights and tf.train.Checkpoint change the variables only: the weights are right, the results are those
# of the old data, or those of no normalization at all in a layer that was never adapted. load_weights and .keras files
# refresh the tensors. In an exported SavedModel the tensors are constants, and no op reads the variables.
#
# Why it matters: restoring a checkpoint into a model built by the same code is how training is resumed, and it passes
# every check there is. In the graph, variables that nobody reads look like rubbish, and the constants beside them,
# which are the layer's weights, belong to no layer.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   the model that was saved: mean 200.0, variance 10000.0, 400 becomes 2.0
#   checkpoint restored, adapted before: mean 200.0, variance 10000.0, 400 becomes 399.0
#   checkpoint restored, never adapted: mean 200.0, variance 10000.0, 400 becomes 400.0
#   set_weights: mean 200.0, variance 10000.0, 400 becomes 399.0
#   load_weights: mean 200.0, variance 10000.0, 400 becomes 2.0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import keras
import numpy as np
import tensorflow as tf


def model(*data):
    layer = keras.layers.Normalization()
    if data:
        layer.adapt(np.array(data, "float32")[:, None])
    return keras.Sequential([keras.Input((1,)), layer])


def state(model):
    mean, variance, _ = model.get_weights()
    return float(mean[0]), float(variance[0]), round(float(model(tf.constant([[400.0]]))[0, 0]), 3)


trained = model(100, 300)
path = tf.train.Checkpoint(model=trained).save("checkpoint/of")
trained.save_weights("of.weights.h5")

restored = model(0, 2)
tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
fresh = model()
tf.train.Checkpoint(model=fresh).restore(path).expect_partial()
assigned = model(0, 2)
assigned.set_weights(trained.get_weights())
loaded = model(0, 2)
loaded.load_weights("of.weights.h5")

states = {
    "the model that was saved": state(trained),
    "checkpoint restored, adapted before": state(restored),
    "checkpoint restored, never adapted": state(fresh),
    "set_weights": state(assigned),
    "load_weights": state(loaded),
}
for name, (mean, variance, result) in states.items():
    print(f"{name}: mean {mean}, variance {variance}, 400 becomes {result}")
assert all(value[:2] == (200, 10000) for value in states.values()), states
assert [value[2] for value in states.values()] == [2, 399, 400, 399, 2], states
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
