"""Open a graph in a file: a GraphDef or a MetaGraph."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.errors import ExecutionError, TargetError, first_line
from graphlens.ir.ops import PLACEHOLDERS
from graphlens.tf.open import failures
from graphlens.tf.open.annotated import LEFT_OUT, strip_shapes
from graphlens.tf.open.opened import LOAD_FAILURES, Opened, from_placeholders


def open_graph_file(path: Path, kind: str, text: bool) -> Opened:
    """Open what nobody reads in the graph as a function of its placeholders."""
    graph_def = _read_graph(path, kind, text)
    try:
        return _imported(graph_def, kind)
    except LOAD_FAILURES as error:
        failure = ExecutionError(f"TensorFlow cannot import the graph {path}: {first_line(error)}")
        cause = error
    for spared in (PLACEHOLDERS, frozenset[str]()):  # of an old graph's inputs nothing else says the shape
        if strip_shapes(graph_def, spared):
            with suppress(*LOAD_FAILURES):
                return _imported(graph_def, kind, LEFT_OUT)
    raise failure from cause


def _imported(graph_def: Any, kind: str, *notes: str) -> Opened:
    wrapped, packages = failures.with_registered_ops(
        lambda: tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), []),
        lambda: failures.types_in(graph_def),
    )
    graph = wrapped.graph
    feeds = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
    return from_placeholders(wrapped.prune(feeds, _sinks(graph)), kind, owner=wrapped, notes=(*notes, *packages))


def _read_graph(path: Path, kind: str, text: bool) -> Any:
    from google.protobuf import message, text_format

    proto = tf.compat.v1.MetaGraphDef() if kind == "meta_graph" else tf.compat.v1.GraphDef()
    try:
        if text:
            text_format.Parse(path.read_text(encoding="utf-8"), proto)
        else:
            proto.ParseFromString(path.read_bytes())
    except (OSError, message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not a readable {kind}: {first_line(error)}") from error
    return proto.graph_def if kind == "meta_graph" else proto


def _sinks(graph: Any) -> list[Any]:
    """Return what nobody reads: the outputs of a frozen graph, or the last ops of one that has none."""
    read = {tensor.op for op in graph.get_operations() for tensor in op.inputs}
    read |= {control for op in graph.get_operations() for control in op.control_inputs}
    sinks = [op for op in graph.get_operations() if op not in read and op.type not in {"Placeholder", "Const"}]
    if not sinks:
        raise ValueError("nothing in it computes anything")
    return [op.outputs[0] if op.outputs else op for op in sinks]
