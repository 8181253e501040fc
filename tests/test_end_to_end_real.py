"""Models that others made, executed and reported; skipped where they are not beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from end_to_end import Outcome, analyze, assert_one_line
from real_inputs import RealInputs

pytestmark = pytest.mark.tf


def analyzed(folder: Path, target: Path, *options: object) -> tuple[Outcome, dict[str, Any]]:
    outcome = analyze(target, "-o", "r.json", "-o", "r.html", *options, cwd=folder)
    assert (folder / "r.html").exists(), outcome.err
    return outcome, json.loads((folder / "r.json").read_text())


def assert_measured(outcome: Outcome, report: dict[str, Any]) -> None:
    assert (outcome.code, outcome.err) == (0, "")
    assert report["errors"] == []
    assert sum(row["ns"] for row in report["ledger"]) == report["step"]["median_ns"]
    assert [rule["code"] for rule in report["rules"] if rule["status"] == "error"] == []


def test_an_audio_network_saved_with_its_optimizer(shared_real: RealInputs, tmp_path: Path) -> None:
    outcome, report = analyzed(tmp_path, shared_real / "basic_pitch_savedmodel")
    assert_measured(outcome, report)
    assert report["quality"]["join_rate"] >= 0.97
    assert report["quality"]["attributed_share"] >= 0.85
    assert any("optimizer was left out" in note for note in report["quality"]["notes"])
    assert report["ledger"][0]["category"] == "convolution"


def test_a_classifier_with_examples_tables_and_branches(shared_real: RealInputs, tmp_path: Path) -> None:
    outcome, report = analyzed(tmp_path, shared_real / "tfx_taxi_savedmodel")
    assert_measured(outcome, report)
    assert report["quality"]["join_rate"] >= 0.97
    timed = {op["op"] for op in report["ops"] if op["timing"]}
    assert timed & {"ParseExampleV2", "ParseExample"}
    assert timed & {"LookupTableFindV2", "LookupTableFind"}


def test_a_model_placed_on_a_gpu_runs_without_one(shared_real: RealInputs, tmp_path: Path) -> None:
    outcome, report = analyzed(tmp_path, shared_real / "half_plus_two_gpu_savedmodel")
    assert_measured(outcome, report)
    if not any("GPU" in device for device in report["environment"]["devices"]):
        assert any("GPU placement was not honoured" in note for note in report["quality"]["notes"])
    assert {op["op"] for op in report["ops"] if op["timing"]} >= {"Mul"}


def test_a_graph_that_only_a_gpu_program_can_run_is_read(shared_real: RealInputs, tmp_path: Path) -> None:
    """A training graph whose names TensorFlow does not import; it is 2,853 + 106 nodes."""
    outcome, report = analyzed(tmp_path, shared_real / "keras_imagenet_gpu.pbtxt", "--static")
    assert (outcome.code, outcome.err) == (0, "")
    assert report["graphs"]["traced"]["nodes"] >= 2853
    assert report["step"] is None
    convolutions = [op for op in report["ops"] if op["op"] == "Conv2D"]
    assert len(convolutions) == 53  # ResNet50
    assert all("GPU" in op["device"].upper() for op in convolutions)


@pytest.mark.heavy
def test_a_graph_that_crashes_tensorflow_is_still_read(shared_real: RealInputs, tmp_path: Path) -> None:
    outcome, report = analyzed(tmp_path, shared_real / "keras_imagenet_gpu.pbtxt")
    assert outcome.code == 3
    assert_one_line(Outcome(3, "", outcome.err))
    assert [error["stage"] for error in report["errors"]] == ["execute"]
    assert report["graphs"]["traced"]["nodes"] >= 2853
