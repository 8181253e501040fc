"""Whether XLA pays, asked of real programs: what is answered, what is in the way, and what the compiler refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end import REPOSITORY, run_python

from graphlens.children.messages import RecordRequest
from graphlens.ir.edits import JitCompile
from graphlens.prove import TrialRunner
from graphlens.prove.runner import TrialError

pytestmark = pytest.mark.tf

PROGRAMS = """
import tensorflow as tf

COUNT = tf.Variable(0.0)

@tf.function(input_signature=[tf.TensorSpec((None, 512), tf.float32, name="x")])
def waves(x):
    "Elementwise ops only: XLA makes one loop of them."
    for _ in range(20):
        x = tf.tanh(x) * 0.9 + tf.sin(x) * 0.1
    return {"y": x}

@tf.function(input_signature=[tf.TensorSpec((None, 64), tf.float32, name="x")])
def labelled(x):
    return {"label": tf.strings.as_string(tf.reduce_sum(tf.tanh(x) * 2.0, axis=1))}

@tf.function(input_signature=[tf.TensorSpec((), tf.int32, name="n")])
def grows(n):
    "Each iteration makes the tensor longer, so that no size is known to the compiler."
    start = tf.zeros((1,), tf.int32)
    invariants = [tf.TensorShape(()), tf.TensorShape((None,))]
    body = lambda i, x: (i + 1, tf.concat([x, tf.repeat(i, i + 1)], 0))
    return tf.while_loop(lambda i, x: i < n, body, [tf.constant(0), start], shape_invariants=invariants)[1]

@tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="x")])
def counts(x):
    "Writes a variable, as a training step does."
    COUNT.assign_add(tf.reduce_sum(x) * 2.0)
    return tf.tanh(x) * COUNT
"""
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "programs.py").write_text(PROGRAMS)
    return folder


def about_xla(programs: Path, program: str) -> dict[str, Any]:
    """What GL213 says of a program that is analyzed with proofs."""
    arguments = ("analyze", f"programs:{program}", "--select", "GL213", "--steps", "5", "-o", f"{program}.json")
    outcome = run_python("-m", "graphlens", *arguments, cwd=programs, before=f"export PYTHONPATH={REPOSITORY}")
    assert (outcome.code, outcome.err) == (0, "")
    (finding,) = json.loads((programs / f"{program}.json").read_text())["findings"]
    return finding  # type: ignore[no-any-return]


@pytest.fixture
def runner(programs: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TrialRunner]:
    """The program that the test names, open."""
    target = RecordRequest(f"programs:{request.param}", "callable", import_path=str(programs))
    made = TrialRunner(target, tmp_path, {"PYTHONPATH": os.pathsep.join([str(programs), str(REPOSITORY)])})
    made.open(LIMIT_S)
    yield made
    made.close()


def test_an_elementwise_program_gets_an_answer_with_what_it_costs(programs: Path) -> None:
    finding = about_xla(programs, "waves")
    proof = finding["proof"]
    assert finding["fix"]["edits"] == [{"edit": "jit-compile"}]
    assert proof["verdict"] in {"proven", "refuted", "inconclusive"}
    assert proof["speedup"] > 0
    assert proof["compile_ns"] > 0
    assert proof["compiled_ops"] == proof["program_ops"] >= 100
    assert 0 < proof["fusions"] < proof["compiled_ops"]
    assert "once for every new shape of the inputs" in proof["why"]
    assert finding["severity"] == "info" or proof["verdict"] == "proven"


def test_an_op_on_strings_is_named_and_nothing_is_offered(programs: Path) -> None:
    finding = about_xla(programs, "labelled")
    assert finding["evidence"]["kinds"]["AsString"] == 1
    assert (finding["fix"]["edits"], finding["fix"]["safety"]) == ([], "manual")
    assert (finding["severity"], finding["proof"]["verdict"]) == ("info", "not-run")


@pytest.mark.parametrize("runner", ["grows"], indirect=True)
def test_what_the_compiler_refuses_fails_with_its_own_words(runner: TrialRunner) -> None:
    with pytest.raises(TrialError) as refused:
        runner.apply("compiled", [[JitCompile()]], LIMIT_S)
    assert "\n" not in str(refused.value)
    assert str(refused.value).strip()
    assert runner.apply("copy", [], LIMIT_S).compiled is None, "the child serves on"


@pytest.mark.parametrize("runner", ["counts"], indirect=True)
def test_a_compiled_step_writes_the_same_values(runner: TrialRunner) -> None:
    applied = runner.apply("compiled", [[JitCompile()]], LIMIT_S)
    assert applied.compiled is not None
    comparison = runner.compare("compiled", None, LIMIT_S)
    assert comparison.unstable == ()
    assert any("COUNT" in one.output or "Variable" in one.output for one in comparison.differences)
    assert all(one.agrees for one in comparison.differences)
