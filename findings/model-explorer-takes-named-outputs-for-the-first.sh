#!/usr/bin/env bash
# Model Explorer draws every named output of an op in a function as the first one.
#
# One would guess: an edge has the number of the output that it leaves, in functions as in the graph around them.
#
# What happens: in the body of a function an input is written as op, name of the output, number within that output
# ("TopKV2:indices:0"); in the graph around it as op and number. The direct converter takes the last number for the
# output, so that values and indices of top_k, or the three results of unique_with_counts, all leave output 0. Only
# outputs that are one list ("split:output:1") keep their number.
#
# Why it matters: everything that TensorFlow 2 saves is in functions. Which result of an op is used, and so of what type
# and shape it is, cannot be told from the converted graph. The number of an output takes the op's definition to find.
#
# TensorFlow 2.21.0, ai-edge-model-explorer 0.1.34 (adapter 0.2.1), builtin_tf_direct.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   from_values    TopKV2:values:0              output 0; Model Explorer: 0
#   from_indices   TopKV2:indices:0             output 1; Model Explorer: 0
#   from_unique    UniqueWithCounts:y:0         output 0; Model Explorer: 0
#   from_positions UniqueWithCounts:idx:0       output 1; Model Explorer: 0
#   from_counts    UniqueWithCounts:count:0     output 2; Model Explorer: 0
#   from_left      split:output:0               output 0; Model Explorer: 0
#   from_right     split:output:1               output 1; Model Explorer: 1
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1' 'ai-edge-model-explorer==0.1.34' 'ai-edge-model-explorer-adapter==0.2.1'

cat > program.py <<'PROGRAM'
import tensorflow as tf
from model_explorer.builtin_tf_direct_adapter import BuiltinTfDirectAdapter


@tf.function(input_signature=[tf.TensorSpec([8], name="x")])
def taken_apart(x):
    values, indices = tf.math.top_k(x, k=2)
    unique, positions, counts = tf.unique_with_counts(x)
    left, right = tf.split(x, 2)
    parts = {
        "values": values, "indices": indices, "unique": unique, "positions": positions, "counts": counts,
        "left": left, "right": right,
    }  # fmt: skip
    return {name: tf.identity(part, f"from_{name}") for name, part in parts.items()}


module = tf.Module()
module.taken_apart = taken_apart
tf.saved_model.save(module, "model")


def graph_of(function_name):
    """Return the nodes that Model Explorer's direct converter makes of a function, by their names."""
    collections = BuiltinTfDirectAdapter().convert("model/saved_model.pb", {})["graphCollections"]
    (graph,) = [one for each in collections for one in each.graphs if function_name in one["id"]]
    return {node["namespace"]: node for node in graph["nodes"]}


nodes = graph_of("__inference_taken_apart_")
concrete = taken_apart.get_concrete_function()
inputs = {node.name: node.input[0] for node in concrete.function_def.node_def if node.input}
tensorflow, explorer = {}, {}
for name in ("values", "indices", "unique", "positions", "counts", "left", "right"):
    reader = f"from_{name}"
    tensorflow[name] = concrete.graph.get_operation_by_name(reader).inputs[0].value_index
    (edge,) = nodes[reader]["incomingEdges"]
    explorer[name] = int(edge["sourceNodeOutputId"])
    print(f"{reader:14} {inputs[reader]:28} output {tensorflow[name]}; Model Explorer: {explorer[name]}")
named = ("values", "indices", "unique", "positions", "counts")
assert [tensorflow[name] for name in named] == [0, 1, 0, 1, 2], tensorflow
assert [explorer[name] for name in named] == [0, 0, 0, 0, 0], explorer
assert explorer["right"] == tensorflow["right"] == 1, (explorer, tensorflow)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
