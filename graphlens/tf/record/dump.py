"""The graph that TensorFlow hands to its placer: functions inlined, loops and branches lowered, nothing placed yet.

TensorFlow writes it down itself, with all other stages, for whoever sets its debugging variables, as
``children.recorder`` does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from graphlens.loaders.capture.parts import BEFORE_PLACER
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.loaders.tensors import strip_weights

_FOLDER: Final = "TF_DUMP_GRAPH_PREFIX"
_STAGE: Final = ".main.before_placer.pb"
# Some twenty stages are written, each with all constants: beyond this, gigabytes.
MOST_BYTES: Final = 64 << 20

TOO_LARGE: Final = "Its constants are too large for TensorFlow to write the graph down before it is placed."
NOT_WRITTEN: Final = "TensorFlow did not write down the graph before it was placed."


def recorded(capture: CaptureDirectory, concrete: Any, graph_def: Any, run: Callable[[], Any]) -> Any:
    """Call ``run``, which instantiates the function anew, and keep the graph before placement as a part of ``capture``.

    Returns what ``run`` does.  A graph that cannot be had leaves a note.
    """
    if graph_def.ByteSize() > MOST_BYTES:
        capture.note(TOO_LARGE)
        return run()
    folder = capture.path / "dump.part"
    try:
        with _written_to(folder):
            result = run()
        graph = _before_placer(folder, concrete)
        if graph is None:
            capture.note(NOT_WRITTEN)
        else:
            capture.write(BEFORE_PLACER, strip_weights(graph).SerializeToString())
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _written_to(folder: Path) -> Iterator[None]:
    before = os.environ.get(_FOLDER)
    os.environ[_FOLDER] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FOLDER]
        else:
            os.environ[_FOLDER] = before


def _before_placer(folder: Path, concrete: Any) -> Any | None:
    """Return the graph of the function among those of the small ones that ran along with it."""
    from tensorflow.core.framework import graph_pb2

    graphs = [graph_pb2.GraphDef.FromString(path.read_bytes()) for path in sorted(folder.glob(f"*{_STAGE}"))]
    wanted = {operation.name for operation in concrete.graph.get_operations()}

    def common(graph: Any) -> int:
        return sum(node.name in wanted for node in graph.node)

    best = max(graphs, key=common, default=None)
    return best if best is not None and common(best) else None
