"""What lies in the current folder or in a model is never imported for the analysis of a model file, by no process.

The planted modules are harmless: each leaves a mark beside itself.  Probes and proofs run, as they do by default.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from end_to_end import REPOSITORY, Outcome, python

pytestmark = pytest.mark.tf

BUILD = """
import sys
import tensorflow as tf

class Model(tf.Module):
    def __init__(self):
        self.kernel = tf.Variable(tf.random.stateless_normal([3, 3, 16, 32], [1, 2]))
        self.offset = tf.Variable(tf.ones([32]))

    @tf.function(input_signature=[tf.TensorSpec([4, 32, 32, 16], tf.float32, name="image")])
    def step(self, image):
        "A convolution that is not fused, since somebody else reads it: a probe finds out, and XLA is tried as a fix."
        inner = tf.nn.conv2d(image, self.kernel, 1, "SAME")
        return {"fused": tf.nn.relu(tf.nn.bias_add(inner, self.offset)), "seen": tf.nn.softmax(inner)}

model = Model()
tf.saved_model.save(model, sys.argv[1], signatures=model.step)
"""
GRAPHLENS = Path(sys.executable).with_name("graphlens")
THIRD_PARTY = (
    "tensorflow",
    "keras",
    "numpy",
    "networkx",
    "google",
    "tensorboard",
    "rich",
    "jinja2",
    "graphviz",
    "ml_dtypes",
)
CUSTOM = ("sitecustomize", "usercustomize")
MARK = "from pathlib import Path\nPath(__file__ + '.ran').touch()\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel in a folder of its own."""
    folder = tmp_path_factory.mktemp("models") / "model"
    python("-c", BUILD, str(folder))
    return folder


def plant(folder: Path) -> None:
    """Put a module in the place of every one that anybody might import."""
    for name in (*sys.stdlib_module_names, *THIRD_PARTY, *CUSTOM):
        (folder / f"{name}.py").write_text(MARK)


def executed(*folders: Path) -> set[str]:
    return {mark.name.partition(".")[0] for folder in folders for mark in folder.rglob("*.ran")}


def analyzed(folder: Path, model: Path, *command: str) -> Outcome:
    """Run the default analysis from ``folder``, with the empty entries in PYTHONPATH that scripts leave there."""
    arguments = ["analyze", str(model), "--steps", "5", "-o", "report.json", "-o", "report.html"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_probed_and_proven(report: Path) -> None:
    """Otherwise the test would show nothing about the processes of probes and proofs."""
    findings = {finding["code"]: finding for finding in json.loads(report.read_text())["findings"]}
    assert "reads an inner result too" in findings["GL201"]["reason"]
    assert findings["GL213"]["proof"]["verdict"] in {"proven", "refuted", "inconclusive"}


def test_nothing_in_the_current_folder_or_in_the_model_or_beside_it_is_imported(model: Path, tmp_path: Path) -> None:
    """Planted in all three at once: each is a way of its own onto the path, and one run goes all of them."""
    folders = (tmp_path, model.parent, model)
    for folder in folders:
        plant(folder)
    outcome = analyzed(tmp_path, model, str(GRAPHLENS))
    assert (outcome.code, outcome.err) == (0, "")
    assert_probed_and_proven(tmp_path / "report.json")
    assert executed(*folders) == set()


def test_python_m_imports_no_more_than_python_itself_does(model: Path, tmp_path: Path) -> None:
    """Python imports a few of its own modules before it hands over; the command and its children import none."""
    plant(tmp_path)
    own = python("-c", "import runpy, pkgutil, sys; print(*sys.modules)").split()
    for name in own:
        (tmp_path / f"{name}.py").unlink(missing_ok=True)
    outcome = analyzed(tmp_path, model, sys.executable, "-m", "graphlens")
    assert (outcome.code, outcome.err) == (0, "")
    assert_probed_and_proven(tmp_path / "report.json")
    assert executed(tmp_path) == set()


# -- a parent that is killed ------------------------------------------------------------------------------------------


@contextmanager
def analysis(model: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(GRAPHLENS), "analyze", str(model), "--steps", "5", "-o", "report.json"]
    env = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, cwd=folder.parent, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def processes_of(folder: Path) -> set[int]:
    """The processes that were told of ``folder`` when they started."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (place / "environ").read_bytes():
                found.add(int(place.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def a_child_runs(folder: Path, started: str) -> bool:
    """Whether it has come as far as ``started`` and a child runs: one may have ended before the next one starts."""
    return any(folder.glob(f"graphlens-*/{started}")) and len(processes_of(folder)) > 1


def wait_for(what: Callable[[], object], limit_s: float) -> bool:
    end_s = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="nobody says which processes run")
@pytest.mark.parametrize(
    "started", ["stderr.txt", "capture.json", "probes/*/stderr.txt", "trials/*/opened/capture.json"]
)
def test_no_child_outlives_a_killed_parent_and_the_next_run_removes_what_it_left(
    model: Path, tmp_path: Path, started: str
) -> None:
    """Killed while TensorFlow is imported, while the model is recorded, in the probes, and in the proofs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with analysis(model, folder) as running:
        assert wait_for(lambda: a_child_runs(folder, started), 120), "it did not come that far"
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert wait_for(lambda: not processes_of(folder), 5), "a child lives on"
    assert list(folder.iterdir()) != []
    assert not (tmp_path / "report.json").exists()
    outcome = subprocess.run(
        [str(GRAPHLENS), "analyze", str(model), "--static"],
        env={**os.environ, "TMPDIR": str(folder)}, cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert list(folder.iterdir()) == []
