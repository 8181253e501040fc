"""Session-wide fixtures: small models built once, recordings made once, and the real inputs.

Models are built and executed in processes of their own, so this process need not import TensorFlow for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from end_to_end import Outcome, python
from fake_gpu import build
from fake_gpu.run import MODELS, PROFILED_STEPS, Run, run, runs_in
from real_inputs import REAL, RealInputs
from shared_by_workers import folder_of_the_run, made_once, one_at_a_time

import graphlens
from graphlens.cli import main

# Everything that the end-to-end tests analyze from files, written by one process: importing TensorFlow takes seconds.
BUILD = """
import sys
from pathlib import Path
import tensorflow as tf
from fixtures import models
from graphlens.tf import demo

out = Path(sys.argv[1])

class WritesFile(tf.Module):
    "Leaves a file behind, so that a test can tell whether it ran."

    @tf.function(input_signature=[tf.TensorSpec((2, 2), tf.float32, name="x")])
    def __call__(self, x):
        tf.io.write_file(str(out / "written_by_the_model"), "it ran")
        return {"y": x + 1.0}

for name in ("tiny_cnn", "lstm", "while_if", "jit"):
    models.write(name, out / name)
models.write("tiny_cnn", out / "tiny.keras", "keras")
demo.build().export(str(out / "demo"))
unsafe = WritesFile()
tf.saved_model.save(unsafe, str(out / "writes_file"), signatures=unsafe.__call__)
"""

# A test fails for what was changed, never for what was drawn today; `make fuzz` draws anew, and far more.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("fuzz", derandomize=False, deadline=None, max_examples=2000)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run TensorFlow come first: workers that share a run fill its end with short ones."""
    run_tensorflow = {item.path for item in items if item.get_closest_marker("tf")}
    items.sort(key=lambda item: item.path not in run_tensorflow)


Record = Callable[[str], Path]
Analyzed = Callable[[str], graphlens.Analysis]


@pytest.fixture(scope="session")
def lab() -> Any:
    """What the tests of rewrites share; it imports TensorFlow."""
    import rewrite_lab

    return rewrite_lab


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, imported by the first test that needs it."""
    import tensorflow

    return tensorflow


@pytest.fixture(scope="session")
def shared_real() -> RealInputs:
    """The folder of real inputs that others made; a test that asks for one that is nowhere is skipped."""
    return REAL


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models: SavedModels by their names in `fixtures/models.py`, `demo`, and `tiny.keras`."""

    def build(folder: Path) -> None:
        folder.mkdir()
        python("-c", BUILD, str(folder))

    return made_once(folder_of_the_run(tmp_path_factory) / "small_models", build)


@pytest.fixture(scope="session")
def capture_of(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Record a small model, or a `module:callable`, with `graphlens record`; each once a session."""
    folder = folder_of_the_run(tmp_path_factory) / "captures"

    @cache
    def record(target: str) -> Path:
        words = ("-m", "graphlens", "record", target if ":" in target else str(small_models / target), "-o")
        return made_once(folder / f"{target.replace(':', '-')}.capture", lambda output: python(*words, str(output)))

    return record


@pytest.fixture(scope="session")
def analysis_of(capture_of: Record) -> Analyzed:
    """Judge the recording of a target; each once a session."""
    return cache(lambda target: graphlens.load(capture_of(target)))


# -- the fake GPU --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that gives a process a GPU; where it cannot be built, tests skip, unless they may not."""
    try:
        with one_at_a_time(folder_of_the_run(tmp_path_factory) / "fake_gpu.lock"):
            return build.library()
    except build.Unavailable as reason:
        if os.environ.get("GRAPHLENS_REQUIRE_FAKE_GPU"):
            pytest.fail(f"the fake GPU is required, and cannot be built: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def on_fake_gpu(fake_gpu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every model of `fake_gpu/models.py`, run and profiled on the fake GPU by one process."""
    return models_run_once(tmp_path_factory, "on_fake_gpu", fake_gpu, PROFILED_STEPS)


@pytest.fixture(scope="session")
def on_cpu(fake_gpu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same models on a machine without a GPU; of use only beside those on one."""
    return models_run_once(tmp_path_factory, "on_cpu", None)


def models_run_once(factory: pytest.TempPathFactory, name: str, library: Path | None, steps: int = 0) -> dict[str, Run]:
    place = folder_of_the_run(factory) / name
    return runs_in(made_once(place, lambda folder: run(folder, MODELS, library, steps)), MODELS)


Command = Callable[..., Outcome]


@pytest.fixture(name="run")
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object) -> Outcome:
        try:
            code: int | str | None = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse ends this way
            code = end.code
        return Outcome(int(code or 0), *capsys.readouterr())

    return run_here
