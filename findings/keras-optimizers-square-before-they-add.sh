#!/usr/bin/env bash
# Trained by Adam, a Keras Embedding learns something else than the same table multiplied with one-hot words.
#
# One would guess: an optimizer sees the gradient of a row, whichever op it came through, and the rows that come
# several times in a batch have the sum of theirs.
#
# What happens: the gradient of a gather lists a row as often as it comes. Keras' optimizers square or clip the
# listed values and add afterwards: the second moment of a frequent word is the sum of squares, not the square of
# the sum. Adam, AdamW, Adagrad, RMSprop and Ftrl differ from the dense gradient, SGD with clipnorm too; SGD and
# Lion do not.
#
# Why it matters: the step of a word depends on how often a batch repeats it, and replacing a gather by a product,
# as converters and compilers do, is not neutral for training.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   SGD            word 0: 0.7219 gathered, 0.7219 multiplied
#   Lion           word 0: 0.7000 gathered, 0.7000 multiplied
#   Adam           word 0: 0.3835 gathered, 0.7011 multiplied
#   AdamW          word 0: 0.3827 gathered, 0.7000 multiplied
#   Adagrad        word 0: 0.6022 gathered, 0.7852 multiplied
#   RMSprop        word 0: -0.0832 gathered, 0.3371 multiplied
#   Ftrl           word 0: 0.1328 gathered, 0.5011 multiplied
#   SGD, clipnorm  word 0: 0.9566 gathered, 0.9810 multiplied
#   not the same: Adam, AdamW, Adagrad, RMSprop, Ftrl, SGD, clipnorm
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

WORDS, WIDTH = 4, 2
sentences = np.array([[0, 0, 0, 1]] * 8)  # word 0 comes three times in each
targets = np.tile(np.array([[[1.0], [2.0], [-4.0], [3.0]]], "float32"), (8, 1, WIDTH))


class ByProduct(keras.layers.Layer):
    """The same layer without a gather: one-hot words times the table."""

    def __init__(self):
        super().__init__()
        self.table = self.add_weight(shape=(WORDS, WIDTH), initializer="ones")

    def call(self, words):
        return keras.ops.one_hot(words, WORDS) @ self.table


def trained(layer, optimizer):
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    model.compile(optimizer, "mse")
    model.fit(sentences, targets, batch_size=8, epochs=3, verbose=0)
    return layer.get_weights()[0][:, 0]


names = ["SGD", "Lion", "Adam", "AdamW", "Adagrad", "RMSprop", "Ftrl"]
makers = {name: lambda name=name: getattr(keras.optimizers, name)(0.1) for name in names}
makers["SGD, clipnorm"] = lambda: keras.optimizers.SGD(0.1, clipnorm=0.1)
differing = []
for name, make in makers.items():
    gathered = trained(keras.layers.Embedding(WORDS, WIDTH, embeddings_initializer="ones"), make())
    multiplied = trained(ByProduct(), make())
    print(f"{name:14s} word 0: {gathered[0]:.4f} gathered, {multiplied[0]:.4f} multiplied")
    if not np.allclose(gathered[:2], multiplied[:2], rtol=1e-3):
        differing.append(name)
print("not the same:", ", ".join(differing))
assert differing == [name for name in makers if name not in ("SGD", "Lion")], differing
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
