"""The graph that TensorFlow hands to its placer: functions inlined, loops and branches lowered, nothing placed yet.

TensorFlow writes it down itself, with all other stages, for whoever sets its debugging variables, as
``children.recorder`` does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.parts import BEFORE_PLACER
from graphlens.loaders.tensors import strip_weights

_FOLDER: Final = "TF_DUMP_GRAPH_PREFIX"
_STAGE: Final = ".main.before_placer.pb"
# Some twenty stages are written, each with all constants: beyond this, gigabytes.
MOST_BYTES: Final = 64 << 20

TOO_LARGE: Final = "Its constants are too large for TensorFlow to write the graph down before it is placed."
NOT_WRITTEN: Final = "TensorFlow did not write down the graph before it was placed."


class UnplacedGraph:
    """Writes the graph before placement of the function that the step instantiates anew meanwhile.

    A graph that cannot be had leaves a note.
    """

    stage = None

    def __init__(self, concrete: Any, graph_def: Any) -> None:
        self._concrete = concrete
        self._is_small = graph_def.ByteSize() <= MOST_BYTES
        self._folder = Path()
        self._before: str | None = None

    def start(self, context: Context) -> None:
        if not self._is_small:
            context.capture.note(TOO_LARGE)
            return
        self._folder = context.capture.path / "dump.part"
        self._before = os.environ.get(_FOLDER)
        os.environ[_FOLDER] = str(self._folder)

    def stop(self, context: Context) -> bool:
        if not self._is_small:
            return False
        try:
            self._no_longer()
            graph = _before_placer(self._folder, self._concrete)
            if graph is None:
                context.capture.note(NOT_WRITTEN)
                return False
            context.capture.write(BEFORE_PLACER, strip_weights(graph).SerializeToString())
            return True
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cancel(self) -> None:
        if self._is_small:
            self._no_longer()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _no_longer(self) -> None:
        if self._before is None:
            del os.environ[_FOLDER]
        else:
            os.environ[_FOLDER] = self._before


def _before_placer(folder: Path, concrete: Any) -> Any | None:
    """Return the graph of the function among those of the small ones that ran along with it."""
    from tensorflow.core.framework import graph_pb2

    graphs = [graph_pb2.GraphDef.FromString(path.read_bytes()) for path in sorted(folder.glob(f"*{_STAGE}"))]
    wanted = {operation.name for operation in concrete.graph.get_operations()}

    def common(graph: Any) -> int:
        return sum(node.name in wanted for node in graph.node)

    best = max(graphs, key=common, default=None)
    return best if best is not None and common(best) else None
