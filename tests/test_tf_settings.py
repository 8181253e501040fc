"""Settings in a real second child: that they take effect, how outputs are compared, and what becomes of its death."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphlens.children.messages import RecordRequest
from graphlens.cli import main
from graphlens.errors import RewriteError
from graphlens.ir.document import from_json
from graphlens.ir.edits import SessionSetting
from graphlens.ir.settings import ONEDNN, onednn_on
from graphlens.prove import TrialRunner
from graphlens.prove.bench import SECOND_PROCESS
from graphlens.prove.runner import FailedError, GoneError

pytestmark = pytest.mark.tf

PROGRAMS = """
import os
import numpy as np
import tensorflow as tf

if os.environ.get("PLANTED_DEATH"):
    os.abort()

KERNEL = np.random.default_rng(1).normal(size=(3, 3, 16, 32)).astype("float32")
BIAS = np.random.default_rng(2).normal(size=(32,)).astype("float32")
PICTURES = tf.TensorSpec((1, 56, 56, 16), tf.float32, name="pictures")

@tf.function(input_signature=[PICTURES])
def layer(pictures):
    "Grappler fuses a bias that is added by AddV2 only where oneDNN is on."
    return tf.nn.relu(tf.nn.conv2d(pictures, KERNEL, 1, "SAME") + BIAS)

@tf.function(input_signature=[tf.TensorSpec((2, 8), tf.float32, name="x"), tf.TensorSpec((2,), tf.string, name="s")])
def mixed(x, s):
    logits = tf.matmul(x, tf.eye(8) * 3.0)
    return {"chances": tf.nn.softmax(logits), "short": tf.cast(x, tf.bfloat16), "text": s, "best": tf.argmax(x, 1)}

def moody():
    "A factory whose example differs from process to process."
    return tf.function(lambda x: x + 1.0), (tf.constant(np.random.default_rng().normal(size=(4,)), tf.float32),)
"""
LIMIT_S = 120.0
TWO_THREADS = SessionSetting(threads={"intra_op": 2, "inter_op": 1})
DEATH = SessionSetting(environment={"PLANTED_DEATH": "1"})


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "settled.py").write_text(PROGRAMS)
    return folder


def runner_of(programs: Path, logs: Path, name: str) -> TrialRunner:
    request = RecordRequest(f"settled:{name}", "callable", import_path=str(programs))
    return TrialRunner(request, logs, {ONEDNN: "0"})


@pytest.fixture(scope="module")
def mixed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialRunner]:
    """A program with outputs of four types, open without oneDNN."""
    runner = runner_of(programs, tmp_path_factory.mktemp("logs"), "mixed")
    runner.open(LIMIT_S)
    yield runner
    runner.close()


def test_settings_take_effect_and_outputs_of_every_type_are_compared(mixed: TrialRunner) -> None:
    applied = mixed.apply("set", [(onednn_on(), TWO_THREADS)], LIMIT_S)
    assert "export TF_ENABLE_ONEDNN_OPTS=1" in applied.where
    assert "oneDNN on" in applied.where
    assert "{'intra_op': 2, 'inter_op': 1}" in applied.where
    compared = mixed.compare("set", None, LIMIT_S)
    assert compared.inputs == 3
    assert compared.unstable == ()
    tolerances = {one.output: one.tolerance for one in compared.differences}
    squashed = "chances, before its last squashing op"
    assert tolerances == {"chances": 1e-5, squashed: 1e-5, "short": 1e-2, "text": 0, "best": 0}
    assert all(one.agrees for one in compared.differences)
    for pair in mixed.time("original", "set", 2, 5.0, LIMIT_S):
        assert all(0 < ns < 1e9 for ns in (pair.before_ns, pair.after_ns, pair.before_cpu_ns, pair.after_cpu_ns))


def test_a_second_child_that_dies_leaves_the_first_as_it_was(mixed: TrialRunner) -> None:
    with pytest.raises(GoneError, match="SIGABRT"):
        mixed.apply("dead", [(DEATH,)], LIMIT_S)
    mixed.drop("dead")
    assert mixed.apply("copy", [], LIMIT_S).where == ""
    assert mixed.compare("copy", None, LIMIT_S).inputs == 3


def test_a_second_child_that_hangs_is_ended(mixed: TrialRunner) -> None:
    with pytest.raises(GoneError, match="took longer"):
        mixed.apply("slow", [(onednn_on(),)], 0.5)
    assert mixed.apply("copy", [], LIMIT_S).second_call_ns > 0


def test_outputs_on_other_inputs_are_not_compared(programs: Path, tmp_path: Path) -> None:
    runner = runner_of(programs, tmp_path, "moody")
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [SECOND_PROCESS], LIMIT_S)
        with pytest.raises(FailedError, match="the target made other inputs in the second process"):
            runner.compare("copy", None, LIMIT_S)
    finally:
        runner.close()


def test_a_setting_is_no_rewrite() -> None:
    from graphlens.tf.rewrite.registry import _rewrite_of, edit_names

    assert SessionSetting.kind not in edit_names()
    with pytest.raises(RewriteError, match="changes no graph: set it where the model is run"):
        _rewrite_of(onednn_on())


def test_onednn_is_offered_where_it_alone_keeps_ops_apart_and_measured(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ONEDNN, "0")
    monkeypatch.chdir(programs)
    report = tmp_path / "report.json"
    asked: list[Any] = ["analyze", "settled:layer", "-o", report, "--select", "GL201", "--steps", "5"]
    started_s = time.monotonic()
    assert main([*map(str, asked), "--time-budget", "60"]) == 0
    document = from_json(report.read_text())
    (finding,) = document.findings
    assert finding.fix.edits == (onednn_on(),)
    assert finding.fix.snippet == "export TF_ENABLE_ONEDNN_OPTS=1"
    assert finding.fix.safety == "tolerance"
    proof = finding.proof
    assert proof.verdict in {"proven", "refuted", "inconclusive"}, proof.why
    assert "export TF_ENABLE_ONEDNN_OPTS=1, oneDNN on" in proof.why
    assert proof.max_rel_diff is not None
    assert proof.aa_ci95 is not None
    assert proof.command is not None
    assert proof.command.startswith("graphlens analyze")
    assert time.monotonic() - started_s < 180
