"""Trials of a script: it stands still before its steps, makes as many as it is told, and nothing else is done twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from graphlens.children.gate_messages import (
    AtGate,
    CompareValues,
    KeepValues,
    Over,
    RunBlock,
    RunSteps,
    RunToGate,
    Taken,
    TakeValues,
    Watched,
)
from graphlens.children.messages import Block, Comparison, Difference, Done, Failure
from graphlens.children.script_trial import ScriptTrial, start
from graphlens.ir.analysis import Target
from graphlens.ir.edits import ChangeDtype, Edit, FoldAffine, JitCompile, ScriptSetting, SessionSetting
from graphlens.ir.evidence import Evidence
from graphlens.ir.program import Program
from graphlens.ir.script import Script, ScriptFunction
from graphlens.pipeline.reruns import watched_of, why_not_found
from graphlens.pipeline.running import _rerun
from graphlens.prove.script_runner import edits_for
from tests.fake_runner import FakeEdit, FakeRunner
from tests.test_prove_prover import finding, proof, proven

TARGET = Target("train.py", "script")
OFF = Difference("y", "float32", 1e-5, 0.1, 0.01)
KERAS = Watched("multi_step_on_iterator")
LIMIT_S = 120

# -- what is done outside of a process --------------------------------------------------------------------------------

DEEDS = """
import os, socket, sqlite3, subprocess, sys, tempfile
from graphlens.tf.watch import outside
told = []
outside.watch(told.append, own=sys.argv[1], caches=True)
open("new", "w").close()
open("new", "a").close()
open("new").close()
os.rename("new", "other")
os.remove("other")
os.makedirs(".", exist_ok=True)
os.mkdir("folder")
subprocess.run([sys.executable, "-c", ""])
open(os.path.join(sys.argv[1], "mine"), "w").close()
open(os.devnull, "w").close()
tempfile.TemporaryFile().close()
with tempfile.TemporaryDirectory() as folder:
    os.mkdir(os.path.join(folder, "inner"))
    open(os.path.join(folder, "inner", "file"), "w").close()
sqlite3.connect(":memory:").close()
sqlite3.connect("base").close()
try:
    socket.create_connection(("127.0.0.1", 9), 0.1)
except OSError:
    pass
print(*told, sep="\\n")
"""


def test_files_programs_and_hosts_are_told_of_and_what_is_read_or_temporary_is_not(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "home").mkdir()
    told = subprocess.run(
        [sys.executable, "-c", DEEDS, str(tmp_path / "own")],
        cwd=tmp_path / "home", capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path / "temporary"), "HOME": "/nowhere"},
    ).stdout.splitlines()  # fmt: skip
    assert told == [
        "writes the file 'new'",
        "writes the file 'new'",
        "renames 'new'",
        "removes 'other'",
        "makes the folder 'folder'",
        f"starts {sys.executable}",
        "opens the database 'base'",
        "connects to 127.0.0.1:9",
    ]


def test_a_script_that_did_something_before_its_steps_is_not_run_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    assert _rerun(tmp_path, ["a.py"], 1.0, allowed=False).why_not == ""
    (tmp_path / "deeds.txt").write_text("writes the file 'model.keras'\nforks\n", "utf-8")
    assert _rerun(tmp_path, ["a.py"], 1.0, allowed=False).why_not == (
        "before its steps were recorded the script writes the file 'model.keras', which a second run would do again; "
        "pass --rerun to allow that"
    )
    assert _rerun(tmp_path, ["a.py"], 1.0, allowed=True).why_not == ""


# -- what is tried, and on what -------------------------------------------------------------------------------------


def test_edits_of_a_graph_are_what_they_are_for_a_script_or_nothing() -> None:
    step = Watched("step")
    assert edits_for([JitCompile()], KERAS) == (ScriptSetting("jit_compile"),)
    assert edits_for([JitCompile()], step) == (ScriptSetting("jit_compile", function="step"),)
    assert edits_for([ChangeDtype(from_="float32", to="bfloat16")], KERAS) == (
        ScriptSetting("mixed_precision", "mixed_bfloat16"),
    )
    assert edits_for([ChangeDtype(from_="float32", to="bfloat16")], step) is None
    assert edits_for([SessionSetting({"A": "1"}), FoldAffine()], KERAS) is None


def test_the_program_is_found_again_by_its_name_and_its_place_among_those_of_that_name() -> None:
    functions = (
        ScriptFunction("a", "step", calls=300, concretes=("__inference_step_1",)),
        ScriptFunction("b", "step", calls=40, concretes=("__inference_step_9", "__inference_step_12")),
        ScriptFunction("c", "epoch", calls=3, concretes=("__inference_epoch_20",)),
    )

    def watched(name: str) -> Any:
        evidence = Evidence(
            target=TARGET, programs=(Program("p", name),), judged="p", script=Script(functions=functions)
        )
        return watched_of(evidence)

    assert watched("__inference_step_12") == (Watched("step", 1), 40)
    assert watched("__inference_epoch_20") == (Watched("epoch", 0, called_again=True), 3)
    assert watched("__inference_other_3") is None


def test_eager_steps_are_not_tried_and_the_reason_is_theirs() -> None:
    eager = Evidence(target=TARGET, script=Script(eager_steps=200))
    assert watched_of(eager) is None
    assert why_not_found(eager).startswith("its steps run op by op")
    assert why_not_found(replace(eager, script=Script())).startswith("the calls of the program that is judged")


# -- verdicts -------------------------------------------------------------------------------------------------------


@dataclass
class Uncompared(FakeRunner):
    """A runner of a script whose two runs differ."""

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        return replace(super().compare(variant, computes_in, time_limit_s), differences=(), uncompared="they differ")


@dataclass(frozen=True)
class FakeOption(ScriptSetting):
    """A change of a script that multiplies the speed."""

    faster: float = 1.0


FASTER = finding("GL406", 0.3, FakeOption("steps_per_execution", "8", faster=2.0))
SLOWER = finding("GL213", 0.3, FakeOption("jit_compile", faster=0.5))


def test_what_cannot_be_compared_is_not_proven_and_can_be_refuted() -> None:
    outcome = proven(FASTER, SLOWER, runner=Uncompared())
    faster, slower = proof(outcome, "GL406"), proof(outcome, "GL213")
    assert (faster.verdict, slower.verdict) == ("inconclusive", "refuted")
    assert "but the numbers were not compared: they differ" in faster.why
    assert faster.speedup == pytest.approx(2.0)


def test_other_numbers_of_what_is_meant_to_change_them_are_no_failure() -> None:
    wrong = replace(OFF, max_rel=0.3)
    meant = finding("GL603", 0.3, FakeOption("sparse_optimizer", faster=2.0))
    unmeant = finding("GL406", 0.3, FakeOption("steps_per_execution", "8", faster=2.0))
    for one, verdict in ((meant, "changes-numbers"), (unmeant, "failed")):
        runner = FakeRunner(differences={ScriptSetting.kind: wrong})
        found = proof(proven(one, runner=runner), one.code)
        assert found.verdict == verdict
        assert ("whether it trains as well" in found.why) == (verdict == "changes-numbers")


def test_a_manual_change_of_a_script_is_measured_and_one_of_a_model_is_not() -> None:
    of_script = finding("GL603", 0.3, FakeOption("sparse_optimizer", faster=2.0), safety="manual")
    of_model = finding("GL203", 0.3, FakeEdit("fold", 2.0), safety="manual")
    outcome = proven(of_script, of_model)
    assert proof(outcome, "GL603").verdict == "proven"
    assert proof(outcome, "GL203").verdict == "not-run"


# -- the script itself ----------------------------------------------------------------------------------------------

LOOP = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
table = tf.Variable(np.random.default_rng().random((4, 4), dtype="float32"))
count = tf.Variable(0)

@tf.function
def other(x):
    return x + 1

@tf.function
def step(x):
    count.assign_add(1)
    table.assign(table @ table * 0.3 + x)
    return tf.reduce_sum(table)

for number in range(10**6):
    other(1.0)
    step(tf.random.uniform((4, 4)))
    if number == 200:
        with tf.io.gfile.GFile(sys.argv[1], "w") as file:
            file.write("done")
"""


def trial(folder: Path, script: Path, *edits: Edit, at_step: int = 0, watched: Watched | None = None) -> Any:
    begun = start(folder, [str(script), str(script.with_name("written"))], {})
    answer = begun.ask(RunToGate(watched or Watched("step"), tuple(edits), at_step), LIMIT_S)
    return begun, answer


@pytest.fixture(scope="module", name="two")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptTrial, ScriptTrial, Path, list[Any]]]:
    folder = tmp_path_factory.mktemp("trials")
    script = folder / "loop.py"
    script.write_text(LOOP, "utf-8")
    first, at_first = trial(folder / "a", script)
    second, at_second = trial(folder / "b", script, ScriptSetting("jit_compile", function="step"), at_step=8)
    yield first, second, folder, [at_first, at_second]
    first.end()
    second.end()


@pytest.mark.tf
def test_a_script_stands_still_before_a_step_and_makes_as_many_as_it_is_told(two: Any) -> None:
    first, second, folder, gates = two
    assert [(type(gate), gate.step, gate.calls) for gate in gates] == [(AtGate, 8, 8), (AtGate, 8, 8)]
    assert [gate.applied for gate in gates] == [{}, {"jit_compile": 1}]
    before, after = str(folder / "before.npz"), str(folder / "after.npz")
    assert first.ask(KeepValues(before), LIMIT_S) == Done()
    # What both began from was drawn without a seed: it is seeded for them.  XLA rounds otherwise.
    assert all(one.agrees for one in second.ask(CompareValues(before, rtol=1e-4), LIMIT_S).differences)
    assert second.ask(TakeValues(before), LIMIT_S) == Taken(1, 2)
    assert isinstance(first.ask(RunSteps(5), LIMIT_S), Block)
    first.ask(KeepValues(after), LIMIT_S)
    assert second.ask(TakeValues(after), LIMIT_S) == Taken(2, 2), "five steps later they hold something else"
    assert second.ask(TakeValues(before), LIMIT_S) == Taken(2, 2)
    second.ask(RunSteps(5), LIMIT_S)
    compared = second.ask(CompareValues(after, rtol=1e-4), LIMIT_S)
    assert {one.dtype for one in compared.differences} == {"float32", "int32"}
    assert all(one.agrees for one in compared.differences), compared
    block = first.ask(RunBlock(5.0), LIMIT_S)
    assert min(block.wall_ns, block.cpu_ns) > 0


@pytest.mark.tf
def test_a_script_is_stopped_before_it_writes_a_file(two: Any) -> None:
    first, _, folder, _ = two
    answer: Any = None
    for _ in range(100):
        answer = first.ask(RunSteps(50), LIMIT_S)
        if isinstance(answer, Over):
            break
    assert answer == Over(f"the script was stopped before it writes the file '{folder / 'written'}'")
    assert not (folder / "written").exists()


@pytest.mark.tf
def test_what_is_no_change_of_a_script_is_refused(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print(1)\n", "utf-8")
    begun, answer = trial(tmp_path / "t", tmp_path / "script.py", FoldAffine())
    begun.end()
    assert answer == Failure("'fold-affine' changes a graph, and a script has its own")
