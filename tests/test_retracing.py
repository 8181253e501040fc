"""The log of a script's calls: which function, traced how often, and for what; and one program for all its traces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.programs.retraced import joined
from graphlens.facts.programs.watched import watched
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import OpEvent, Profile, Run
from graphlens.ir.script import Script, ScriptFunction, ScriptTrace
from graphlens.loaders.capture.reading import open_capture

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "fixtures" / "scripts"


class Watched:
    """A script that was run: what it left, and its analysis."""

    def __init__(self, folder: Path, *words: str) -> None:
        capture, report = folder / "a.capture", folder / "a.json"
        command = [sys.executable, "-m", "graphlens", "run", "-o", str(capture), "-o", str(report)]
        script = [str(SCRIPTS / words[0]), *words[1:]]
        done = subprocess.run(
            [*command, *script], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        script_seen = open_capture(capture).manifest.script
        assert script_seen is not None
        self.script = script_seen
        self.document: dict[str, Any] = json.loads(report.read_text("utf-8"))

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [finding for finding in self.document["findings"] if finding["code"] == "GL401"]


@pytest.fixture(scope="module")
def many_ways(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("ways"), "not_retracing.py")


@pytest.fixture(scope="module")
def one_in_ten(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("one_in_ten"), "retracing.py", "value", "10")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("anew"), "retracing.py", "anew")


@pytest.mark.tf
def test_of_many_ways_to_call_a_function_only_the_batch_that_no_longer_divides_retraces(many_ways: Watched) -> None:
    retraces = [trace for trace in many_ways.script.traces if trace.kind == "retrace"]
    assert [trace.function for trace in retraces] == ["train_step"]
    assert retraces[0].changed[0].endswith("batch 64 became None because it no longer divides the number of samples")
    assert [finding["title"].partition(": ")[2] for finding in many_ways.findings] == [
        "iterator's elements[0] has lost its fixed batch"
    ]


@pytest.mark.tf
def test_training_and_validation_of_two_models_are_four_functions_each_traced_first(many_ways: Watched) -> None:
    calls = {one.id: one.calls for one in many_ways.script.functions if "_step" in one.id}
    assert calls == {
        "train_step": 8 + 16,
        "train_step-2": 8,
        "test_step": 2,
        "test_step-2": 2,
        "one_step_on_data_distributed": 16,
    }
    assert Counter(trace.kind for trace in many_ways.script.traces)["relaxed"] == 1, "predict's last batch"


@pytest.mark.tf
def test_functions_made_by_one_factory_that_are_called_by_turns_are_not_made_anew(many_ways: Watched) -> None:
    factory = next(one for one in many_ways.script.functions if one.calls == 40)
    assert (factory.objects, factory.traces) == (2, 2)
    assert {trace.kind for trace in many_ways.script.traces if trace.function == factory.id} == {"first"}


@pytest.mark.tf
def test_one_retrace_in_ten_calls_is_found_and_its_argument_named(one_in_ten: Watched) -> None:
    found = one_in_ten.findings[0]
    assert found["title"] == "'train_step' was traced again in 11 of 120 calls: rate is a Python value that changes"
    assert found["evidence"]["lost_ns"] == sum(
        trace.lost_ns or 0 for trace in one_in_ten.script.traces if trace.kind == "retrace"
    )
    program = one_in_ten.document["programs"][0]
    assert (program["runs"], program["steps"], program["calls"]) == (30, 30, 120)
    assert Path(program["source"].rpartition(":")[0]).name == "retracing.py"
    assert [trace["call"] for trace in program["traces"]] == list(range(1, 121, 10))


@pytest.mark.tf
def test_a_function_that_is_made_anew_in_every_step_is_one_program_whose_steps_are_judged(anew: Watched) -> None:
    assert "the tf.function is made anew" in anew.findings[0]["title"]
    (function,) = anew.script.functions
    assert (function.objects, function.calls, function.traces) == (120, 120, 120)
    (program,) = [row for row in anew.document["programs"] if row["role"] == "step"]
    assert (program["runs"], program["calls"], len(program["traces"])) == (30, 120, 120)
    assert anew.document["graphs"]["executed"]["nodes"] > 0
    assert anew.document["quality"]["join_rate"] > 0.97


# -- one program for several traces ---------------------------------------------------------------------------------


def evidence(states: tuple[int, ...], shapes: tuple[int, ...], *runs: tuple[str, bool]) -> Evidence:
    names = tuple(dict.fromkeys(name for name, _ in runs))
    function = ScriptFunction("step", "step", calls=len(runs), concretes=names, states=states, shapes=shapes)
    profile = Profile(
        ops=tuple(OpEvent("a", "MatMul", 100 * n, 100 * n + 10, 10, 1, n) for n in range(len(runs))),
        runs=tuple(Run(name, 100 * n, 100 * n + 50, 1, traced=traced) for n, (name, traced) in enumerate(runs)),
    )
    return Evidence(Target("s", "script"), profile=profile, script=Script(functions=(function,)))


def names_of(one: Evidence) -> list[str]:
    profile = joined(one).profile
    assert profile is not None
    return [run.program for run in profile.runs]


def test_traces_that_differ_in_python_values_are_one_program() -> None:
    runs = [("f_1", True), ("f_1", False), ("f_1", False), ("f_1", False), ("f_2", True), *[("f_2", False)] * 4]
    assert names_of(evidence((0, 0), (0, 0), *runs)) == ["f_2"] * 9


def test_two_kinds_of_batches_that_come_by_turns_stay_two_programs() -> None:
    assert names_of(evidence((0, 0), (0, 1), *[("f_1", False), ("f_2", False)] * 3)) == ["f_1", "f_2"] * 3


def test_a_shape_that_is_new_in_every_call_is_no_program_of_its_own() -> None:
    assert set(names_of(evidence((0, 0, 0), (0, 1, 2), ("f_1", True), ("f_2", True), ("f_3", True)))) == {"f_1"}


def test_functions_of_two_models_are_two_programs() -> None:
    assert names_of(evidence((0, 1), (0, 0), ("f_1", True), ("f_2", True))) == ["f_1", "f_2"]


def test_what_is_traced_in_every_call_costs_all_but_the_time_in_which_its_ops_run() -> None:
    one = evidence((0,), (0,), ("f_1", True), ("f_1", True))
    assert one.script is not None
    script = Script(functions=one.script.functions, traces=(ScriptTrace("step", 2, 100, 50, "retrace", ("x: y",)),))
    (found,) = Facts(Evidence(one.target, profile=one.profile, script=script))(watched)
    assert [trace.lost_ns for trace in found.retraces] == [40]
