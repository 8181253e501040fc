"""Scripts that know nothing of GraphLens: they run as they would by themselves, and their steps are found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from graphlens.loaders.capture.reading import open_capture

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "fixtures" / "scripts"
TIMEOUT_S = 300


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def ended(command: list[str], cwd: Path | None = None) -> Ended:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    return Ended(done.returncode, done.stdout, done.stderr)


def plainly(*words: str, cwd: Path | None = None) -> Ended:
    return ended([sys.executable, *words], cwd)


def run(*words: str, cwd: Path | None = None) -> Ended:
    # As the installed command does it: the folder of the tests is not on the path.
    return ended(
        [
            sys.executable,
            "-c",
            "import sys; from graphlens.__main__ import main; sys.exit(main())",
            "run",
            "--no-prove",
            *words,
        ],
        cwd,
    )


def analysis(place: Path, *words: str) -> tuple[Ended, dict[str, Any]]:
    report = place / "report.json"
    outcome = run("-o", str(report), *words)
    return outcome, json.loads(report.read_text("utf-8"))


def steps_of(outcome: Ended) -> int:
    found = re.search(r"steps=(\d+)", outcome.err)
    assert found is not None, outcome.err
    return int(found[1])


FIT = "multi_step_on_iterator"
CASES = {
    "keras": (("keras_fit.py", "cnn"), FIT, 30),
    "several steps a call": (("keras_fit.py", "mlp", "per_execution=8"), FIT, 240),
    "a function as step": (("custom_loop.py", "function"), "step", 30),
    "a loop over a dataset in a function": (("custom_loop.py", "dataset"), "whole_loop", 240),
    "a loop over an iterator in a function": (("custom_loop.py", "iterator"), "whole_loop", 240),
    "a Session": (("session_loop.py",), "", 30),
    "a recurrent network, compiled and validated": (("keras_fit.py", "lstm", "jit", "validate"), FIT, 30),
    "a train_step of one's own": (("keras_fit.py", "mlp", "custom", "accumulate"), FIT, 30),
    "epochs of a dataset": (("keras_fit.py", "mlp", "finite", "epochs=3"), FIT, 30),
    # The recording holds the end of an epoch: a call that finds no more data is no step.
    "epochs of a dataset of unknown size": (("keras_fit.py", "mlp", "unknown", "epochs=3"), FIT, 29),
    "batches one by one": (("keras_calls.py", "train_on_batch"), "one_step_on_data", 30),
    "predict on changing shapes": (("keras_calls.py", "predict"), "one_step_on_data_distributed", 30),
}
# How much of the op time of a training step is given to a layer or a phase, and to the script's clock where the step
# calls that.
EXPLAINED = {
    "keras": 0.98,
    "several steps a call": 0.95,
    "a function as step": 0.98,
    "a loop over a dataset in a function": 0.98,
    "a loop over an iterator in a function": 0.98,
    "a Session": 0.98,
    "a recurrent network, compiled and validated": 0.95,
    "a train_step of one's own": 0.95,
}


@pytest.mark.tf
@pytest.mark.parametrize("case", CASES)
def test_a_script_prints_what_it_prints_alone_and_its_steps_are_counted(case: str, tmp_path: Path) -> None:
    (script, *arguments), program, steps = CASES[case]
    with ThreadPoolExecutor() as both:  # no time is asserted
        unwatched = both.submit(plainly, str(SCRIPTS / script), *arguments)
        outcome, document = analysis(tmp_path, "--no-prove", str(SCRIPTS / script), *arguments)
        alone = unwatched.result()
    assert (outcome.code, outcome.out) == (alone.code, alone.out) == (0, alone.out)
    assert steps_of(outcome) == steps_of(alone)
    judged = document["programs"][0]
    assert program in judged["name"]
    assert judged["steps"] == steps
    assert document["step"]["profiled_n"] == steps - 1, "the first is told apart"
    # Where each call of a function is a step, they are timed while nothing is recorded, before that and after it.
    if case in ("keras", "a function as step"):
        assert document["step"]["n"] == steps_of(alone) - steps - 1, "neither those of the recording nor the traced one"
        assert document["step"]["median_ns"] <= document["step"]["period_ns"] == document["period"]["ns"]
    if judged["name"].startswith("__inference_multi_step"):
        asked = [finding for finding in document["findings"] if finding["code"] == "GL105"]
        assert not asked, "what Keras' own loop reads is read by no line of the script"
    assert document["target"]["kind"] == "script"
    if case in EXPLAINED:
        phases_account_for_the_step(document, EXPLAINED[case], calls_clock="a loop over" in case)


def phases_account_for_the_step(document: dict[str, Any], least_given: float, calls_clock: bool) -> None:
    training = document["training"]
    assert sum(row["ns"] for row in training["phases"]) == training["op_ns"] > 0
    assert {row["phase"] for row in training["phases"]} >= {"forward", "loss", "backward", "optimizer"}
    assert training["joined_share"] >= 0.97
    clock = sum(row["share"] for row in training["phases"] if row["phase"] == "other" and calls_clock)
    assert training["given_share"] + clock >= least_given
    by_name = {op["name"]: op for op in document["ops"]}
    gradients = [op for op in document["ops"] if op["forward"]]
    lines = {op["name"]: by_name[op["forward"]]["source"] for op in gradients}
    assert all(op["source"] == lines[op["name"]] for op in gradients if lines[op["name"]])
    products = [op["source"] for op in gradients if op["op"] == "MatMul"]
    assert products
    assert all(re.search(r"scripts.\w+\.py:\d+$", source or "") for source in products)


@pytest.mark.tf
def test_a_recording_of_a_script_is_kept_and_judged_elsewhere(tmp_path: Path) -> None:
    words = [str(SCRIPTS / "keras_fit.py"), "mlp", "finite", "epochs=3"]
    outcome = run("-o", str(tmp_path / "fit.capture"), "--steps", "10", *words)
    assert outcome.code == 0, outcome.err
    capture = open_capture(tmp_path / "fit.capture")
    (pipeline,) = capture.manifest.pipelines
    assert [one.kind for one in pipeline.stages] == [
        "TensorSliceDataset",
        "TakeDataset",
        "BatchDatasetV2",
        "PrefetchDataset",
    ]
    lines = Path(SCRIPTS / "keras_fit.py").read_text("utf-8").splitlines()
    written = [lines[int(one.source.rpartition(":")[2]) - 1] for one in pipeline.stages]
    assert ["from_tensor_slices" in written[0], "batch(BATCH" in written[2], "prefetch(2)" in written[3]] == [True] * 3
    judged = plainly(
        "-m", "graphlens", "analyze", str(tmp_path / "fit.capture"), "-o", str(tmp_path / "r.json"), cwd=REPOSITORY
    )
    assert judged.code == 0, judged.err
    document = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert document["programs"][0]["runs"] == 10
    assert document["graphs"]["executed"]["nodes"] > 100
    assert document["quality"]["join_rate"] > 0.97


PROFILES_ITSELF = """
import glob, tensorflow as tf
step = tf.function(lambda x: tf.reduce_sum(x @ x))
def steps(count):
    return [float(step(tf.ones([8, 8]) * i)) for i in range(count)]
steps(6)
tf.profiler.experimental.start("first")
print(steps(40)[-1])
tf.profiler.experimental.stop()
with tf.profiler.experimental.Profile("second"):
    print(steps(4)[-1])
print([len(glob.glob(f"{place}/**/*.xplane.pb", recursive=True)) for place in ("first", "second")])
"""


@pytest.mark.tf
def test_a_script_that_uses_the_profiler_while_it_is_recorded_has_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PROFILES_ITSELF, "utf-8")
    outcome = run("-o", "r.json", "script.py", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (0, "778752.0\n4608.0\n[1, 1]\n"), outcome.err
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["step"]["n"] >= 1


@pytest.mark.tf
@pytest.mark.parametrize("mode", ["eager", "gan", "run_eagerly"])
def test_steps_that_run_op_by_op_are_found_and_timed(mode: str, tmp_path: Path) -> None:
    alone = plainly(str(SCRIPTS / "eager_loop.py"), mode)
    outcome, document = analysis(tmp_path, str(SCRIPTS / "eager_loop.py"), mode)
    assert (outcome.code, outcome.out) == (alone.code, alone.out) == (0, alone.out), outcome.err
    assert steps_of(outcome) == steps_of(alone) == 220
    judged = document["programs"][0]
    assert (judged["name"], judged["role"], judged["runs"], judged["steps"]) == ("eager loop", "step", 30, 30)
    products = {"eager": 8, "gan": 43, "run_eagerly": 5}
    assert {op["name"]: op["calls_per_step"] for op in document["ops"]}["MatMul"] == products[mode]
    assert document["quality"]["profiler_overhead"] is not None, "steps that were not recorded were timed as well"
    assert any("op by op" in note for note in document["quality"]["notes"])
    (found,) = [finding for finding in document["findings"] if finding["code"] == "GL402"]
    told = found["evidence"]
    source, line = told["source"].rsplit(":", 1)
    written = Path(source).read_text("utf-8").splitlines()[int(line) - 1]
    assert ("model.fit(" if mode == "run_eagerly" else "tape.gradient(") in written
    assert told["how"] == ("keras" if mode == "run_eagerly" else "loop")
    step = document["step"]
    assert 0 < found["saving"]["ns"] <= step["median_ns"] - told["kernel_ns"], "kernels would run as long as before"


CALLS_BACK = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import logging, sys, threading
import numpy as np, tensorflow as tf
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "site-packages"))
from bars import Bar
logging.basicConfig(level="INFO", stream=open(os.devnull, "w"))
counter, bar = tf.Variable(0), Bar()
def clipped(values):
    return np.clip(values, -1.0, 1.0)
@tf.function
def step(x):
    return tf.reduce_sum(tf.numpy_function(clipped, [x @ x], tf.float32))
for number in range(60):
    loss = step(tf.ones([64, 64]) * number)
    kept = float(loss)
    shown = f"{loss}"
    row = loss.numpy(), bool(loss > 0)
    bar.show(loss=loss)
    logging.info("loss %s", loss)
    text = str(counter), len(tf.ones(3)), loss.shape, tf.print(loss, output_stream=sys.stderr)
    for one in (loss, loss): int(one)
    if number % 10 == 0: best = max(loss, 0.0)
    other = threading.Thread(target=lambda: float(loss)); other.start(); other.join()
print(kept, shown, row)
"""


@pytest.mark.tf
def test_reads_and_callbacks_of_a_script_are_known_by_their_lines(tmp_path: Path) -> None:
    """Nothing is said of reads that wait for nothing: on a processor a function has its results when it returns."""
    from graphlens.loaders.capture import reading

    script = tmp_path / "script.py"
    script.write_text(CALLS_BACK, "utf-8")
    package = tmp_path / "site-packages" / "bars.py"
    package.parent.mkdir()
    package.write_text('class Bar:\n    def show(self, loss):\n        self.text = f"{loss:.3f}"\n', "utf-8")
    alone = plainly(str(script))
    outcome = run("-o", str(tmp_path / "seen.capture"), str(script))
    assert (outcome.code, outcome.out) == (0, alone.out), outcome.err
    profile = reading.evidence_of(reading.open_capture(tmp_path / "seen.capture")).profile
    assert profile is not None
    lines = CALLS_BACK.splitlines()
    read = Counter((mark.detail, lines[int(mark.source.rpartition(":")[2]) - 1]) for mark in profile.marks)
    assert read == {
        ("__float__", "    kept = float(loss)"): 29,
        ("__format__", '    shown = f"{loss}"'): 29,
        ("numpy", "    row = loss.numpy(), bool(loss > 0)"): 29,
        ("__bool__", "    row = loss.numpy(), bool(loss > 0)"): 29,
        ("__format__", "    bar.show(loss=loss)"): 29,
        ("__str__", '    logging.info("loss %s", loss)'): 29,
        ("numpy", "    text = str(counter), len(tf.ones(3)), loss.shape, tf.print(loss, output_stream=sys.stderr)"): 29,
        ("__int__", "    for one in (loss, loss): int(one)"): 2 * 29,
        ("__bool__", "    if number % 10 == 0: best = max(loss, 0.0)"): 3,
        ("__float__", "    other = threading.Thread(target=lambda: float(loss)); other.start(); other.join()"): 29,
    }, "the recording ends with the last call, before its result is read"
    _, document = analysis_of(tmp_path / "seen.capture", tmp_path)
    (found,) = [finding for finding in document["findings"] if finding["code"] == "GL403"]
    assert found["evidence"]["called_by"] == "tf.numpy_function"
    assert lines[int(found["evidence"]["source"].rpartition(":")[2]) - 1].endswith("tf.float32))")
    assert found["title"].startswith("The step calls Python's 'clipped' back: ")
    assert lines[int(found["evidence"]["function_source"].rpartition(":")[2]) - 1] == "def clipped(values):"
    assert found["saving"]["origin"] == "bound"
    assert "GL105" not in {finding["code"] for finding in document["findings"]}


def analysis_of(capture: Path, place: Path) -> tuple[Ended, dict[str, Any]]:
    outcome = plainly("-m", "graphlens", "analyze", str(capture), "-o", str(place / "again.json"), cwd=REPOSITORY)
    return outcome, json.loads((place / "again.json").read_text("utf-8"))


# -- scripts that end otherwise ------------------------------------------------------------------------------------

ENDINGS = {
    "raises": "def f():\n    raise ValueError('no')\nprint(__name__)\nf()\n",
    "exits": "import sys\nprint(sys.argv[1:], sys.path[0] != '')\nsys.exit(3)\n",
    "is killed": "import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "never calls TensorFlow": "import json\nprint(json.dumps(__file__))\n",
    "does not compile": "print(\n",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_ends_as_it_does_alone(ending: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ENDINGS[ending], "utf-8")
    alone = plainly("script.py", "a", "--b", "-o", cwd=tmp_path)
    outcome = run("script.py", "a", "--b", "-o", cwd=tmp_path)
    assert outcome.out == alone.out
    assert outcome.code == (alone.code if alone.code >= 0 else 128 - alone.code)
    *said, why = outcome.err.splitlines()
    assert said == alone.err.splitlines()
    assert why == "graphlens: the script called no function and no Session of TensorFlow: there is nothing to judge"


def test_a_module_is_run_as_python_runs_one(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    shown = "import sys\nprint(__name__, __package__, sys.argv[1:], sys.path[0])\n"
    (tmp_path / "package" / "module.py").write_text(shown, "utf-8")
    alone = plainly("-m", "package.module", "1", "-m", "2", cwd=tmp_path)
    assert run("-m", "package.module", "1", "-m", "2", cwd=tmp_path).out == alone.out != ""


FORKS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
step = tf.function(lambda x: x @ x)
x = tf.ones((32, 32))
for _ in range(10):
    step(x)
if os.fork() == 0:
    print("child", flush=True)
    os._exit(0)
os.wait()
for _ in range(40):
    step(x)
print("parent")
raise SystemExit(4)
"""


@pytest.mark.tf
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_script_that_forks_and_exits_leaves_what_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FORKS, "utf-8")
    outcome, document = analysis(tmp_path, str(tmp_path / "script.py"))
    assert (outcome.code, outcome.out) == (4, "child\nparent\n")
    assert document["programs"][0]["runs"] == 30


ENDS = """
import os, signal, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
step = tf.function(lambda x: x @ x)
def steps(count):
    for _ in range(count):
        step(tf.ones((32, 32)))
def raises():
    steps(14)
    raise ValueError("of the script")
def leaves_at_once():
    steps(14)
    os._exit(5)
def is_killed():
    steps(50)
    os.kill(os.getpid(), signal.SIGKILL)
def may_use_no_more_memory():
    import resource
    steps(50)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
    bytearray(1 << 30)
def has_workers():
    import multiprocessing
    steps(10)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(sorted(pool.map(abs, [-1, -2, -3])))
    steps(40)
print("begins", flush=True)
globals()[sys.argv[1]]()
"""
# How it ends -> its exit code, what it prints further, and how many calls are judged: three and the first are waited
# for.
ENDS_OF_STEPS = {
    "raises": (1, "", 10),
    "leaves_at_once": (5, "", None),
    "is_killed": (128 + signal.SIGKILL, "", 30),
    "may_use_no_more_memory": (1, "", 30),
    "has_workers": (0, "[1, 2, 3]\n", 30),
}


@pytest.mark.tf
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits and signals of Linux")
@pytest.mark.parametrize("ending", ENDS_OF_STEPS)
def test_what_was_recorded_of_a_script_is_judged_however_it_ends(ending: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ENDS, "utf-8")
    outcome = run("--no-prove", "-o", "r.json", "script.py", ending, cwd=tmp_path)
    code, printed, runs = ENDS_OF_STEPS[ending]
    assert (outcome.code, outcome.out) == (code, f"begins\n{printed}"), outcome.err
    if runs is None:
        assert outcome.err.splitlines()[-1] == (
            "graphlens: the script was killed, or ended itself with os._exit, before a recording was complete: there "
            "is nothing to judge"
        )
        return
    document = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert document["programs"][0]["runs"] == runs
    told = "SIGKILL" if ending == "is_killed" else f"exit code {code}"
    assert any(told in note for note in document["quality"]["notes"]) is bool(code)


ENDLESS = """
import os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
step = tf.function(lambda x: x @ x)
x = tf.ones((32, 32))
for _ in range(14):
    step(x)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.tf
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals of POSIX")
def test_an_interrupt_from_the_keyboard_ends_the_script_and_leaves_what_was_recorded(tmp_path: Path) -> None:
    """All processes of a terminal get it; the recording is cut off where it is."""
    (tmp_path / "script.py").write_text(ENDLESS, "utf-8")
    command = [sys.executable, "-m", "graphlens", "run", "-o", str(tmp_path / "r.json"), str(tmp_path / "script.py")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    assert "KeyboardInterrupt" in err
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["programs"][0]["runs"] == 10


STOPPED = """
import atexit, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
step = tf.function(lambda x: x @ x)
made = []
atexit.register(lambda: print("closed after", len(made)))
try:
    for _ in range(100_000):
        made.append(step(tf.ones((32, 32))))
    print("all steps were made")
except Exception:
    print("it is no error that is caught")
finally:
    print("left")
"""


@pytest.mark.tf
def test_a_script_may_be_ended_once_it_was_recorded_as_if_it_had_called_exit_itself(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STOPPED, "utf-8")
    outcome, document = analysis(tmp_path, "--stop-after-profile", "--steps", "12", str(tmp_path / "script.py"))
    assert (outcome.code, outcome.out) == (0, "left\nclosed after 15\n"), (
        "one that traces, three that do not, 12 less the last"
    )
    assert document["programs"][0]["runs"] == 12


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--batch", "4"), "--batch is not for scripts: a script feeds itself"),
        (("--static",), "--static is not for scripts: a script has no graph before it runs"),
        (("--signature", "s"), "--signature is not for scripts: a script has no signatures and tags"),
        (("--profile", "p"), "--profile is not for scripts: a script is recorded while it runs"),
    ],
)
def test_options_of_models_are_refused_before_the_script_runs(
    option: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text("print('it ran')", "utf-8")
    outcome = run(*option, "script.py", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"graphlens: {why}")


def test_what_is_no_script_is_refused_in_one_line(tmp_path: Path) -> None:
    assert run("missing.py", cwd=tmp_path) == Ended(
        2, "", "graphlens: 'missing.py' is no file; name the script as you would to python\n"
    )
    assert run(cwd=tmp_path).err == "graphlens: name a script to run, or a module with -m\n"
