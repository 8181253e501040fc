#!/usr/bin/env bash
# tf.io.read_file of a fixed name in a tf.function is read once: later calls answer with the old contents.
#
# One would guess: reading a file happens when the op runs, in each call; and a read after a write in the same function
# sees what was written, as the automatic control dependencies of tf.function promise.
#
# What happens: ReadFile is registered as a stateless op. With the name a constant of the graph, the runtime folds the
# op at the first call, and its result is part of the function for good. (It is the runtime's own folding, at opt_level
# L1: tf.config.optimizer with constant_folding or all of Grappler off changes nothing.) With the name an argument
# nothing is folded, but nothing orders a read after a WriteFile either, as only stateful ops are ordered: it answered
# with the old contents in one run, and with b'' in another. tf.io.matching_files is stateless and folded, too.
#
# Why it matters: a vocabulary, a threshold or an image that is replaced while a server runs stays the old one, in the
# function that reads it by a literal. is_stateful of the registry is not "has no effect, depends on inputs only".
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   registered as stateful: ReadFile False, MatchingFiles False, WriteFile True
#   file holds:      [b'a', b'b', b'c']
#   name a literal:  [b'a', b'a', b'a']
#   name an argument: [b'a', b'b', b'c']
#   waits for the write before it: a read False, a write True
#   files that match, of 1, 2, 3: [1, 1, 1]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import pathlib

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

stateful = {op: op_def_registry.get(op).is_stateful for op in ("ReadFile", "MatchingFiles", "WriteFile")}
print("registered as stateful: " + ", ".join(f"{op} {value}" for op, value in stateful.items()))
assert stateful == {"ReadFile": False, "MatchingFiles": False, "WriteFile": True}, stateful
file = pathlib.Path("contents.txt")


@tf.function
def by_literal():
    return tf.io.read_file("contents.txt")


@tf.function
def by_argument(name):
    return tf.io.read_file(name)


@tf.function
def after_a_write(name):
    tf.io.write_file(name, "first")
    contents = tf.io.read_file(name)
    tf.io.write_file(name, "second")
    return contents


@tf.function
def matching():
    return tf.size(tf.io.matching_files("part-*"))


name = tf.constant("contents.txt")
held, literal, argument, matches = [], [], [], []
for number, contents in enumerate(("a", "b", "c")):
    file.write_text(contents)
    held.append(file.read_bytes())
    literal.append(by_literal().numpy())
    argument.append(by_argument(name).numpy())
    pathlib.Path(f"part-{number}").touch()
    matches.append(int(matching()))
print(f"file holds:      {held}")
print(f"name a literal:  {literal}")
print(f"name an argument: {argument}")
assert literal == [b"a", b"a", b"a"] and argument == held == [b"a", b"b", b"c"]

ops = after_a_write.get_concrete_function(name).graph.get_operations()
first, read, second = (op for op in ops if op.type in stateful)
print(f"waits for the write before it: a read {first in read.control_inputs}, a write {first in second.control_inputs}")
assert (read.type, second.type) == ("ReadFile", "WriteFile")
assert first not in read.control_inputs and first in second.control_inputs

print(f"files that match, of 1, 2, 3: {matches}")
assert matches == [1, 1, 1]
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
