"""Programs that somebody else runs: what GraphLens says of their steps, held against their own clock."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import pytest
from end_to_end import REPOSITORY, python, run_python

import graphlens
from graphlens.facts.programs.judged_program import programs_of
from graphlens.ir.analysis import Document
from graphlens.ir.measured import ProgramRow
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile

pytestmark = pytest.mark.tf

WITHIN = 0.15  # of what the program's own clock says
SCRIPT = REPOSITORY / "tests" / "programs_of_others.py"


class Case(NamedTuple):
    """What GraphLens says of a program, and what the program says."""

    document: Document
    truth: dict[str, Any]
    path: Path

    @property
    def judged(self) -> ProgramRow:
        return self.document.programs[0]

    def steps_ns(self) -> list[int]:
        """The steps behind the median of the document, in order."""
        (file,) = self.path.glob("**/*.xplane.pb")
        judged = programs_of(read_profile(file.read_bytes())).judged
        assert judged is not None
        return [step.end_ns - step.start_ns for step in judged.steps]


Of = Callable[[str], Case]


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Of:
    """Run all programs once, and analyze the profile of the one that a test asks for."""
    folder = tmp_path_factory.mktemp("programs")
    python(str(SCRIPT), str(folder))

    @cache
    def case(name: str) -> Case:
        path = folder / name
        return Case(graphlens.load(path).document, json.loads((folder / f"{name}.json").read_text()), path)

    return case


def assert_step(case: Case) -> None:
    """The median of the steps is what the program measured of the same steps, give or take.

    On a busy machine single steps take several times as long as others, so it matters that they are the same ones: the
    document leaves the first one out, and the program cannot tell of all in a loop when they began.
    """
    step, ours_ns, truth_ns = case.document.step, case.steps_ns(), case.truth["step_ns"]
    assert step is not None
    assert step.median_ns == round(median(ours_ns[-step.n :]))
    pairs = list(zip(ours_ns, truth_ns[-len(ours_ns) :], strict=True))[-step.n :]
    known = [(ours, truth) for ours, truth in pairs if truth is not None]
    assert len(known) >= step.n - 1
    assert median(ours for ours, _ in known) == pytest.approx(median(truth for _, truth in known), rel=WITHIN)


CALLED = ("matmuls", "cnn", "jit", "while", "predict", "eager_loop", "session")
TRAINED = ("tensorboard", "fit", "several_steps", "unrolled", "validation", "accumulation", "unknown_size")
LOOPED = ("for_x_in_ds", "for_x_in_iter_ds", "for_x_in_ds_break")


@pytest.mark.parametrize("name", [*CALLED, *TRAINED, *LOOPED])
def test_the_step_is_what_the_program_measured(of: Of, name: str) -> None:
    assert_step(of(name))


@pytest.mark.parametrize("name", [*CALLED, *TRAINED, *LOOPED, "partial_execution"])
def test_the_number_of_steps_is_exact(of: Of, name: str) -> None:
    case = of(name)
    assert case.judged.steps == case.truth["steps"]


@pytest.mark.parametrize("name", [*CALLED, *TRAINED, *LOOPED, "partial_execution"])
def test_nothing_that_is_said_of_it_is_impossible(of: Of, name: str) -> None:
    document = of(name).document
    step = document.step
    assert step is not None
    assert sum(row.ns for row in document.ledger) == step.median_ns
    assert all(row.ns >= 0 for row in document.ledger)
    assert all(op.wall_share is None or op.wall_share <= 1 for op in document.ops)
    assert all(program.share is None or program.share <= 1 for program in document.programs)
    assert document.quality.grade != "none"


@pytest.mark.parametrize("name", ["matmuls", "cnn", "while", "predict", "fit", "several_steps", "for_x_in_ds"])
def test_most_of_the_step_is_attributed_to_ops(of: Of, name: str) -> None:
    """These models do nothing but multiply: ops that ran in less than half of the step belong to another one."""
    quality = of(name).document.quality
    assert quality.op_share is not None
    assert quality.op_share > 0.5


def test_a_prediction_is_a_program_beside_its_dataset(of: Of) -> None:
    case = of("predict")
    assert case.judged.role == "predict"
    datasets = [program for program in case.document.programs[1:] if program.role == "dataset"]
    assert any(program.runs == 8 for program in datasets)
    assert not [program for program in case.document.programs[1:] if program.role != "dataset"]


def test_the_period_of_a_prediction_is_that_of_its_callbacks(of: Of) -> None:
    case = of("predict")
    step = case.document.step
    assert step is not None
    assert step.period_ns == pytest.approx(median(case.truth["period_ns"]), rel=WITHIN)


def test_the_call_that_traces_is_told_apart(of: Of) -> None:
    case = of("fit")  # it was not warmed up
    (trace,) = case.judged.traces
    assert trace.ns == pytest.approx(case.truth["step_ns"][0], rel=WITHIN)
    step = case.document.step
    assert step is not None
    assert step.p90_ns < trace.ns


def test_training_and_validation_of_one_name_stay_apart(of: Of) -> None:
    case = of("validation")
    training, validation = (program for program in case.document.programs if program.role in ("step", "eval"))
    assert (training.role, validation.role) == ("step", "eval")
    assert "multi_step_on_iterator" in training.name
    assert "multi_step_on_iterator" in validation.name
    assert (training.steps, validation.steps) == (19, 6)
    assert validation.step is not None
    assert validation.step.median_ns == pytest.approx(median(case.truth["test_ns"][-validation.step.n :]), rel=WITHIN)


def test_the_user_may_judge_another_program(of: Of, tmp_path: Path) -> None:
    case = of("validation")
    other = case.document.programs[1].name
    report = tmp_path / "other.json"
    outcome = run_python("-m", "graphlens", "analyze", str(case.path), "--program", other, "-o", str(report))
    assert outcome.code == 0, outcome.err
    profile = graphlens.load(report).document
    assert profile.programs[0].name == other
    assert profile.step is not None
    assert profile.step.median_ns == pytest.approx(median(case.truth["test_ns"][-profile.step.n :]), rel=WITHIN)


def test_steps_that_accumulate_gradients_are_of_two_kinds(of: Of) -> None:
    case = of("accumulation")
    step = case.document.step
    assert step is not None
    assert step.cycle == 4
    many, few = step.kinds
    assert many.count > few.count >= 3
    assert many.ops < few.ops
    whole_cycles_ns = case.truth["step_ns"][-step.n :][: step.n - step.n % 4]
    assert step.mean_ns == pytest.approx(fmean(whole_cycles_ns), rel=WITHIN)
    assert any("adam" in op.name.lower() for op in case.document.ops if op.self_ns)


def test_a_call_that_only_finds_the_end_of_the_data_is_no_step(of: Of) -> None:
    case = of("unknown_size")
    assert case.judged.runs is not None
    assert case.judged.runs > case.truth["steps"]


def test_the_executions_of_several_steps_count_their_batches(of: Of) -> None:
    assert of("partial_execution").judged.runs == 3
    assert of("several_steps").judged.runs == 2


# -- a server ------------------------------------------------------------------------------------------------------


def profiled_from_to(capture: Path) -> tuple[int, int]:
    """Read off the profile in a capture, by nothing of GraphLens' reading, when it began and ended since 1970."""
    with zipfile.ZipFile(capture) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".xplane.pb"))
        space = xspace().FromString(archive.read(name))
    (plane,) = (plane for plane in space.planes if plane.name == "Task Environment")
    said = {plane.stat_metadata[stat.metadata_id].name: stat.uint64_value for stat in plane.stats}
    return said["profile_start_time"], said["profile_stop_time"]


def test_a_serving_loop_is_recorded_while_it_runs(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT), "serve", str(port), str(tmp_path)], stdout=subprocess.PIPE, env=env, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        capture = tmp_path / "served.capture"
        python("-m", "graphlens", "record", "--service", f"grpc://localhost:{port}", "-o", str(capture))
        (tmp_path / "stop").touch()
        server.wait(60)
    finally:
        server.kill()
        server.communicate()
    served = json.loads((tmp_path / "served.json").read_text())
    began_ns, ended_ns = profiled_from_to(capture)
    during_ns = [took for when, took in served if began_ns <= when and when + took <= ended_ns]
    document = graphlens.load(capture).document
    assert document.programs[0].steps == pytest.approx(len(during_ns), abs=2)  # those at both ends may be cut off
    step = document.step
    assert step is not None
    assert step.n > 20
    assert step.median_ns == pytest.approx(median(during_ns), rel=WITHIN)
