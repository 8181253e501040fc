"""Open a target: whatever the user points at becomes a function with named inputs that can be traced and called."""

from __future__ import annotations

from pathlib import Path

from graphlens.errors import TargetError
from graphlens.tf.open import callables
from graphlens.tf.open.graph_files import open_graph_file
from graphlens.tf.open.keras_models import open_keras_file
from graphlens.tf.open.opened import Opened
from graphlens.tf.open.saved_models import open_saved_model


def open_target(
    path: str,
    kind: str,
    signature: str | None = None,
    tag: str | None = None,
    *,
    trust: bool = False,
    text: bool = False,
) -> Opened:
    """Open the target at ``path``, which the parent found to be of ``kind`` and, a graph file, to be ``text``.

    Raises
    ------
    TargetError, UsageError
        If the path, the signature or the tag names nothing.
    ExecutionError
        If TensorFlow cannot load it.
    """
    if kind == "callable":
        return callables.open_name(path)
    if kind == "saved_model":
        return open_saved_model(path, signature, tag)
    if kind in {"graph_def", "meta_graph"}:
        return open_graph_file(Path(path), kind, text)
    if kind == "keras":
        return open_keras_file(Path(path), trust)
    raise TargetError(f"{path}: GraphLens cannot execute a target of kind '{kind}'")
