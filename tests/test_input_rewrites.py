"""What is told of changes of an input pipeline that were tried, without TensorFlow."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphlens.children.gate_messages import Watched
from graphlens.config import Request, no_progress
from graphlens.facts.patterns.input_rewrites import rewrites_of
from graphlens.ir.analysis import Document, Finding, Fix, InputRewrite, Proof, Quality, Saving, Target
from graphlens.ir.document import from_json, to_json
from graphlens.ir.edits import AddPrefetch, ParallelMap, VectorizeMap
from graphlens.ir.evidence import Evidence
from graphlens.ir.iterators import IteratorStage
from graphlens.ir.measured import ProgramRow, StepTime
from graphlens.ir.pipelines import DATASET, WrittenPipeline, WrittenStage
from graphlens.ir.run import LedgerRow, Profile
from graphlens.ir.training import Period
from graphlens.pipeline import fixing, input_reruns, stages
from graphlens.pipeline.result import Analysis
from graphlens.prove.schedule import reason_not_to_try
from graphlens.prove.script_runner import edits_for
from graphlens.report import html, terminal
from graphlens.report.view_findings import finding_views
from graphlens.report.view_rewrites import rewrites_view

PROVEN = Proof("proven", "measured faster", 2.0, before_ns=10_000_000, after_ns=5_000_000)
REFUTED = Proof("refuted", "applied, and it gives nothing here", 1.0, before_ns=10_000_000, after_ns=10_000_000)
EDIT = ParallelMap("MapDataset:1")
REWRITES = (
    InputRewrite("dataset", ".prefetch(tf.data.AUTOTUNE) at the end", (AddPrefetch(),), "", 100.0, 100.0, REFUTED),
    InputRewrite("dataset", ".map(read, num_parallel_calls=…)", (EDIT,), "in.py:7", 100.0, 200.0, PROVEN),
    InputRewrite("dataset", ".cache()", (), "", proof=Proof("not-run", "no time was left")),
)


def document(kind: str = DATASET, *findings: Finding) -> Document:
    target = Target("pipes:slow", kind)
    return Document(target, {}, Quality("good"), {}, "0", input_rewrites=REWRITES, findings=findings)


def test_changes_are_shown_with_elements_a_second_those_that_gave_most_first() -> None:
    view = rewrites_view(document())
    assert view is not None
    assert view.summary == "2 changes tried on copies, 1 proven"
    assert [(row.before, row.after, row.factor) for row in view.rows] == [
        ("100", "200", "2.00×"),
        ("100", "100", "1.00×"),
        ("–", "–", "–"),
    ]
    told = terminal.render(document())
    assert "proven: 100 to 200 elements/s, 2.00×" in told
    assert "not run: no time was left" in told
    assert "steps/s" in terminal.render(document("script"))
    assert rewrites_view(replace(document(), input_rewrites=())) is None


def test_what_was_tried_is_kept_in_the_document() -> None:
    assert from_json(to_json(document())).input_rewrites == REWRITES
    alone = tuple(replace(one, alone=PROVEN) for one in REWRITES)
    assert from_json(to_json(replace(document("script"), input_rewrites=alone))).input_rewrites == alone


def test_beside_the_steps_of_a_script_it_is_told_what_its_pipeline_alone_gives() -> None:
    taken = replace(PROVEN, speedup=3.0, before_ns=30_000_000, after_ns=10_000_000)
    noise = replace(taken, verdict="inconclusive", why="not clear of the noise")
    used_up = Proof("not-run", "its elements cannot be taken a second time: used up")
    proofs = (noise, taken, used_up)
    told = tuple(replace(one, alone=proof) for one, proof in zip(REWRITES, proofs, strict=True))
    alone = replace(document("script"), input_rewrites=told)
    shown = " ".join(terminal.render(alone).split())
    assert "proven: 100 to 200 steps/s, 2.00×" in shown
    assert "the pipeline alone: 33.3 to 100 elements/s, 3.00× " in shown
    assert "33.3 to 100 elements/s, 3.00× (inconclusive: not clear of the noise)" in shown
    assert "the pipeline alone: not measured: its elements cannot be taken a second time: used up" in shown
    assert html.render(alone).count("The pipeline alone:") == 3
    assert "ipeline alone" not in terminal.render(document("script")) + html.render(document("script"))


def test_no_command_is_offered_that_would_write_a_dataset() -> None:
    proof = replace(PROVEN, command="graphlens analyze pipes:slow --select GL302")
    found = Finding("GL302", "r", "t", (), {}, "", Saving(), Fix("s", "tolerance", (EDIT,)), proof=proof)
    (view,) = finding_views(document(DATASET, found))
    assert view.proof.apply is None


def test_no_model_is_written_of_what_changes_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding("GL302", "r", "t", (), {}, "", Saving(), Fix("s", "tolerance", (EDIT,), "d.map(f)"), proof=PROVEN)
    known = SimpleNamespace(judged=Analysis(document(DATASET, found)), gathered=None)
    monkeypatch.setattr(stages, "judged", lambda *_: nullcontext(known))
    analysis, fixed = fixing.fix(Request.of("pipes:slow"), str(tmp_path / "new"), no_progress)
    assert fixed is None
    assert fixing.why_nothing(analysis).endswith("which no model holds; change it in the program: d.map(f)")


def test_what_changes_a_copy_of_the_input_is_tried_whoever_has_to_decide() -> None:
    manual = Finding("GL302", "r", "t", (), {}, "", Saving(), Fix("s", "manual", (EDIT,)), severity="low")
    assert reason_not_to_try(manual) is None
    assert edits_for([EDIT, AddPrefetch()], Watched("step")) == (EDIT, AddPrefetch())


@pytest.mark.parametrize(("waited_ns", "tried"), [(500, True), (50, False), (0, False)])
def test_the_input_is_experimented_on_where_the_step_waits_for_it(waited_ns: int, tried: bool) -> None:
    ledger = (LedgerRow("input", waited_ns), LedgerRow("matmul", 1000 - waited_ns))
    assert input_reruns.is_tried(Analysis(replace(document("script"), ledger=ledger))) is tried
    period = Period(1000, 20, (LedgerRow("waiting for input", waited_ns), LedgerRow("step", 1000 - waited_ns)))
    assert input_reruns.is_tried(Analysis(replace(document("script"), period=period))) is tried  # between its steps


def test_pipelines_are_those_whose_stages_ran() -> None:
    training = WrittenPipeline("training", (WrittenStage("MapDataset:1", "MapDataset"),))
    other = WrittenPipeline("other", (WrittenStage("MapDataset:7", "MapDataset"),))
    ran = Profile(iterators=(IteratorStage("Iterator::Root::Map", "Map", "MapDataset:1", ("MapDataset:1",)),))
    evidence = Evidence(Target("s.py", "script"), profile=ran, pipelines=(training, other))
    assert input_reruns._that_ran(evidence) == [training]
    assert input_reruns._that_ran(replace(evidence, profile=Profile())) == [training, other]


def test_what_is_timed_as_calls_of_a_loop_is_told_of_its_steps() -> None:
    loop = ProgramRow("loop", "loop", "step", runs=5, steps=150, step=StepTime(1, 1, 1, 150))
    told = replace(document("script"), programs=(loop,), step=loop.step)
    assert input_reruns.steps_of_a_call(told) == 30.0
    assert input_reruns.steps_of_a_call(replace(told, step=None)) == 1.0, "another one is judged"
    found = Finding("", "input-bound-measured", "", (), {}, "", Saving(), Fix("", "manual"), proof=PROVEN)
    rewrite = input_reruns._told(found, (), 10.0, {})
    assert rewrite.change.endswith(": 1.00 ms to 500 us a step")
    assert (rewrite.before_per_s, rewrite.after_per_s, rewrite.alone) == (1000.0, 2000.0, None)
    changed = replace(found, rule="map-parallel", fix=Fix("", "manual", (EDIT,)))
    assert input_reruns._told(changed, (), 10.0, {(EDIT,): REFUTED}).alone == REFUTED, "of elements: of no call"


def test_the_batch_comes_before_a_map_only_where_it_is_right_behind_it_and_the_function_allows_it() -> None:
    rows = WrittenStage("TensorSliceDataset:0", "TensorSliceDataset")
    mapped = WrittenStage("MapDataset:1", "MapDataset", (rows.name,), function="scale", per_element=True)
    batch = WrittenStage("BatchDatasetV2:2", "BatchDatasetV2", (mapped.name,), batch_size=8)
    fitting = [one.edits for one in rewrites_of(WrittenPipeline("p", (rows, mapped, batch)), 2)]
    assert (VectorizeMap(mapped.name),) in fitting
    mixed = replace(mapped, per_element=False)
    assert (VectorizeMap(mapped.name),) not in [
        one.edits for one in rewrites_of(WrittenPipeline("p", (rows, mixed, batch)), 2)
    ]
    shuffled = WrittenStage("ShuffleDatasetV3:3", "ShuffleDatasetV3", (mapped.name,))
    behind = replace(batch, inputs=(shuffled.name,))
    changes = rewrites_of(WrittenPipeline("p", (rows, mapped, shuffled, behind)), 2)
    assert (VectorizeMap(mapped.name),) not in [one.edits for one in changes]


def test_what_keras_made_of_arrays_is_not_the_users_to_change() -> None:
    rows = WrittenStage("TensorSliceDataset:0", "TensorSliceDataset", library="keras")
    mapped = WrittenStage("MapDataset:1", "MapDataset", (rows.name,), function="grab_one_batch", library="keras")
    assert rewrites_of(WrittenPipeline("p", (rows, mapped)), 2) == ()
    own = replace(mapped, library="")
    assert ParallelMap(own.name) in [
        edit for one in rewrites_of(WrittenPipeline("p", (rows, own)), 2) for edit in one.edits
    ]
