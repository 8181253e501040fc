"""Graphs without the shapes that are annotated in them, for files whose annotations contradict their weights.

TensorFlow checks ``_output_shapes`` while it imports a graph, and refuses what does not agree: a file whose weights
were replaced, or that another program changed.  Without them it infers the shapes itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from graphlens.loaders.nodes import OUTPUT_SHAPES
from graphlens.loaders.savedmodel import BINARY
from graphlens.tf.open.retired import copy_with

LEFT_OUT: Final = (
    f"The shapes that are annotated in the file ({OUTPUT_SHAPES}) contradict its weights: they were left out, and "
    "TensorFlow inferred them anew."
)


@contextmanager
def without_shapes(path: str) -> Iterator[str | None]:
    """Yield a copy of the SavedModel in ``path`` in which no op has an annotated shape; ``None`` where none has one."""
    file = Path(path) / BINARY
    content = file.read_bytes() if file.is_file() else b""
    if OUTPUT_SHAPES.encode() not in content:
        yield None
        return
    with copy_with(path, _stripped(content)) as folder:
        yield folder


def _stripped(content: bytes) -> bytes:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(content)
    for meta_graph in saved_model.meta_graphs:
        strip_shapes(meta_graph.graph_def)
    return bytes(saved_model.SerializeToString())


def strip_shapes(graph_def: Any, spared: Collection[str] = ()) -> bool:
    """Remove the annotated shapes of all ops but those of types that are ``spared``; returns whether there were any.

    Arguments of functions keep theirs.
    """
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    annotated = [node for node in nodes if OUTPUT_SHAPES in node.attr and node.op not in spared]
    for node in annotated:
        del node.attr[OUTPUT_SHAPES]
    return bool(annotated)
