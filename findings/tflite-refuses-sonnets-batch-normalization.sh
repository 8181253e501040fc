#!/usr/bin/env bash
# TensorFlow Lite refuses Sonnet's batch normalization: the second version of the op is unknown there.
#
# One would guess: FusedBatchNormV2 and V3 are one op for a converter (V3 has one more output, which inference does not
# use); where the graph optimizer treats them alike, so does the converter.
#
# What happens: Sonnet calls V2, of which the converter says that it is "neither a custom op nor a flex op", and the
# conversion ends with ConverterError. The same network written with V3 converts.
#
# Why it matters: "runs and is optimized in TensorFlow" does not tell whether the mobile converter takes it; a rule
# about batch normalization has to know the op's versions.
#
# TensorFlow 2.21.0, dm-sonnet 2.0.2.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   Sonnet:   FusedBatchNormV2: ConverterError, which names FusedBatchNormV2: True
#   raw op:   FusedBatchNormV3: converts, 1476 bytes
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'dm-sonnet==2.0.2'

cat > program.py <<'PROGRAM'
import sonnet
import tensorflow as tf

x = tf.random.normal([1, 8, 8, 3])
convolution, normalization = sonnet.Conv2D(4, 3), sonnet.BatchNorm(create_scale=True, create_offset=True)
normalization(convolution(x), is_training=True)
ones, zeros = tf.ones([4]), tf.zeros([4])
module = tf.Module()
module.parts = [convolution, normalization]
signature = [tf.TensorSpec(x.shape)]


@tf.function(input_signature=signature)
def by_sonnet(x):
    return normalization(convolution(x), is_training=False)


@tf.function(input_signature=signature)
def by_third_version(x):
    return tf.raw_ops.FusedBatchNormV3(
        x=convolution(x), scale=ones, offset=zeros, mean=zeros, variance=ones, is_training=False
    ).y


def outcome(function):
    concrete = function.get_concrete_function()
    (op,) = {op.type for op in concrete.graph.get_operations() if "FusedBatchNorm" in op.type}
    try:
        return op, "converts, {} bytes".format(
            len(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())
        )
    except Exception as error:
        return op, f"{type(error).__name__}, which names {op}: {op in str(error)}"


refused, taken = outcome(by_sonnet), outcome(by_third_version)
print("Sonnet:   {}: {}".format(*refused))
print("raw op:   {}: {}".format(*taken))
assert refused == ("FusedBatchNormV2", "ConverterError, which names FusedBatchNormV2: True"), refused
assert taken[0] == "FusedBatchNormV3" and taken[1].startswith("converts"), taken
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
