#!/usr/bin/env bash
# OpenVINO turns a lookup in a hash table of int64 keys into a comparison with every key.
#
# One would guess: a converter either has a lookup or refuses the op, as this one does for a table of strings.
#
# What happens: LookupTableFindV2 becomes Equal[batch, keys], a product over [batch, keys], a maximum and a Gather. The
# results are right, and nothing says that a lookup of constant cost became one whose time and memory grow with
# the table: 10,000 keys and 1,000 ids are ten million comparisons per call.
#
# Why it matters: an integer vocabulary (ids of items, of users) in front of an embedding is a hash lookup of
# microseconds in TensorFlow; in the converted model it may dominate, and no op there is called a lookup.
#
# TensorFlow 2.21.0, OpenVINO 2026.4.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   table of 10000 keys: ops over [batch, 10000]: ['Equal', 'Select', 'Multiply']; results equal: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'openvino==2026.4.1'

cat > program.py <<'PROGRAM'
import openvino
import tensorflow as tf

KEYS = 10_000


class Table(tf.Module):
    def __init__(self):
        ids, positions = tf.range(KEYS, dtype=tf.int64) * 7, tf.range(KEYS, dtype=tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(ids, positions), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def find(self, ids):
        return {"position": self.table.lookup(ids)}


table = Table()
tf.saved_model.save(table, "model", signatures=table.find)
converted = openvino.convert_model("model")
over_all_keys = [op.get_type_name() for op in converted.get_ordered_ops()
                 if str(op.get_output_partial_shape(0)) == f"[?,{KEYS}]"]
ids = (tf.range(1000, dtype=tf.int64) * 7).numpy()
same = (openvino.compile_model(converted, "CPU")(ids)[0] == table.find(ids)["position"].numpy()).all()
print(f"table of {KEYS} keys: ops over [batch, {KEYS}]: {over_all_keys}; results equal: {same}")
assert "Equal" in over_all_keys and len(over_all_keys) >= 2 and same, over_all_keys
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
