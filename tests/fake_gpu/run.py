"""Run models in a child process that has the fake GPU, or has none, and read what TensorFlow left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import graph_pb2

TESTS = Path(__file__).parents[1]
TIMEOUT_S = 550
PROFILED_STEPS = 3

MODELS = (
    "cnn lookup integers loop transformer transformer_static vectorization detection recurrent explicit_devices ragged "
    "state python_op dataset train_step mobilenet_train bilstm_train"
).split()

# The stages that a function passes, as TensorFlow's dumps name them.
BEFORE_PLACER = "before_placer"
PLACED = "before_post_placement_passes"
OPTIMIZED = "after_graph_optimization"
PARTITIONED = "after_partition_passes"

_DUMP = re.compile(r"(?P<function>.+)\.\d+\.main\.(?P<stage>\w+)\.pb")
_PARTITION = re.compile(r"(?P<function>.+)_partition_(?P<device>_job:.+_device:(?P<kind>\w+):(?P<index>\d+))")


@dataclass(frozen=True)
class Run:
    """What one model left: dumps of its functions, outputs, the profile of some steps."""

    name: str
    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """How it ended: ``error`` (empty when it ran), ``steps`` profiled, ``fetches`` a step."""
        return json.loads((self.folder / "run.json").read_text())

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The functions that were compiled, the one with the longest graph first."""
        sizes = {match["function"]: path.stat().st_size for path, match in self._dumps(BEFORE_PLACER)}
        return tuple(sorted(sizes, key=lambda name: -sizes[name]))

    @property
    def was_placed(self) -> bool:
        """Whether TensorFlow placed its function; it refuses some wishes of random ones, and nothing is dumped then."""
        return bool(self._dumps(PLACED))

    def graph(self, stage: str, function: str | None = None) -> Any:
        """Return the GraphDef of a function, by default the longest, at one stage of the whole graph."""
        wanted = function or self.functions[0]
        (path,) = (path for path, match in self._dumps(stage) if match["function"] == wanted)
        return _read(path)

    def partitions(self, function: str | None = None) -> dict[str, Any]:
        """Return the executed graphs of a function, by device (``CPU:0``)."""
        wanted = function or self.functions[0]
        found = {}
        for path, match in self._dumps(PARTITIONED):
            part = _PARTITION.fullmatch(match["function"])
            if part and part["function"] == wanted:
                found[f"{part['kind']}:{part['index']}"] = _read(path)
        return found

    @cached_property
    def outputs(self) -> list[np.ndarray]:
        """The values that the first call returned, flat."""
        with np.load(self.folder / "outputs.npz") as file:
            return [file[name] for name in file.files]

    @property
    def profile(self) -> Path:
        """The XPlane of the profiled steps."""
        (path,) = (self.folder / "profile").rglob("*.xplane.pb")
        return path

    def _dumps(self, stage: str) -> list[tuple[Path, re.Match[str]]]:
        matches = ((path, _DUMP.fullmatch(path.name)) for path in sorted((self.folder / "dumps").iterdir()))
        return [(path, match) for path, match in matches if match and match["stage"] == stage]


def run(folder: Path, names: Iterable[str], library: Path | None, steps: int = 0) -> dict[str, Run]:
    """Run the named models in one child process and return what each left in ``folder``.

    Parameters
    ----------
    library
        The fake GPU; ``None`` for a machine with a CPU only.
    steps
        Calls to profile after the first one; none by default.
    """
    names = list(names)
    env = {**os.environ, "PYTHONPATH": str(TESTS), "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    if library is not None:
        env["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"] = str(library)
    command = [sys.executable, "-X", "faulthandler", "-m", "fake_gpu.child", str(folder), str(steps), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"the child ended with {done.returncode}: {done.stderr[-3000:]}"
    return runs_in(folder, names)


def runs_in(folder: Path, names: Iterable[str]) -> dict[str, Run]:
    """Return what the named models left in ``folder``."""
    return {name: Run(name, folder / name) for name in names}


def _read(path: Path) -> Any:
    return graph_pb2.GraphDef.FromString(path.read_bytes())
