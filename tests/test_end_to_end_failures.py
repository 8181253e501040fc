"""A recording that fails, however it fails, costs the measurement only: one line, exit 3, and the static report."""

from __future__ import annotations

import html
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from end_to_end import Outcome, analyze, assert_one_line, files_in, python, run_python
from real_inputs import RealInputs

from graphlens.children.start import Child
from graphlens.cli import main
from graphlens.pipeline.recorder import child_request

pytestmark = [
    pytest.mark.tf,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="the ways to fail are those of POSIX"),
]

# The user's own programs that go wrong; AutoGraph and limits need a file.
PROGRAMS = '''
import os, resource, signal, sys, time
import tensorflow as tf

ONE = (tf.ones((2, 2)),)
GIGABYTE = 1 << 30


def limit(extra):
    """Let this process have so much more address space, so that nothing here can harm the machine."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))


def in_step(action):
    """A step that is traced well and does `action` when it is run."""
    @tf.function
    def step(x):
        with tf.control_dependencies([tf.py_function(action, [], [])]):
            return tf.nn.relu(x, name="last")
    return step, ONE


def killed_in_step():
    return in_step(lambda: os.kill(os.getpid(), signal.SIGKILL))


def crashes_in_step():
    return in_step(os.abort)


def hangs_in_step():
    return in_step(lambda: time.sleep(600))


def killed_while_traced():
    def step(x):
        os.kill(os.getpid(), signal.SIGKILL)
    return tf.function(step), ONE


def hangs_while_traced():
    def step(x):
        time.sleep(600)
    return tf.function(step), ONE


def fails_while_traced():
    def step(x):
        raise RuntimeError("first line\\n  second line")
    return tf.function(step, autograph=False), ONE


def python_out_of_memory():
    limit(2 * GIGABYTE)
    return in_step(lambda: [bytearray(GIGABYTE) for _ in range(100)])


def tensorflow_out_of_memory():
    limit(2 * GIGABYTE)

    @tf.function
    def step(size):
        return tf.reduce_sum(tf.fill([size, 1 << 20], 1.0, name="huge"), name="last")
    return step, (tf.constant(1 << 20),)


def wrong_shapes():
    @tf.function
    def step(x):
        return tf.linalg.matmul(x, tf.reshape(x, tf.random.uniform([2], 3, 4, tf.int32)), name="last")
    return step, ONE


def prints_a_lot():
    @tf.function
    def step(x):
        print("said while traced")
        tf.print("said in the step", output_stream=sys.stdout)
        return tf.nn.relu(x, name="last")
    return step, ONE
'''


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "programs.py").write_text(PROGRAMS)
    return tmp_path


def report_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "r.json").read_text())  # type: ignore[no-any-return]


def assert_static_report(folder: Path, outcome: Outcome, message: str) -> dict[str, Any]:
    """Exit 3, one line, and a report with the static part and the error in it."""
    assert outcome.code == 3, outcome
    assert_one_line(Outcome(3, "", outcome.err))
    assert message in outcome.err
    report = report_in(folder)
    assert (report["step"], report["ledger"], report["critical_path"]) == (None, [], None)
    assert report["quality"]["grade"] == "none"
    assert [error["stage"] for error in report["errors"]] == ["execute"]
    assert message in report["errors"][0]["message"]
    assert report["graphs"]["traced"]["nodes"] > 0
    assert {status["status"] for status in report["rules"]} <= {"found", "passed", "not-applicable"}
    assert message.partition(":")[0] in html.unescape((folder / "r.html").read_text())
    return report


# -- programs whose graph was traced ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("killed_in_step", "the recording process was killed (out of memory?)"),
        ("crashes_in_step", "the recording process crashed (SIGABRT)"),
        ("python_out_of_memory", "the model failed on its first step: MemoryError; it needs more memory"),
        ("tensorflow_out_of_memory", "the model failed on its first step: OOM when allocating tensor"),
        pytest.param(
            "wrong_shapes",
            "the model failed on its first step: Input to reshape is a tensor with 4 values",
            marks=pytest.mark.heavy,
        ),
    ],
)
def test_a_step_that_dies_leaves_the_static_report(programs: Path, program: str, message: str) -> None:
    before = files_in(programs)
    outcome = analyze(f"programs:{program}", "-o", "r.json", "-o", "r.html", cwd=programs)
    report = assert_static_report(programs, outcome, message)
    assert any(op["name"].startswith("last") for op in report["ops"])
    assert {name for name in files_in(programs) - before if "__pycache__" not in name} == {"r.json", "r.html"}


def time_to_trace_s() -> int:
    """What this machine needs until a small function is traced, with room: several times its import of TensorFlow."""
    start = time.monotonic()
    python("-c", "import tensorflow")
    return 5 + math.ceil(4 * (time.monotonic() - start))


def test_a_step_that_hangs_is_ended_when_its_time_is_up(programs: Path) -> None:
    budget_s = time_to_trace_s()
    start = time.monotonic()
    outcome = analyze("programs:hangs_in_step", "--time-budget", budget_s, "-o", "r.json", "-o", "r.html", cwd=programs)
    assert time.monotonic() - start < 600, "the step itself sleeps longer"
    assert_static_report(programs, outcome, f"recording took longer than the time of {budget_s} s")


# -- programs that leave no graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        ("killed_while_traced", (), "the recording process was killed"),
        ("hangs_while_traced", ("--time-budget", 5), "recording took longer than the time of 5 s"),
        ("fails_while_traced", (), "tracing the function failed: first line"),
    ],
)
def test_what_dies_while_it_is_traced_is_one_line(
    programs: Path, program: str, options: tuple[object, ...], message: str
) -> None:
    outcome = analyze(f"programs:{program}", "-o", "r.json", "-o", "r.html", *options, cwd=programs)
    assert outcome.code == 3
    assert_one_line(outcome)
    assert message in outcome.err
    assert not (programs / "r.json").exists()
    assert not (programs / "r.html").exists()


def test_a_program_that_prints_disturbs_nothing(programs: Path) -> None:
    outcome = analyze("programs:prints_a_lot", "--steps", 2, "-o", "r.json", cwd=programs)
    assert (outcome.code, outcome.err) == (0, "")
    assert "said" not in outcome.out
    assert report_in(programs)["step"]["n"] == 2


# -- model files ------------------------------------------------------------------------------------------------------


def test_an_op_that_tensorflow_does_not_know(small_models: Path, tmp_path: Path) -> None:
    shutil.copytree(small_models / "tiny_cnn", tmp_path / "model")
    file = tmp_path / "model" / "saved_model.pb"
    op = b"\x12\x07Softmax"  # NodeDef.op; a name of the same length leaves every other length as it was
    assert op in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(op, b"\x12\x07Hardmax"))
    outcome = analyze("model", "-o", "r.json", "-o", "r.html", cwd=tmp_path)
    report = assert_static_report(
        tmp_path, outcome, "registers the types of its ops: Hardmax (of an unknown package); name"
    )
    assert [op["op"] for op in report["ops"] if op["op"].endswith("max")] == ["Hardmax"]
    found = {finding["code"] for finding in report["findings"]}
    assert "GL203" in found  # judged on the traced graph


@pytest.mark.parametrize("name", ["bad_node_attr", pytest.param("negative_shape", marks=pytest.mark.heavy)])
def test_a_model_that_only_tensorflow_rejects(shared_real: RealInputs, tmp_path: Path, name: str) -> None:
    outcome = analyze(shared_real / "malformed" / name, "-o", "r.json", "-o", "r.html", cwd=tmp_path)
    assert_static_report(tmp_path, outcome, f"TensorFlow cannot load {shared_real / 'malformed' / name}:")


def test_a_batch_that_no_memory_can_hold(small_models: Path, tmp_path: Path) -> None:
    """The input alone would be 1.2 TB; the limit keeps a lenient machine from trying."""
    arguments = ("--batch", 100_000_000, "-o", "r.json", "-o", "r.html")
    outcome = analyze(small_models / "tiny_cnn", *arguments, cwd=tmp_path, before="ulimit -v 20000000")
    assert_static_report(tmp_path, outcome, "Unable to allocate")


def test_too_little_time_for_anything(small_models: Path, tmp_path: Path) -> None:
    outcome = analyze(small_models / "tiny_cnn", "--time-budget", 0.2, "-o", "r.json", "-o", "r.html", cwd=tmp_path)
    report = assert_static_report(tmp_path, outcome, "recording took longer than the time of 0.2 s")
    assert "GL203" in {finding["code"] for finding in report["findings"]}


def test_a_missing_variables_file(small_models: Path, tmp_path: Path) -> None:
    shutil.copytree(small_models / "tiny_cnn", tmp_path / "model")
    next((tmp_path / "model" / "variables").glob("*.data-*")).unlink()
    outcome = analyze("model", "-o", "r.json", "-o", "r.html", cwd=tmp_path)
    assert_static_report(tmp_path, outcome, "TensorFlow cannot load")


def test_inputs_that_do_not_fit_are_wrong_usage(small_models: Path, tmp_path: Path) -> None:
    outcome = analyze(small_models / "tiny_cnn", "--shape", "image=1,8,8,3", "-o", "r.json", cwd=tmp_path)
    assert outcome.code == 2
    assert_one_line(outcome)
    assert "--shape gives 'image' the shape (1,8,8,3), but the model wants (?,32,32,3)" in outcome.err
    assert files_in(tmp_path) == set()


# -- a child that is killed from outside ------------------------------------------------------------------------------


def kill_when_traced(child: Child) -> None:
    """Wait for the child's own note that the graph is traced, then kill it."""
    manifest = child.directory / "capture.json"
    while child.process.poll() is None:
        if manifest.exists() and "trace" in json.loads(manifest.read_text())["stages_done"]:
            os.kill(child.process.pid, signal.SIGKILL)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("command", ["analyze", "record"])
def test_a_child_killed_on_the_way(
    small_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    gathering = sys.modules[child_request.__module__]
    start = gathering.start_recorder

    def start_and_watch(*arguments: Any, **options: Any) -> Child:
        child = start(*arguments, **options)
        threading.Thread(target=kill_when_traced, args=(child,), daemon=True).start()
        return child

    monkeypatch.setattr(gathering, "start_recorder", start_and_watch)
    monkeypatch.chdir(tmp_path)
    outputs = ["-o", "r.json", "-o", "r.html"] if command == "analyze" else ["-o", "out.capture"]
    code = main([command, str(small_models / "lstm"), *outputs])
    outcome = Outcome(code, *capsys.readouterr())
    if command == "analyze":
        assert_static_report(tmp_path, outcome, "the recording process was killed (out of memory?)")
        assert files_in(tmp_path) == {"r.json", "r.html"}
    else:
        assert outcome.code == 3
        assert_one_line(outcome)
        assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("signal_name", "code", "word"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 143, "terminated")],
)
def test_a_parent_that_is_told_to_end_leaves_nothing(programs: Path, signal_name: str, code: int, word: str) -> None:
    """Ctrl-C, `kill` and a closed terminal end the child as well; no half report and no recording stay behind."""
    script = (
        "import signal, sys, threading, os\n"
        "from graphlens.cli import main\n"
        f"threading.Timer(4, lambda: os.kill(os.getpid(), signal.{signal_name})).start()\n"
        "sys.exit(main(['analyze', 'programs:hangs_in_step', '-o', 'r.json']))\n"
    )
    (programs / "temporary").mkdir()
    outcome = run_python("-c", script, cwd=programs, before=f"export TMPDIR={programs}/temporary")
    assert outcome.code == code
    assert outcome.err == f"graphlens: {word}\n"
    assert not (programs / "r.json").exists()
    assert list((programs / "temporary").iterdir()) == []
