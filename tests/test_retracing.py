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
from graphlens.rules.tracing.retracing import retracing

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "fixtures" / "scripts"


class Watched:
    """A script that was run: what it left, and its analysis."""

    def __init__(self, folder: Path, *words: str) -> None:
        capture, report = folder / "a.capture", folder / "a.json"
        command = [sys.executable, "-m", "graphlens", "run", "--no-prove", "-o", str(capture), "-o", str(report)]
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
def not_retracing(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("not"), "not_retracing.py")


@pytest.fixture(scope="module")
def every_way(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("ways"), "ways_of_retracing.py")


@pytest.fixture(scope="module")
def one_in_ten(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("one_in_ten"), "retracing.py", "value", "10")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("anew"), "retracing.py", "anew")


# What of a function's arguments is another one from call to call although no trace is needed -> its calls.
WAYS_OF_NOT_RETRACING = {
    "numpy_scalar": 20,
    "numpy_array": 20,
    "order_of_keywords": 20,
    "default_given": 4 * 20,
    "order_of_keys": 20,
    "another_variable": 20,
    "called_within": 20,
    "surrounded": 4 * 20,  # as it is, on a device, under a tape, in a name scope
    "mutated_object": 20,
    "equal_objects": 20,
}


@pytest.mark.tf
def test_ten_ways_of_calling_a_function_are_no_retraces(not_retracing: Watched) -> None:
    functions = {one.id: one for one in not_retracing.script.functions}
    assert {name: functions[name].calls for name in WAYS_OF_NOT_RETRACING} == WAYS_OF_NOT_RETRACING
    assert {functions[name].traces for name in WAYS_OF_NOT_RETRACING} == {1}
    assert not [trace for trace in not_retracing.script.traces if trace.kind == "retrace"]
    assert not_retracing.findings == []


@pytest.mark.tf
def test_training_and_validation_of_two_models_are_four_functions_each_traced_first(not_retracing: Watched) -> None:
    calls = {one.id: one.calls for one in not_retracing.script.functions if "_step" in one.id}
    assert calls == {
        "train_step": 8,
        "train_step-2": 8,
        "test_step": 2,
        "test_step-2": 2,
        "one_step_on_data_distributed": 10,
    }
    relaxed = [trace.function for trace in not_retracing.script.traces if trace.kind == "relaxed"]
    assert sorted(relaxed) == ["one_step_on_data_distributed", "relaxed"], "predict's last batch, and reduce_retracing"


@pytest.mark.tf
def test_functions_made_by_one_factory_that_are_called_by_turns_are_not_made_anew(not_retracing: Watched) -> None:
    factory = next(one for one in not_retracing.script.functions if one.calls == 40)
    assert (factory.objects, factory.traces) == (2, 2)
    assert {trace.kind for trace in not_retracing.script.traces if trace.function == factory.id} == {"first"}


@pytest.mark.tf
def test_what_is_traced_by_hand_between_calls_is_no_trace_of_the_next_call(not_retracing: Watched) -> None:
    by_hand = next(one for one in not_retracing.script.functions if one.id == "traced_by_hand")
    assert (by_hand.calls, by_hand.traces) == (20, 0)


CONTEXT = "the same arguments: it was called in another graph, or within another strategy"
# What a function is handed -> in how many of its calls it was traced, and what is said of its second trace.
WAYS_OF_RETRACING = {
    "python_int": (13, "epoch: the Python value 0 became 1"),
    "python_float": (13, "rate: the Python value 0.1 became 0.05"),
    "list_of_floats": (13, "rates[1]: the Python value 0.0 became 0.1"),
    "new_shape": (13, "x: the shape (1, 4) became (2, 4)"),
    "new_type": (5, "x: the data type float32 became float64"),
    "list_or_tuple": (2, "pair: a list of 2 became a tuple of 2"),
    "variable_or_tensor": (2, "kernel: a tf.Variable float32(4, 4) became a tensor float32(4, 4)"),
    "new_object": (13, "config: another object (Config)"),
    "within_graph": (13, CONTEXT),
    "train_step": (
        2,
        "iterator's elements[0]: the shape (64, 20) became (None, 20): "
        "batch 64 became None because it no longer divides the number of samples",
    ),
}


@pytest.mark.tf
def test_each_way_of_retracing_is_found_with_the_argument_and_how_it_changed(every_way: Watched) -> None:
    traces: dict[str, list[ScriptTrace]] = {name: [] for name in WAYS_OF_RETRACING}
    for trace in every_way.script.traces:
        if trace.function in traces:
            traces[trace.function].append(trace)
    found = {name: (len(own), own[1].changed[0]) for name, own in traces.items()}
    assert found == WAYS_OF_RETRACING
    assert {trace.kind for own in traces.values() for trace in own[1:]} == {"retrace"}
    titles = [finding["title"] for finding in every_way.findings]
    assert "'python_float' was traced again in 12 of 13 calls: rate is a Python value that changes" in titles
    assert any(title.endswith("iterator's elements[0] has lost its fixed batch") for title in titles)


@pytest.mark.tf
def test_a_trace_is_that_of_the_thread_that_made_it(every_way: Watched) -> None:
    """Another thread calls all the while with what the function was traced for; its calls end while others trace."""
    retraces = [one for one in every_way.script.traces if one.function == "two_threads" and one.kind == "retrace"]
    assert len(retraces) == 12
    rates = [0.5 / (1 + number) for number in range(12)]
    assert [trace.changed[-1] for trace in retraces] == [
        f"rate: the Python value {before} became {after}" for before, after in zip([1.0, *rates], rates, strict=False)
    ]


@pytest.mark.tf
def test_what_was_handed_over_before_is_not_said_to_be_new(every_way: Watched) -> None:
    """Two sizes of batches come by turns, and now and then another rate: of 11 retraces one is for a size."""
    retraces = [one for one in every_way.script.traces if one.function == "in_an_epoch" and one.kind == "retrace"]
    changed = Counter(trace.changed[0].partition(":")[0] for trace in retraces)
    assert changed == {"x": 1, "rate": 10}


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


@pytest.mark.parametrize(("script_ns", "findings"), [(1_000_000_000, 1), (100_000_000_000, 0)])
def test_where_it_is_not_known_what_retraces_cost_all_of_their_calls_must_count(script_ns: int, findings: int) -> None:
    traces = tuple(ScriptTrace("step", call, 0, 10_000_000, "retrace", ("x: the shape",)) for call in range(2, 6))
    script = Script(script_ns, functions=(ScriptFunction("step", "step", calls=5, traces=5),), traces=traces)
    found = list(retracing(Facts(Evidence(Target("s", "script"), script=script))))
    assert [one.saving.ns for one in found] == [None] * findings
