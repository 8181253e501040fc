#!/usr/bin/env bash
# Quantizing a Keras model to int8 makes it several times slower on a CPU.
#
# One would guess: model.quantize("int8") makes dense layers faster, or at worst no faster.
#
# What happens: the product of int8 operands becomes a BatchMatMulV3 (int8, int8 -> int32), which is slower than the
# float32 product that it replaces and takes no part in its fusion with bias and activation. Around it come the ops
# that scale and round the input in each call.
#
# Why it matters: fewer bytes and narrower numbers, and the step takes four times as long and more (up to 17 on a
# busy machine); a model of cost by bytes or by FLOPs predicts the opposite.
#
# TensorFlow 2.21.0, Keras 3.15.1; the same with TF_ENABLE_ONEDNN_OPTS=0 and 1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   float32 5.8 ms, int8 26.8 ms: 4.6 times as long; products [('BatchMatMulV3', 'int8', 'int8'), ('BatchMatMulV3', 'int8', 'int8')]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import time
import warnings

import keras
import tensorflow as tf

warnings.filterwarnings("ignore")


def best_ms(function, x):
    times = []
    for _ in range(25):
        start = time.perf_counter()
        function(x).numpy()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(1024, activation="relu"), keras.layers.Dense(1024)])
x = tf.random.normal([256, 1024])
float32 = best_ms(tf.function(lambda x: model(x)), x)
model.quantize("int8")
quantized = tf.function(lambda x: model(x))
int8 = best_ms(quantized, x)
products = [(op.type, op.inputs[0].dtype.name, op.inputs[1].dtype.name)
            for op in quantized.get_concrete_function(x).graph.get_operations() if "MatMul" in op.type]
print(f"float32 {float32:.1f} ms, int8 {int8:.1f} ms: {int8 / float32:.1f} times as long; products {products}")
assert products == [("BatchMatMulV3", "int8", "int8")] * 2, products
assert int8 > 1.8 * float32
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
