"""Profiles on the command line: alone, and joined to a model that is not run for them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from end_to_end import CAPTURES, REPOSITORY, assert_refused, files_in
from real_inputs import REAL

import graphlens
from graphlens.errors import UsageError

TINY = CAPTURES / "tiny_cnn.capture"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    with zipfile.ZipFile(TINY) as archive:
        return Path(archive.extract("profile.xplane.pb", tmp_path))


def analyzed(run: Command, folder: Path, *arguments: object) -> dict[str, Any]:
    outcome = run("analyze", *arguments, "-o", "report.json", "-o", "report.html")
    assert outcome.code == 0, outcome.err
    assert (folder / "report.html").stat().st_size > 10_000
    document: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return document


def test_a_profile_alone_gives_what_it_allows_and_says_what_is_missing(
    run: Command, tmp_path: Path, profile: Path
) -> None:
    document = analyzed(run, tmp_path, profile)
    assert document["target"]["kind"] == "xplane"
    assert document["quality"]["reasons"][0].startswith("no graph was given")
    assert sum(row["ns"] for row in document["ledger"]) == document["step"]["median_ns"]
    assert {"Conv2D", "DepthwiseConv2dNative"} <= {row["op"] for row in document["ops"]}
    statuses = {item["code"]: item for item in document["rules"]}
    assert statuses["GL203"]["status"] == "not-applicable"
    assert statuses["GL203"]["why"] == "no graph is known"
    assert document["graphs"] == {}


def test_a_capture_may_be_judged_with_a_profile_of_another_run(run: Command, tmp_path: Path, profile: Path) -> None:
    own = analyzed(run, tmp_path, TINY)
    other = analyzed(run, tmp_path, TINY, "--profile", profile)
    times = [
        {row["name"]: row["self_ns"] for row in document["ops"] if row["timing"] == "profile"}
        for document in (own, other)
    ]
    assert times[0] == times[1], "it is the same profile after all"
    assert other["environment"]["profile"] == "profile.xplane.pb"
    assert other["step"]["median_ns"] == other["step"]["profiled_median_ns"], "no time of the capture's own run is left"


@pytest.mark.tf
def test_a_program_is_traced_and_not_run_for_a_profile_of_it(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(CAPTURES / "train_step.capture") as archive:
        path = archive.extract("profile.xplane.pb", tmp_path)
    monkeypatch.chdir(REPOSITORY)
    outcome = run("analyze", "fixtures.models:train_step", "--profile", path, "-o", tmp_path / "report.json")
    assert outcome.code == 0, outcome.err
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["quality"]["join_rate"] == 1.0
    assert "executed" not in document["graphs"]
    assert max(document["ops"], key=lambda row: row["self_ns"] or 0)["op"] == "Conv2D"


def test_python_takes_a_profile_as_well(tmp_path: Path, profile: Path) -> None:
    analysis = graphlens.analyze(TINY, profile=profile)
    assert analysis.document.environment["profile"] == "profile.xplane.pb"
    assert graphlens.analyze(profile).document.target.kind == "xplane"
    with pytest.raises(UsageError, match="profile is for paths only"):
        graphlens.analyze(lambda x: x, profile=profile)


def test_a_profile_of_a_profile_is_wrong_usage(run: Command, tmp_path: Path, profile: Path) -> None:
    before = files_in(tmp_path)
    outcome = run("analyze", profile, "--profile", profile, "-o", "report.html")
    assert_refused(outcome, "is a profile itself; --profile is for a model or a capture", tmp_path, before)


def test_what_is_no_profile_is_refused_as_one(run: Command, tmp_path: Path) -> None:
    outcome = run("analyze", TINY, "--profile", TINY, "-o", "report.html")
    assert_refused(outcome, "is no profile; pass a *.xplane.pb", tmp_path, set())
    outcome = run("analyze", TINY, "--profile", "nowhere.xplane.pb", "-o", "report.html")
    assert_refused(outcome, "'nowhere.xplane.pb' does not exist", tmp_path, set())


def test_with_a_profile_there_is_none_to_keep(run: Command, tmp_path: Path, profile: Path) -> None:
    before = files_in(tmp_path)
    outcome = run("analyze", TINY, "--profile", profile, "--keep-logdir", "logs", "-o", "report.html")
    assert_refused(outcome, "with --profile nothing is recorded", tmp_path, before)


def test_a_profile_is_not_recorded_again(run: Command, tmp_path: Path, profile: Path) -> None:
    before = files_in(tmp_path)
    outcome = run("record", profile, "-o", "again.capture")
    assert_refused(outcome, "is a recording already; `graphlens analyze` reads it", tmp_path, before)


@pytest.mark.parametrize(
    "path", ["gpu_bert_8xV100.xplane.pb", "gpu_run_metadata/run_meta", "kittibox_gpu.timeline.json"]
)
def test_real_profiles_of_others(run: Command, tmp_path: Path, path: str) -> None:
    document = analyzed(run, tmp_path, REAL / path)
    assert sum(row["ns"] for row in document["ledger"]) == document["step"]["median_ns"]
    assert document["devices"]
    assert document["quality"]["grade"] in ("fair", "poor")
    assert any(row["timing"] == "kernel" for row in document["ops"])


def test_a_real_run_on_a_gpu_is_joined_to_its_graph(run: Command, tmp_path: Path) -> None:
    folder = REAL / "gpu_run_metadata"
    document = analyzed(run, tmp_path, folder / "graph.pbtxt", "--profile", folder / "run_meta")
    rows = {row["name"]: row for row in document["ops"]}
    conv = rows["Conv2D"]
    assert (conv["timing"], conv["self_ns"], conv["host_ns"], conv["device"]) == ("kernel", 226_000, 4_066_000, "GPU:0")
    assert rows["Conv2D_1"]["self_ns"] == 178_000
    assert rows["DW/Assign"]["self_ns"] is None, "not seen is not zero"
    assert document["quality"]["join_rate"] > 0.9
    assert document["graphs"]["traced"]["nodes"] == 31
    assert {item["proof"]["verdict"] for item in document["findings"]} == {"not-run"}


@pytest.mark.parametrize(
    "path", ["malformed/corrupt_tpu.xplane.pb", "malformed/bad_node_attr/variables/variables.index"]
)
def test_damaged_files_and_files_of_another_kind_are_refused_in_one_line(
    run: Command, tmp_path: Path, path: str
) -> None:
    assert_refused(run("analyze", REAL / path, "-o", "report.html"), "GraphLens reads", tmp_path, set())
