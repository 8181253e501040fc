"""Small graphs and the real inputs, for the tests of ``graphlens.loaders``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto import graph_pb2

REAL = Path(__file__).parents[2] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real inputs are not beside the repository")


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
    return {(src, dst, edge.kind) for src, dst, edge in graph.edges(data="edge")}


def run_tensorflow(script: str, folder: Path, *arguments: object) -> None:
    """Run ``script`` in a process of its own, so that this one stays free of TensorFlow.

    The script is a file in ``folder``, because AutoGraph reads the source; its arguments follow the folder.
    """
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, str(file), str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
