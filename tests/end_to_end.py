"""Helpers of the end-to-end tests: processes of their own, and SavedModels written without TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto import graph_pb2, meta_graph_pb2

REPOSITORY = Path(__file__).parents[1]
CAPTURES = REPOSITORY / "fixtures" / "captures"
TIMEOUT_S = 900


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def python(*arguments: str) -> str:
    """Run Python in the repository's folder and return what it prints; it must succeed."""
    outcome = run_python(*arguments)
    assert outcome.code == 0, f"{arguments[:5]} ended with {outcome.code}: {outcome.err[-3000:]}"
    return outcome.out


def run_python(*arguments: str, cwd: Path = REPOSITORY, before: str = "") -> Outcome:
    """Run Python in ``cwd``; ``before`` are shell commands run first, limits for instance."""
    command: Any = [sys.executable, *arguments]
    if before:
        command = ["/bin/sh", "-c", f'{before}; exec "$@"', "sh", *command]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=TIMEOUT_S)
    return Outcome(done.returncode, done.stdout, done.stderr)


def analyze(*arguments: object, cwd: Path = REPOSITORY, before: str = "") -> Outcome:
    """Run ``graphlens analyze`` in a process of its own; proofs take minutes and have tests of their own."""
    return run_python("-m", "graphlens", "analyze", "--no-prove", *map(str, arguments), cwd=cwd, before=before)


def assert_one_line(outcome: Outcome) -> None:
    """A failure is one line for the user and never a traceback."""
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("graphlens: ")
    assert "Traceback" not in outcome.out + outcome.err


def files_in(folder: Path) -> set[str]:
    """Every file below ``folder``, hidden ones included, so that a leftover shows."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# -- models without TensorFlow --------------------------------------------------------------------------------------


def write_saved_model(folder: Path, nodes: list[tuple[str, str, tuple[str, ...]]]) -> Path:
    """Write a SavedModel of float32 ops ``(name, op, inputs)``; its signature goes from the first op to the last."""
    graph = graph_pb2.GraphDef()
    for name, op, inputs in nodes:
        node = graph.node.add(name=name, op=op, input=inputs)
        node.attr["T" if inputs else "dtype"].type = 1
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    meta.meta_info_def.tags.append("serve")
    signature = meta.signature_def["serving_default"]
    for side, name in ((signature.inputs, nodes[0][0]), (signature.outputs, nodes[-1][0])):
        side[name].name, side[name].dtype = f"{name}:0", 1
    folder.mkdir(parents=True, exist_ok=True)
    content = meta.SerializeToString()
    # SavedModel: field 1 is the schema's version, field 2 holds the MetaGraphs; TensorBoard has no class for it.
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12" + _varint(len(content)) + content)
    return folder


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def assert_refused(outcome: Outcome, message: str, folder: Path, before: set[str]) -> None:
    """Exit 2, one clear line, and the folder as it was."""
    assert outcome.code == 2
    assert_one_line(outcome)
    assert message in outcome.err
    assert outcome.out == ""
    assert files_in(folder) == before
