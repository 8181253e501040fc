#!/usr/bin/env bash
# Keras' model.export() for a SavedModel takes any keyword and ignores it, the save options too.
#
# One would guess: model.export(path, options=tf.saved_model.SaveOptions(...)) passes the options on, and a
# misspelt keyword raises TypeError.
#
# What happens: `options` has no effect (save_debug_info=True writes no debug information), and a keyword that
# does not exist is accepted in silence. ExportArchive.write_out(path, options=...) does what one wanted.
#
# Why it matters: the source lines of a served model's ops live in that debug information only. A user who asked
# for it has a model without, and nothing said so.
#
# TensorFlow 2.21.0, Keras 3.15.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   by_model: debug information []
#   by_archive: debug information ['saved_model_debug_info.pb']
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import os

import keras
import tensorflow as tf

options = tf.saved_model.SaveOptions(save_debug_info=True)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.export("by_model", verbose=False, options=options, no_such_option=123)

archive = keras.export.ExportArchive()
archive.track(model)
archive.add_endpoint("serve", model.__call__, input_signature=[tf.TensorSpec([None, 3])])
archive.write_out("by_archive", verbose=False, options=options)

debug_files = {path: sorted(os.listdir(path + "/debug")) if os.path.isdir(path + "/debug") else []
               for path in ("by_model", "by_archive")}
for path, files in debug_files.items():
    print(f"{path}: debug information {files}")
assert debug_files["by_model"] == [] and debug_files["by_archive"], debug_files
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
