"""Every command that judges goes through one list of stages, and each stage runs when it is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from end_to_end import CAPTURES, write_saved_model

import graphlens
from graphlens import pipeline
from graphlens.config import Request, no_progress
from graphlens.pipeline import fixing, stages

TINY = str(CAPTURES / "tiny_cnn.capture")
READS = [("x", "Placeholder", ()), ("name", "ReadFile", ("x",))]  # a finding of what reads files, executed or not


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages that have run."""
    names: list[str] = []

    def told(stage: stages.Stage) -> stages.Stage:
        def run(known: stages.Known) -> stages.Known:
            names.append(stage.name)
            return stage.run(known)

        return replace(stage, run=run)

    monkeypatch.setattr(stages, "STAGES", tuple(map(told, stages.STAGES)))
    return names


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_saved_model(tmp_path / "model", READS))


def test_a_graph_that_is_only_read_is_judged_and_nothing_else(ran: list[str], model: str) -> None:
    analysis = pipeline.analyze(Request.of(model, static=True))
    assert ran == ["judge", "say why no fix is proven"]
    assert {finding.proof.why for finding in analysis.findings} == {stages.NOT_EXECUTED}


def test_of_a_recording_nothing_is_tried(ran: list[str]) -> None:
    analysis = pipeline.analyze(Request.of(TINY))
    assert ran == ["judge", "say why no fix is proven"]
    assert {finding.proof.why for finding in analysis.findings} == {stages.NO_MODEL}


def test_what_is_asked_for_is_done_in_the_order_of_the_list(ran: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    analysis = pipeline.analyze(Request.of(TINY, assume_device="gpu", prove=False, keep_run=run))
    assert ran == [stage.name for stage in stages.STAGES if stage.name in ran]
    assert set(ran) >= {"keep the profile for other tools", "place the ops on another device"}
    assert run.is_dir()
    assert analysis.document.placement is not None
    assert {finding.proof.why for finding in analysis.findings} == {stages.NOT_ASKED}


def test_what_writes_a_model_goes_through_the_same_stages(ran: list[str], model: str, tmp_path: Path) -> None:
    asked = Request.of(model, static=True, assume_device="gpu")
    pipeline.analyze(asked)
    analyzed = list(ran)
    ran.clear()
    assert fixing.fix(asked, str(tmp_path / "fixed"), no_progress)[1] is None
    assert ran == analyzed


@pytest.mark.tf
def test_a_live_program_goes_through_the_same_stages(ran: list[str]) -> None:
    import tensorflow as tf

    function = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    analysis = graphlens.analyze(function, (tf.ones((8, 8), tf.float64),), steps=3)
    assert ran == ["choose the program", "judge", "say why no fix is proven"]
    assert {finding.proof.why for finding in analysis.findings} == {stages.LIVE}
