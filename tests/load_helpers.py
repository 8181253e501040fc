"""Small graphs and the real inputs, for the tests of ``graphlens.loaders``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import graph_pb2

from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile


def graph_def(*nodes: tuple[str, str, tuple[str, ...]]) -> Any:
    """Return a ``GraphDef`` of ``(name, op, inputs)``."""
    message = graph_pb2.GraphDef()
    for name, op, inputs in nodes:
        message.node.add(name=name, op=op, input=inputs)
    return message


def add_function(message: Any, name: str, nodes: list[tuple[str, str, tuple[str, ...]]], args=(), results=None) -> Any:
    """Add a library function to ``message``; all its arguments and results are float32."""
    function = message.library.function.add()
    function.signature.name = name
    for arg in args:
        function.signature.input_arg.add(name=arg, type=1)
    for result, source in (results or {}).items():
        function.signature.output_arg.add(name=result, type=1)
        function.ret[result] = source
    for node, op, inputs in nodes:
        function.node_def.add(name=node, op=op, input=inputs)
    return function


def edges(graph: Any) -> set[tuple[str, str, str]]:
    """Return ``(source, destination, kind)`` of all edges."""
    return {(src, dst, edge.kind) for src, dst, edge in graph.edges()}


def run_tensorflow(script: str, folder: Path, *arguments: object) -> None:
    """Run ``script`` in a process of its own, so that this one stays free of TensorFlow.

    The script is a file in ``folder``, because AutoGraph reads the source; its arguments follow the folder.
    """
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, str(file), str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


class HostPlane:
    """Writes a profile event by event."""

    def __init__(self) -> None:
        self.space = xspace()()
        self.plane = self.space.planes.add(name="/host:CPU")
        self.names: dict[str, int] = {}
        self.stats: dict[str, int] = {}

    def event(self, name, start_ns, end_ns, /, thread=1, **stats):
        line = next((line for line in self.plane.lines if line.id == thread), None)
        line = line or self.plane.lines.add(id=thread, timestamp_ns=1000)
        number = self.names.setdefault(name, len(self.names) + 1)
        self.plane.event_metadata[number].name = name
        event = line.events.add(metadata_id=number, offset_ps=start_ns * 1000, duration_ps=(end_ns - start_ns) * 1000)
        for stat, value in stats.items():
            key = self.stats.setdefault(stat, len(self.stats) + 1)
            self.plane.stat_metadata[key].name = stat
            field = "str_value" if isinstance(value, str) else "int64_value"
            event.stats.add(metadata_id=key, **{field: value})
        return self

    def read(self):
        return read_profile(self.space.SerializeToString())
