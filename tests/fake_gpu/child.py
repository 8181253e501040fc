"""Run models, and leave what TensorFlow did with them: ``python -m fake_gpu.child FOLDER STEPS NAME...``.

For each model a folder with TensorFlow's dumps of every function and stage, the outputs, and, for ``STEPS`` above zero,
the profile of so many further calls.  ``NAME`` is a model of `models.py`, or ``random_SEED``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read when the first function is compiled; the folder changes from model to model (`_dumped_to`).
os.environ.update(TF_DUMP_GRAPH_NAME_FILTER="*", TF_DUMP_GRAPH_GROUPS="main", TF_DUMP_GRAPH_FMT="BIN")

import numpy as np
import tensorflow as tf

from fake_gpu import models
from fake_gpu.random_functions import random_function

DUMP_PREFIX = "TF_DUMP_GRAPH_PREFIX"


def main(arguments: list[str]) -> int:
    """Run the named models one after the other; a model that fails does not stop the next one."""
    folder, steps, names = Path(arguments[0]), int(arguments[1]), arguments[2:]
    # The layout pass would turn convolutions to channels first, as before Ampere, which no kernel of a CPU can run.
    tf.config.optimizer.set_experimental_options({"layout_optimizer": False})
    for name in names:
        (folder / name).mkdir(parents=True)
        report = _run(name, folder / name, steps)
        (folder / name / "run.json").write_text(json.dumps(report))
    return 0


def _run(name: str, folder: Path, steps: int) -> dict[str, Any]:
    try:
        function, arguments = _made(name)
        with _dumped_to(folder / "dumps"):
            outputs = _fetched(function(*arguments))
        np.savez(folder / "outputs.npz", *outputs)
        if steps:
            _profile(function, arguments, steps, folder / "profile")
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "steps": 0, "fetches": 0}
    return {"error": "", "steps": steps, "fetches": len(outputs)}


def _made(name: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    if name.startswith("random_"):
        return random_function(int(name.removeprefix("random_")))
    return getattr(models, name)()


class _dumped_to:
    """Have TensorFlow dump what it compiles meanwhile; it looks for the folder whenever it dumps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        os.environ[DUMP_PREFIX] = str(self._folder)

    def __exit__(self, *_: object) -> None:
        del os.environ[DUMP_PREFIX]


def _fetched(outputs: Any) -> list[np.ndarray]:
    arrays = (np.asarray(output) for output in tf.nest.flatten(outputs))
    return [array.astype(np.bytes_) if array.dtype == object else array for array in arrays]


def _profile(function: Callable[..., Any], arguments: tuple[Any, ...], steps: int, folder: Path) -> None:
    with tf.profiler.experimental.Profile(str(folder)):
        for _ in range(steps):
            _fetched(function(*arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
