#!/usr/bin/env bash
# TensorBoard gets the graph of a function that failed as a part of the next function's.
#
# One would guess: tf.summary.trace_on collects what runs from then on, and a call that raised before is over.
#
# What happens: the graphs of a first call that raises are neither handed out nor dropped. The next function that
# is instantiated while graphs are collected comes with them: nodes of both in one graph, some of the same name,
# also when tracing was turned off and on again in between.
#
# Why it matters: a graph with two nodes of one name breaks readers, and counts of ops, devices and fusions are
# those of two programs; in a notebook, the cell that failed is in the graph of the one that was mended.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-29 (Linux x86-64, 2 cores, Python 3.11):
#   inverse raised InvalidArgumentError
#   graphs of shifted, which has no MatrixInverse:
#       _Arg MatrixInverse Identity _Retval _Arg Const AddV2 Relu Identity _Retval
#       SummaryWriter _Retval
#       _Arg _Arg _DeviceArg _DeviceArg _Arg CreateSummaryFileWriter
#       _Arg _EagerConst _Retval
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0'

cat > program.py <<'PROGRAM'
import pathlib

import tensorflow as tf


@tf.function
def inverse(matrix):
    return tf.linalg.inv(matrix)


@tf.function
def shifted(matrix):
    return tf.nn.relu(matrix + 1.0)


def traced(function, name):
    """The ops of each graph that TensorBoard gets of a call: what tf.summary.trace_export writes."""
    tf.summary.trace_on(graph=True)
    try:
        function(zeros)
    except tf.errors.InvalidArgumentError:
        print(f"{name} raised InvalidArgumentError")
        tf.summary.trace_off()
        return None
    with tf.summary.create_file_writer(name).as_default():
        tf.summary.trace_export(name, step=0)
    found = []
    for path in sorted(pathlib.Path(name).iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name.startswith("graph_run_metadata"):
                    metadata = tf.compat.v1.RunMetadata.FromString(value.tensor.string_val[0])
                    found += [[node.op for node in one.pre_optimization_graph.node] for one in metadata.function_graphs]
    return found


zeros = tf.zeros([2, 2])
traced(inverse, "inverse")
graphs = traced(shifted, "shifted")
print("graphs of shifted, which has no MatrixInverse:")
for ops in graphs:
    print("   ", " ".join(ops))
assert any({"MatrixInverse", "Relu"} <= set(ops) for ops in graphs), graphs
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
