"""Captures of several programs: what is written is read, each is judged with its own graphs, damage costs a part."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import two_programs
from hypothesis import given
from hypothesis import strategies as st
from load_helpers import graph_def
from two_programs import CALLED, CALLS, EVALUATE, EVALUATE_NS, TRAIN, TRAIN_NS, write_program_manifest

import graphlens
from graphlens.cli import main
from graphlens.config import Request
from graphlens.errors import TargetError, UsageError
from graphlens.facts.programs.judged_program import programs_of
from graphlens.facts.programs.program_graphs import matched
from graphlens.ir import capture as nouns
from graphlens.ir.capture import (
    CapturedHost,
    CapturedInput,
    CapturedProgram,
    CapturedRoof,
    CapturedTarget,
    CapturedVariable,
    Manifest,
    new_id,
)
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.ir.graph import Variable
from graphlens.ir.nodes import PythonFunction, TensorSpec
from graphlens.ir.pipelines import WrittenPipeline, WrittenStage
from graphlens.ir.program import Program
from graphlens.ir.run import OpEvent, Profile, Run
from graphlens.ir.script import RowAccess, Script, ScriptFunction, ScriptTrace
from graphlens.ir.training import LayerScope
from graphlens.loaders.capture import packing, reading
from graphlens.loaders.capture.manifest import json_schema, read_manifest, to_bytes, upgraded
from graphlens.loaders.capture.writing import CaptureDirectory, ProgramParts
from graphlens.loaders.graphdef import build_graph, parse_graph_def
from graphlens.pipeline import analyze
from graphlens.pipeline.choosing import choose

MODULE = ("evaluated/p", "evaluated/neg")  # what XLA compiled of the evaluation
ROOT = Path(__file__).parents[1]
COMMITTED = sorted((ROOT / "fixtures").glob("*/*.capture"))
GOOD = [path for path in COMMITTED if path.parent.name != "bad"]
SCHEMA = Path(nouns.__file__).parents[1] / "schema" / "capture.v2.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A capture of two programs, of which the first took more time."""
    two_programs.write(tmp_path / "two", two_programs.profile())
    return tmp_path / "two"


def evidence_of(folder: Path) -> Evidence:
    return reading.evidence_of(reading.open_capture(folder))


def ops(graph: Any) -> set[str]:
    return set(graph.main.graph)


# -- read and written ---------------------------------------------------------------------------------------------


def test_each_program_has_its_own_graphs(folder: Path) -> None:
    evidence = evidence_of(folder)
    train, evaluate = evidence.programs
    assert (train.id, train.name, train.role, train.main) == ("main", TRAIN, "step", True)
    assert (train.traced, train.executed) == (evidence.traced, evidence.executed)
    assert (evaluate.id, evaluate.name, evaluate.role, evaluate.main) == ("evaluation", EVALUATE, "eval", False)
    assert (evaluate.signature, evaluate.training) == ("called", False)
    assert evaluate.inputs == (TensorSpec("float32", (2,)),)
    assert evaluate.traced is not None
    assert evaluate.executed is not None
    assert evaluate.traced.root == "root"
    assert ops(evaluate.executed) == ops(evaluate.optimized) == {"x", "eval/abs"}
    weights = Variable("weights", TensorSpec("float32", (2,)), trainable=True)
    assert evaluate.traced.main.captures == evaluate.executed.main.captures == {"x": weights}
    assert (list(train.hlo), list(evaluate.hlo)) == ([], ["evaluated"])
    assert evidence.errors == ()


def test_the_packed_file_holds_the_parts_of_all_programs(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.capture"
    (folder / "programs" / "evaluation" / "stderr.txt").write_text("what a program printed stays behind")
    packing.write_capture(folder, file)
    with zipfile.ZipFile(file) as archive:
        own = {name for name in archive.namelist() if name.startswith("programs/")}
    parts = ("traced.pb", "optimized.pb", "executed/0.pb", "hlo/0.txt")
    assert own == {f"programs/evaluation/{part}" for part in parts}
    packed, unpacked = (reading.open_capture(place) for place in (file, folder))
    assert packed.manifest == unpacked.manifest
    _, evaluate = reading.evidence_of(packed).programs
    assert ops(evaluate.executed) == {"x", "eval/abs"}


def test_a_program_that_is_written_again_takes_the_place_of_what_was_said_before(folder: Path) -> None:
    capture = two_programs.write(folder, two_programs.profile())
    assert [program.id for program in capture.manifest.programs] == ["main", "evaluation"]
    assert capture.id_for("evaluation") == "evaluation-2"
    parts = ProgramParts(executed=[two_programs.executed(CALLED[1])])
    capture.write_program(CapturedProgram("evaluation", "other"), parts)
    _, found = evidence_of(folder).programs
    assert (found.id, found.name) == ("evaluation", "other")
    assert ops(found.executed) == {"x", "eval/abs"}


def test_a_capture_of_one_program_lists_none(folder: Path) -> None:
    """And reads as it always did: no program has to be chosen."""
    manifest = json.loads((folder / "capture.json").read_text())
    (folder / "capture.json").write_text(json.dumps({**manifest, "programs": []}))
    evidence = evidence_of(folder)
    assert evidence.programs == ()
    assert evidence.is_about_main
    assert choose(evidence) is evidence


# -- judged -------------------------------------------------------------------------------------------------------


def judged(folder: Path, program: str | None = None) -> graphlens.Analysis:
    return analyze(Request.of(str(folder), static=True, program=program))


def test_the_program_with_most_time_is_judged_and_the_other_is_listed(folder: Path) -> None:
    document = judged(folder).document
    assert [(row.id, row.role, row.runs, sorted(row.graphs)) for row in document.programs] == [
        ("train_step", "step", CALLS, ["executed", "traced"]),
        ("evaluate", "eval", CALLS, ["executed", "optimized", "traced"]),
    ]
    assert document.step is not None
    assert document.step.median_ns == TRAIN_NS
    assert {op.name for op in document.ops} == {"x", "train/neg"}


@pytest.mark.parametrize("name", [EVALUATE, "evaluate", "evaluation", "called"])
def test_the_program_that_is_named_is_judged_with_its_own_graphs_and_times(folder: Path, name: str) -> None:
    """Neither the calls of the main program without the profiler, nor its replay, are the other one's."""
    analysis = judged(folder, name)
    document = analysis.document
    assert document.programs[0].name == EVALUATE
    assert document.step is not None
    assert (document.step.median_ns, document.step.n) == (
        EVALUATE_NS,
        CALLS - 1,
    )  # the first one is left out of all that is measured
    assert document.quality.join_rate == 1.0
    (row,) = [op for op in document.ops if op.self_ns]
    assert (row.name, row.calls_per_step, row.timing) == ("eval/abs", 1, "profile")
    assert analysis.facts is not None
    assert (analysis.facts.evidence.replay, analysis.facts.evidence.unprofiled_ns) == ({}, ())
    assert document.target.signature == "called"
    other = document.programs[1]
    assert (other.name, other.graphs["traced"].nodes) == (TRAIN, 2)


def test_the_command_line_names_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, report = tmp_path / "two.capture", tmp_path / "r.json"
    packing.write_capture(folder, file)
    assert main(["analyze", str(file), "--program", "evaluate", "-o", str(report)]) == 0
    document = json.loads(report.read_text())
    assert document["step"]["median_ns"] == EVALUATE_NS
    assert {op["name"] for op in document["ops"]} == {"x", "eval/abs", *MODULE}
    assert main(["analyze", str(file), "--program", "nobody"]) == 2
    assert "there are: train_step, evaluate" in capsys.readouterr().err


def test_our_own_marks_are_around_the_main_program_only(tmp_path: Path) -> None:
    two_programs.write(tmp_path, two_programs.profile(marked=True))
    assert judged(tmp_path).document.step == judged(tmp_path, "train_step").document.step
    step = judged(tmp_path, "evaluate").document.step
    assert step is not None
    assert (step.median_ns, step.n) == (EVALUATE_NS, CALLS - 1)


def test_a_program_that_did_not_run_is_judged_by_its_graphs_alone(tmp_path: Path) -> None:
    two_programs.write(tmp_path, two_programs.profile(CALLED[0]))
    assert [(row.id, row.runs) for row in judged(tmp_path).document.programs] == [
        ("train_step", CALLS),
        ("evaluation", None),
    ]
    document = judged(tmp_path, "evaluate").document
    assert document.step is None
    assert document.quality.grade == "none"
    assert {op.name for op in document.ops} == {"x", "eval/abs", *MODULE}
    assert all(op.self_ns is None for op in document.ops)


@pytest.mark.parametrize("listed_as", ["main", "main-2"])
def test_a_main_program_that_is_not_listed_has_its_graphs_all_the_same(folder: Path, listed_as: str) -> None:
    manifest = json.loads((folder / "capture.json").read_text())
    other = {**manifest["programs"][1], "id": "main" if listed_as == "main-2" else "evaluation"}
    os.rename(folder / "programs" / "evaluation", folder / "programs" / other["id"])
    other["executed"] = [part.replace("evaluation", other["id"]) for part in other["executed"]]
    (folder / "capture.json").write_text(json.dumps({**manifest, "programs": [other]}))
    evidence = evidence_of(folder)
    assert [(program.id, program.main) for program in evidence.programs] == [(listed_as, True), (other["id"], False)]
    assert judged(folder).document.graphs["executed"].nodes == 2


# -- whose graph it is --------------------------------------------------------------------------------------------

OTHER_NUMBERS = (
    CALLED[0]._replace(name="__inference_train_step_907"),
    CALLED[1]._replace(name="__inference_evaluate_911"),
)
ALL_ALIKE = tuple(
    one._replace(name=f"__inference_signature_wrapper_{number}") for number, one in enumerate(CALLED, start=1)
)
UNKNOWN = (CALLED[0]._replace(node="somebody/else"), CALLED[1]._replace(node="somebody/other"))


@pytest.mark.parametrize("ran", [OTHER_NUMBERS, ALL_ALIKE], ids=["other numbers", "all signatures are called alike"])
def test_a_function_with_another_number_is_known_by_its_ops(
    tmp_path: Path, ran: tuple[two_programs.Called, ...]
) -> None:
    """The order of the two in time is no hint: the one with less time is the main program here."""
    slow, fast = ran[1]._replace(ns=TRAIN_NS), ran[0]._replace(ns=EVALUATE_NS)
    two_programs.write(tmp_path, two_programs.profile(slow, fast), "__inference_signature_wrapper_77", "")
    programs = choose(evidence_of(tmp_path)).programs
    assert [program.name for program in programs] == [fast.name, slow.name]
    document = judged(tmp_path).document
    assert document.programs[0].name == slow.name
    assert document.quality.join_rate == 1.0


def test_a_graph_of_which_nobody_can_tell_what_it_ran_as_is_joined_to_what_is_judged(tmp_path: Path) -> None:
    two_programs.write(tmp_path, two_programs.profile(*UNKNOWN), "", "")
    evidence = choose(evidence_of(tmp_path))
    assert (evidence.judged, evidence.program) == ("main", None)
    assert judged(tmp_path).document.graphs["executed"].nodes == 2


@pytest.mark.parametrize(("known", "belongs"), [(2, True), (1, False)])
def test_a_graph_belongs_to_a_run_only_with_at_least_half_of_its_ops(known: int, belongs: bool) -> None:
    """Two functions may share a name or two, as `mul` and `add` at the top."""
    names = ["a", "b", "c", "d"]
    graph = graph_def(*((name, "Neg", ()) for name in names[:known])).SerializeToString()
    program = Program("p", traced=build_graph(parse_graph_def(graph, "p")))
    runs = (Run("__inference_f_1", 0, 100, 1), Run("__inference_g_2", 100, 400, 1))
    ran_f = [OpEvent(name, "Neg", 10 * at, 10 * at + 5, 5, 1, run=0) for at, name in enumerate(names)]
    profile = Profile(ops=(*ran_f, OpEvent("other", "Neg", 110, 390, 280, 1, run=1)), runs=runs)
    (found,) = matched([program], programs_of(profile).all, profile)
    assert found.name == ("__inference_f_1" if belongs else "")


def test_the_graph_of_another_program_explains_nothing(tmp_path: Path) -> None:
    """Most time went into a function whose graph is not known: the main one's is not taken for it."""
    stranger = two_programs.Called("__inference_stranger_5", 2 * TRAIN_NS, "far/away", "Exp")
    two_programs.write(tmp_path, two_programs.profile(stranger, *CALLED))
    document = judged(tmp_path).document
    assert (document.programs[0].id, dict(document.programs[0].graphs)) == ("stranger", {})
    assert document.graphs == {}
    assert {row.id: sorted(row.graphs) for row in document.programs[1:]} == {
        "train_step": ["executed", "traced"],
        "evaluate": ["executed", "optimized", "traced"],
    }


# -- damage and ill will ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "missing"),
    [("traced.pb", "traced"), ("optimized.pb", "optimized"), ("executed/0.pb", "executed"), ("hlo/0.txt", "hlo")],
)
def test_a_damaged_part_of_one_program_costs_that_part_of_that_program(folder: Path, part: str, missing: str) -> None:
    (folder / "programs" / "evaluation" / part).write_bytes(b"\xff\xff\xff damaged")
    evidence = evidence_of(folder)
    main, other = evidence.programs
    known = {stage: bool(getattr(other, stage)) for stage in ("traced", "optimized", "executed", "hlo")}
    assert known == {stage: stage != missing for stage in known}
    assert main.traced is not None
    assert main.executed is not None
    (error,) = evidence.errors
    assert error.stage == "read"
    assert "evaluation" in error.message
    assert "\n" not in error.message


def test_a_part_that_a_program_promises_is_missed(folder: Path) -> None:
    (folder / "programs/evaluation/executed/0.pb").unlink()
    evidence = evidence_of(folder)
    assert evidence.programs[1].executed is None
    (error,) = evidence.errors
    missed = f"'{folder}' has no part 'programs/evaluation/executed/0.pb'; record it again"
    assert error.message == f"executed graph of program evaluation: {missed}"


def test_parts_outside_of_the_capture_are_not_read(folder: Path) -> None:
    (folder.parent / "secret.pb").write_bytes(two_programs.executed(CALLED[0]))
    write_program_manifest(folder, executed=["programs/evaluation/../../../secret.pb"])
    assert evidence_of(folder).programs[1].executed is None


@pytest.mark.parametrize(
    "identity",
    ["", ".", "..", "../main", "a/b", "a\\b", "/etc", "C:", "a..b", ".a", "a.", "a b", "é", "a\n", "x" * 101],
)
def test_an_id_that_is_no_name_of_a_folder_is_refused(folder: Path, identity: str) -> None:
    write_program_manifest(folder, id=identity)
    with pytest.raises(TargetError, match=r"'programs\[1\]' in its capture.json has an id that cannot be") as caught:
        reading.open_capture(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        CapturedProgram(identity)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"id": "MAIN"}, "lists two programs with one id"),
        ({"main": True}, "lists two main programs"),
        ({"id": None}, r"'programs\[1\].id' in its capture.json is null, expected string"),
        ({"role": "dance"}, r"'programs\[1\].role' in its capture.json is \"dance\", expected one of step"),
        ({"name": 3}, r"'programs\[1\].name' in its capture.json is 3, expected string"),
        ({"variables": {"x": 1}}, r"'programs\[1\].variables.x' in its capture.json is 1, expected object"),
        ({"executed": "all"}, r"'programs\[1\].executed' in its capture.json is \"all\", expected array"),
    ],
)
def test_a_wrong_value_of_a_program_is_named(folder: Path, changed: dict[str, Any], why: str) -> None:
    write_program_manifest(folder, **changed)
    with pytest.raises(TargetError, match=why):
        reading.open_capture(folder)


@given(st.text(max_size=150), st.sets(st.text(max_size=5), max_size=5))
def test_any_name_makes_an_id_of_its_own(name: str, others: set[str]) -> None:
    taken = [new_id(other) for other in others]
    assert CapturedProgram(new_id(name, taken)).id.casefold() not in {one.casefold() for one in taken}


# -- what recorders write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("empty_call_ns", "many", "empty_call_ns is 'many', expected a whole number"),
        ("inputs", (CapturedInput("x", 7),), r"inputs\[0\].dtype is 7, expected string"),
        ("profiled_s", -1.0, "profiled_s is -1.0, expected 0 or more"),
    ],
)
def test_what_no_reader_could_read_is_not_written(tmp_path: Path, field: str, value: Any, why: str) -> None:
    capture = CaptureDirectory(tmp_path, CapturedTarget("m", "keras"))
    capture.manifest = replace(capture.manifest, **{field: value})
    with pytest.raises(TypeError, match=why):
        capture.save()
    assert reading.open_capture(tmp_path).manifest.target.path == "m"


# -- the format ---------------------------------------------------------------------------------------------------

words = st.text(max_size=8)
counts = st.integers(0, 1 << 60)
shapes = st.none() | st.lists(st.none() | counts, max_size=3).map(tuple)
variables = st.dictionaries(
    words, st.builds(CapturedVariable, words, words, shapes, st.none() | st.booleans()), max_size=2
)
inputs = st.lists(st.builds(CapturedInput, words, words, shapes, words), max_size=2).map(tuple)
rates = st.floats(1e-3, 1e18)
texts = st.lists(words, max_size=3).map(tuple)
programs = st.lists(
    st.builds(
        CapturedProgram,
        st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[a-z]{1,3})?", fullmatch=True),
        words,
        role=st.none() | st.sampled_from(["step", "dataset"]),
        signature=st.none() | words,
        training=st.none() | st.booleans(),
        variables=variables,
        executed=texts,
        inputs=inputs,
    ),
    max_size=3,
    unique_by=lambda program: program.id.casefold(),
).map(tuple)
manifests = st.builds(
    Manifest,
    target=st.builds(CapturedTarget, *[st.none() | words] * 4),
    environment=st.dictionaries(words, st.none() | words | counts | st.lists(words, max_size=2).map(tuple), max_size=2),
    variables=variables,
    inputs=inputs,
    renamed=st.none() | st.dictionaries(words, words, max_size=2),
    hosts=st.lists(st.builds(CapturedHost, words, words), max_size=2).map(tuple),
    unprofiled_ns=st.lists(counts, max_size=3).map(tuple),
    empty_call_ns=st.none() | counts,
    roof=st.none() | st.builds(CapturedRoof, rates, rates, words, st.none() | counts, words),
    errors=st.lists(st.builds(AnalysisError, words, words), max_size=2).map(tuple),
    stage_seconds=st.dictionaries(words, st.floats(0, 1e6), max_size=2),
    programs=programs,
)


def schema() -> Any:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


@given(manifests)
def test_a_manifest_is_read_back_as_it_was_written_and_fits_the_schema(manifest: Manifest) -> None:
    written = to_bytes(manifest)
    assert read_manifest(written, Path("m")) == manifest
    schema().validate(json.loads(written))


def test_the_committed_schema_is_fresh() -> None:
    fresh = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("GRAPHLENS_UPDATE"):
        SCHEMA.write_text(fresh, "utf-8")
    assert SCHEMA.read_text("utf-8") == fresh, "run GRAPHLENS_UPDATE=1 pytest tests/test_capture_programs.py"
    jsonschema.Draft202012Validator.check_schema(json_schema())


# Every field of every class is said, and every list and mapping holds something.
STAGE = WrittenStage(
    name="MapDataset:1",
    kind="MapDataset",
    inputs=("RangeDataset:0",),
    made_of=("MapDataset:1",),
    source="train.py:5",
    function="decode",
    ops=("DecodeJpeg",),
    parallelism=2,
    deterministic=True,
    batch_size=1,
    buffer_size=1,
    cardinality=10,
    python=True,
    stateful=True,
    random=True,
    per_element=True,
    library="keras",
    cycle_length=4,
)
COMPLETE = Manifest(
    graphlens_version="1",
    target=CapturedTarget("model", "saved_model", "serving_default", "sha256:0", "the largest"),
    environment={"cores": 2},
    traced_root="root",
    variables={
        "w": CapturedVariable("weights", "float32", (None, 2), trainable=True, written_by="train", key="weights_7")
    },
    inputs=(CapturedInput("x", "int32", (1, None), "made-up", (0.5, 2.0), "a guess", "how often it runs", loop=True),),
    executed=("executed/0.pb",),
    executed_root_arguments={"w": CapturedVariable("weights", "float32", (2,), False, "train", "weights_7")},
    renamed={"output_0": "output"},
    training=False,
    hosts=(CapturedHost("a:1", "profile/a.xplane.pb"),),
    unprofiled_ns=(5,),
    empty_call_ns=7,
    profiled_steps=3,
    profiled_s=0.5,
    roof=CapturedRoof(1e9, 1e9, "float16", 2, "CPU:0"),
    static_reason="asked for",
    trust=True,
    notes=("a note",),
    errors=(AnalysisError("roof", "none"),),
    stages_done=("load",),
    stage_seconds={"load": 0.25},
    programs=(
        CapturedProgram(
            "evaluation",
            "evaluate",
            True,
            "eval",
            "called",
            True,
            "root",
            {"w": CapturedVariable("weights", "float32", (2,), True, "train", "weights_7")},
            ("programs/evaluation/executed/0.pb",),
            {"w": CapturedVariable("weights", "float32", (2,), True, "train", "weights_7")},
            {"a": "b"},
            (CapturedInput("x", "int32", (1,), "made-up", (0.5, 2.0), "a guess", "how often it runs", loop=True),),
            ("table",),
            ("table",),
            {"axes": (0, 2, 1)},
            {"axes": (0, 2, 1)},
            {"net_1/dense_1": LayerScope("net/dense", "Dense", "train.py:3")},
        ),
    ),
    scopes={"net_1/dense_1": LayerScope("net/dense", "Dense", "train.py:3")},
    captured=("table",),
    executed_captured=("table",),
    captured_numbers={"axes": (0, 2, 1)},
    executed_captured_numbers={"axes": (0, 2, 1)},
    script=Script(
        9,
        8,
        (
            ScriptFunction(
                "step",
                "step",
                "train.py:7",
                4,
                6,
                2,
                3,
                ("__inference_step_12",),
                1,
                (0,),
                (0,),
                5,
                4,
                {"__inference_step_12": (5,)},
                {"__inference_step_12": (5,)},
            ),
        ),
        (ScriptTrace("step", 3, 5, 2, "retrace", ("x: the Python value 3 became 4",), 1),),
        1,
        (RowAccess("table_7", "ResourceGather", "step"),),
    ),
    pipelines=(
        WrittenPipeline("train", (STAGE,), "MapDataset:1", {"autotune.enabled": "False"}, (STAGE,), "train.pb"),
    ),
    callbacks={"pyfunc_0": PythonFunction("clipped", "train.py:3")},
)
VALUES: tuple[Any, ...] = ("many", 7, -1, -0.5, True, None, [], ["many"], {}, {"load": "many"}, [[[]]])


def test_the_complete_manifest_leaves_out_no_field() -> None:
    def said(value: Any) -> Iterator[str]:
        for one in fields(value) if is_dataclass(value) else ():
            held = getattr(value, one.name)
            assert held not in (None, "", (), {}), f"{type(value).__name__}.{one.name}"
            for item in held.values() if isinstance(held, dict) else held if isinstance(held, tuple) else (held,):
                yield from said(item)
        yield type(value).__name__

    classes = {kind.__name__ for kind in vars(nouns).values() if is_dataclass(kind)}
    assert classes <= set(said(COMPLETE))


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every value of a manifest but what is free, by its keys."""
    if path:
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if path != ("environment",):
            yield from places(value, (*path, key))


def value_at(path: tuple[str | int, ...]) -> Any:
    return reduce(lambda data, key: data[key], path, json.loads(to_bytes(COMPLETE)))


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    """The complete manifest with another value in one place."""
    data = json.loads(to_bytes(COMPLETE))
    reduce(lambda inner, key: inner[key], path[:-1], data)[path[-1]] = value
    return data


# But the version, which is looked at before and has tests of its own.
PLACES = [path for path in places(json.loads(to_bytes(COMPLETE))) if path != ("schema_version",)]


def is_allowed(data: Any) -> bool:
    """By the committed schema, but for fields that are not known: a later version may have added those."""
    text = SCHEMA.read_text("utf-8").replace('"additionalProperties": false', '"additionalProperties": {}')
    return bool(jsonschema.Draft202012Validator(json.loads(text)).is_valid(data))


def named(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


@pytest.mark.parametrize("path", PLACES, ids=named)
def test_a_wrong_value_anywhere_is_one_line_that_names_file_key_and_what_was_expected(
    path: tuple[str | int, ...],
) -> None:
    """Which values are wrong is said by the committed schema."""
    wrong = [value for value in VALUES if not is_allowed(changed(path, value))]
    assert len(wrong) > len(VALUES) / 2
    for value in wrong:
        with pytest.raises(TargetError) as caught:
            read(changed(path, value))
        assert_told(str(caught.value), path)


@pytest.mark.parametrize("path", PLACES, ids=named)
def test_what_the_schema_allows_is_read(path: tuple[str | int, ...]) -> None:
    for value in VALUES:
        if is_allowed(changed(path, value)):
            read(changed(path, value))


@pytest.mark.parametrize("path", [path for path in PLACES if type(value_at(path)) in (int, float)], ids=named)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_infinite_or_none_at_all(path: tuple[str | int, ...], value: float) -> None:
    """JSON has no word for these, but Python reads and writes some; the schema cannot speak of them."""
    with pytest.raises(TargetError) as caught:
        read(changed(path, value))
    assert_told(str(caught.value), path)


def read(data: Any) -> Manifest:
    return read_manifest(json.dumps(data).encode(), Path("m.glcap"))


def assert_told(message: str, path: tuple[str | int, ...]) -> None:
    assert message.startswith("'m.glcap' "), message
    assert str(next(key for key in reversed(path) if isinstance(key, str))) in message
    assert "expected " in message or "is missing" in message, message
    assert "\n" not in message


def test_there_are_captures() -> None:
    assert len(GOOD) >= 17


OF_THE_FIRST_VERSION = [
    path
    for path in GOOD
    if path.stem != "jax2tf" and path.parent.name != "replicas"  # which were recorded later
]


@pytest.mark.parametrize("path", GOOD, ids=[path.stem for path in GOOD])
def test_committed_captures_fit_the_schema(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        raw = archive.read("capture.json")
    schema().validate(json.loads(to_bytes(read_manifest(raw, path))))


@pytest.mark.parametrize("path", OF_THE_FIRST_VERSION, ids=[path.stem for path in OF_THE_FIRST_VERSION])
def test_committed_captures_are_of_the_first_version_and_fit_the_schema_once_upgraded(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        raw = archive.read("capture.json")
    assert json.loads(raw)["schema_version"] == 1
    schema().validate(upgraded(raw, path))
    manifest = read_manifest(raw, path)
    schema().validate(json.loads(to_bytes(manifest)))
    assert manifest.programs == ()
    assert evidence_of(path).programs == ()


def test_what_a_program_is_called_is_not_guessed(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--program e is a part of 2 names"):
        choose(evidence_of(folder), "e")
