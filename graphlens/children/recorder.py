"""The parent's side of recording: start the process that opens targets and runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from graphlens.children.start import Child, start

_MODULE: Final = "graphlens.tf.record.child"
# TensorFlow reads these once, when it is imported or runs its first function; they have no effect without a folder,
# which ``tf.record.dump`` names for the moment when it is wanted.
_WRITES_GRAPHS_DOWN: Final[Mapping[str, str]] = {
    "TF_DUMP_GRAPH_NAME_FILTER": "*",
    "TF_DUMP_GRAPH_GROUPS": "main",
    "TF_DUMP_GRAPH_FMT": "BIN",
}


def start_recorder(directory: Path, *, keeps_unplaced: bool = False, env: Mapping[str, str] | None = None) -> Child:
    """Start a child that takes a ``RecordRequest`` and leaves a capture in ``directory``.

    Parameters
    ----------
    keeps_unplaced
        Whether it may be asked for the graph as it is before placement.
    env
        Additional environment variables.
    """
    return start(directory, _MODULE, {**(_WRITES_GRAPHS_DOWN if keeps_unplaced else {}), **(env or {})}, dumps_xla=True)
