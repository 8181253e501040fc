"""Replace ops whose kernels newer TensorFlow versions no longer ship by equivalent ones, in a copy of the model.

Without this an old model that TensorFlow still loads could not be measured at all.  What is replaced is noted, because
its time is the replacement's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from graphlens import workplace
from graphlens.loaders.savedmodel import BINARY
from graphlens.tf import private

_PATTERN: Final = re.compile(r"[\[\\]")  # of what stands for other files, these alone do not stand for themselves


@contextmanager
def loadable(path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a folder that TensorFlow can load and run in place of ``path``, and notes on what was replaced."""
    file = Path(path) / BINARY
    content = file.read_bytes() if file.is_file() else b""
    retired = [op for op in _REPLACEMENTS if op.encode() in content and private.has_kernel(op) is False]
    if not retired:
        with _without_patterns(path) as folder:
            yield folder, ()
        return
    with copy_with(path, _replaced(content, retired)) as folder:
        yield folder, tuple(map(_note, retired))


@contextmanager
def copy_with(path: str, content: bytes) -> Iterator[str]:
    """Yield a folder that is the SavedModel in ``path`` but for ``content`` in place of its graphs."""
    with workplace.temporary() as folder:
        (folder / BINARY).write_bytes(content)
        for part in Path(path).iterdir():
            if part.name != BINARY:
                _link(part.absolute(), folder / part.name)
        yield str(folder)


@contextmanager
def _without_patterns(path: str) -> Iterator[str]:
    """Yield a path to the same folder that TensorFlow does not take for a pattern when it looks for the variables."""
    if not _PATTERN.search(path):
        yield path
        return
    with workplace.temporary() as folder:
        _link(Path(path).absolute(), folder / "model")
        yield str(folder / "model")


def _link(source: Path, target: Path) -> None:
    """Make ``source`` available as ``target``; where links need a privilege (Windows), as a copy."""
    try:
        os.symlink(source, target)
    except (OSError, NotImplementedError):
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def _note(op: str) -> str:
    return (
        f"TensorFlow {tf.version.VERSION} has no kernel for {op} any more: it ran as equivalent ops of this version, "
        "whose time is not the original's."
    )


def _replaced(content: bytes, retired: list[str]) -> bytes:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(content)
    for meta_graph in saved_model.meta_graphs:
        # Function bodies name outputs differently (`name:output:0`); no export is known that has these ops in one.
        _replace_in(meta_graph.graph_def.node, retired)
    return bytes(saved_model.SerializeToString())


def _replace_in(nodes: Any, retired: list[str]) -> None:
    kept: list[Any] = []
    for node in nodes:
        kept.extend(_REPLACEMENTS[node.op](node) if node.op in retired else [node])
    copies = [tf.compat.v1.NodeDef.FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(copies)


def _boosted_trees_bucketize(node: Any) -> list[Any]:
    """``min(lower_bound(boundaries, value), len(boundaries) - 1)`` per feature, as the retired kernel computed it."""
    count = node.attr["num_features"].i
    made = [_const(node, "axis", 0), _const(node, "one", 1)]
    for index in range(count):
        values, boundaries = node.input[index], node.input[count + index]
        step = f"{node.name}/feature_{index}"
        made += [
            _node(f"{step}/values", "ExpandDims", [values, f"{node.name}/axis"], T=tf.float32, Tdim=tf.int32),
            _node(f"{step}/boundaries", "ExpandDims", [boundaries, f"{node.name}/axis"], T=tf.float32, Tdim=tf.int32),
            _node(
                f"{step}/bound", "LowerBound", [f"{step}/boundaries", f"{step}/values"], T=tf.float32, out_type=tf.int32
            ),
            _node(f"{step}/size", "Size", [boundaries], T=tf.float32, out_type=tf.int32),
            _node(f"{step}/last", "Sub", [f"{step}/size", f"{node.name}/one"], T=tf.int32),
            _node(f"{step}/clipped", "Minimum", [f"{step}/bound", f"{step}/last"], T=tf.int32),
            _node(f"{step}/bucket", "Reshape", [f"{step}/clipped", f"{step}/shape"], T=tf.int32, Tshape=tf.int32),
            _node(f"{step}/shape", "Shape", [values], T=tf.float32, out_type=tf.int32),
        ]
    last = _node(node.name, "IdentityN", [f"{node.name}/feature_{index}/bucket" for index in range(count)])
    last.attr["T"].list.type.extend([tf.int32.as_datatype_enum] * count)
    last.input.extend(source for source in node.input if source.startswith("^"))
    return [*made, last]


def _node(name: str, op: str, inputs: list[str], **types: Any) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    for key, dtype in types.items():
        node.attr[key].type = dtype.as_datatype_enum
    return node


def _const(owner: Any, name: str, value: int) -> Any:
    node = _node(f"{owner.name}/{name}", "Const", [], dtype=tf.int32)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return node


_REPLACEMENTS: Mapping[str, Callable[[Any], list[Any]]] = {"BoostedTreesBucketize": _boosted_trees_bucketize}
