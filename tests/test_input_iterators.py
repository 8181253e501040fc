"""Iterators in a profile: what their stages did is summed, whatever TensorFlow calls them and however often."""

from __future__ import annotations

from dataclasses import replace

from load_helpers import HostPlane

from graphlens.facts.core import Facts
from graphlens.facts.input.chains import chains
from graphlens.facts.input.pipelines import input_pipelines
from graphlens.facts.input.waits import step_waits
from graphlens.ir.iterators import IteratorStage, user_stages
from graphlens.ir.pipelines import DATASET
from graphlens.ir.run import Profile
from graphlens.pipeline.judge import judge
from graphlens.report.html import render
from graphlens.testing.sketch import sketch

POOL, PREFETCH, GET_NEXT = 7, 8, 9


class Host(HostPlane):
    """Writes what tf.data writes down around its elements."""

    def stage(self, path, start_ns, end_ns, iterator, parent=0, name="", thread=GET_NEXT, **told):
        stats = {"id": iterator, **({"parent_id": parent} if parent else {}), "name": name or f"{path}:0", **told}
        return self.event(path, start_ns, end_ns, thread=thread, **stats)

    def request(self, start_ns, end_ns, step_id=5):
        return self.event("IteratorGetNextOp::DoCompute", start_ns, end_ns, thread=GET_NEXT, id=step_id, element_size=8)


def stages(profile: Profile) -> dict[str, IteratorStage]:
    return {stage.path.removeprefix("Iterator::"): stage for stage in profile.iterators}


def test_elements_of_an_interleave_are_one_stage_and_inputs_of_a_zip_are_two():
    host = Host().stage("Iterator::Root", 0, 900, 1)
    host.stage("Iterator::Root::Zip", 0, 890, 2, 1, "ZipDataset:9")
    host.stage("Iterator::Root::Zip[0]::ParallelInterleaveV4", 0, 400, 3, 2, "ParallelInterleaveDatasetV4:4")
    for element in range(5):
        path, name = f"Iterator::Root::Zip[0]::ParallelInterleaveV4[{element}]::Map", f"MapDataset:{20 + element}"
        host.stage(path, 100 * element, 100 * element + 60, 100 + element, 3, name, thread=POOL)
    host.stage("Iterator::Root::Zip[1]::Map", 400, 880, 4, 2, "MapDataset:7")
    found = stages(host.read())
    assert list(found) == [
        "Root",
        "Root::Zip",
        "Root::Zip[0]::ParallelInterleaveV4",
        "Root::Zip[0]::ParallelInterleaveV4[*]::Map",
        "Root::Zip[1]::Map",
    ]
    inner = found["Root::Zip[0]::ParallelInterleaveV4[*]::Map"]
    assert (inner.elements, inner.inclusive_ns, inner.kind) == (5, 300, "Map")
    assert inner.stages == ("ParallelInterleaveDatasetV4:4/MapDataset",)
    assert found["Root::Zip[1]::Map"].stages == ("MapDataset:7",)


def test_what_a_stage_asked_of_another_on_its_thread_is_not_its_own_work():
    host = Host()
    host.stage("Iterator::Root", 0, 100, 1, name="BatchDatasetV2:2")
    host.stage("Iterator::Root::BatchV2", 5, 95, 2, 1, "BatchDatasetV2:2")
    for number in range(3):
        host.stage("Iterator::Root::BatchV2::Map", 10 + 20 * number, 25 + 20 * number, 3, 2, "MapDataset:1")
    found = stages(host.read())
    assert (found["Root::BatchV2"].inclusive_ns, found["Root::BatchV2"].self_ns) == (90, 45)
    assert (found["Root::BatchV2::Map"].elements, found["Root::BatchV2::Map"].self_ns) == (3, 45)


def test_a_function_works_from_its_first_executor_to_its_last_and_not_while_it_waits_for_a_thread():
    host = Host().stage("Iterator::Root::MapAndBatch", 0, 100, 2, 1, "fused(MapDataset:1,BatchDatasetV2:2)")
    host.stage("Iterator::Root::MapAndBatch::TensorSlice", 0, 2, 3, 2, "TensorSliceDataset:0", thread=PREFETCH)
    host.event("InstantiatedCapturedFunction::RunAsync", 3, 4, thread=PREFETCH, id=-9)
    host.event("ExecutorState::Process", 50, 51, thread=POOL, id=-9).event(
        "ExecutorState::Process", 60, 80, thread=POOL, id=-9
    )
    stage = stages(host.read())["Root::MapAndBatch"]
    assert (stage.function_runs, stage.function_ns) == (1, 30)
    assert stage.stages == ("MapDataset:1", "BatchDatasetV2:2")


def test_an_iterator_that_is_made_again_is_another_one_though_it_has_the_same_number():
    host = Host()
    for epoch in range(2):
        base = 1000 * epoch
        host.event("MakeIterator::RootDataset", base, base + 10, thread=1)
        host.event("MakeIterator::PrefetchDataset", base + 1, base + 9, thread=1)
        host.stage("Iterator::Root", base + 100, base + 200, 1, name="PrefetchDataset:3")
        host.stage("Iterator::Root::Prefetch", base + 100, base + 190, 2, 1, "PrefetchDataset:3", buffer_limit=4)
        host.stage("Iterator::Root::Prefetch::Map", base + 20, base + 90, 3, 2, "MapDataset:1", thread=PREFETCH)
    profile = host.read()
    assert [(stage.chain, stage.kind) for stage in profile.iterators] == [
        (0, "Root"), (0, "Prefetch"), (0, "Map"), (1, "Root"), (1, "Prefetch"), (1, "Map"),
    ]  # fmt: skip


def test_another_dataset_at_the_same_place_of_the_memory_is_another_one():
    host = Host()
    host.stage("Iterator::Root", 0, 100, 1, name="MapDataset:2").stage(
        "Iterator::Root", 200, 300, 1, name="MapDataset:6"
    )
    assert [stage.stages for stage in host.read().iterators] == [("MapDataset:2",), ("MapDataset:6",)]


def test_what_is_granted_and_how_full_the_buffer_was_is_told_by_the_events():
    host = Host()
    for number, buffered in enumerate((0, 2, 4)):
        told = {"buffered_elements": buffered} if buffered else {}
        granted = {"parallelism": number + 1} if number < 2 else {}
        path = "Iterator::Root::ParallelMapV2"
        host.stage(path, 10 * number, 10 * number + 5, 2, 1, "MapDataset:1", autotune="true", **told, **granted)
    (stage,) = host.read().iterators
    assert (stage.parallelism, stage.autotune, stage.buffered) == (2, True, 2.0)


def test_a_loop_within_tf_data_asks_what_its_body_reads():
    host = Host().event("ReduceDatasetOp::DoCompute", 0, 1000, thread=2, id=5)
    for number in range(2):
        base = 400 * number
        host.stage("ReduceIterator::Root", base + 10, base + 390, 1, name="ScanDataset:9", thread=2)
        host.stage("ReduceIterator::Root::Scan", base + 12, base + 380, 2, 1, "ScanDataset:9", thread=2)
        host.stage("ReduceIterator::Root::Scan::Map", base + 15, base + 115, 3, 2, "MapDataset:1", thread=2)
    profile = host.read()
    asked = [(one.end_ns - one.start_ns, profile.iterators[one.stage].kind) for one in profile.requests]
    assert asked == [(100, "Map"), (100, "Map")]


def test_iterators_that_say_to_be_read_by_each_other_make_no_circle():
    host = Host().stage("Iterator::Root", 0, 100, 1, 3).stage("Iterator::Root::Map", 10, 90, 2, 1)
    profile = host.stage("Iterator::Root::Map::Range", 20, 80, 3, 2).read()
    assert len(profile.iterators) == 3
    assert all(stage.parent is None or stage.parent < place for place, stage in enumerate(profile.iterators))


def test_the_name_in_a_profile_says_which_stages_of_the_user_ran():
    assert user_stages("fused(ShuffleDatasetV3:1,RepeatDataset:2)") == ("ShuffleDatasetV3:1", "RepeatDataset:2")
    assert user_stages("inject/prefetch_BatchDatasetV2/_5") == ()


# -- what follows ------------------------------------------------------------------------------------------------------

WAITING = """
called: train_step dispatch 50us input 6ms python 50us
pipeline: cores 2 | Prefetch (PrefetchDataset:4) buffer 2 <- BatchV2 (BatchDatasetV2:3) 20us
    <- Interleave (InterleaveDataset:2) x8 5us <- Map (InterleaveDataset:2/MapDataset) x8 1ms
x   = Placeholder() float32[32,64]
y   = Relu(x) float32[32,64] 3ms
out = _Retval(y)
""".replace("\n    <-", " <-")


def test_the_stage_with_most_work_of_its_own_limits_and_not_the_one_that_waits():
    (pipeline,) = Facts(sketch(WAITING))(input_pipelines)
    assert pipeline.limiting is not None
    stage = pipeline.stages[pipeline.limiting]
    assert (stage.name, stage.work_ns, stage.step_ns) == ("InterleaveDataset:2/MapDataset", 1_000_000, 8_000_000)
    assert pipeline.stages[0].waiting_ns == 6_000_000  # the prefetch, which does nothing but wait
    assert (pipeline.wait.median_ns, round(pipeline.wait.share, 2)) == (6_000_000, 0.66)


def test_time_in_which_the_step_computes_is_no_waiting():
    facts = Facts(sketch(WAITING))
    (run, *_) = facts.evidence.profile.runs
    waits = facts(step_waits)
    assert {wait.wait_ns for wait in waits} == {6_000_000}
    assert run.end_ns - run.start_ns > 6_000_000


def test_stages_of_sixty_are_all_told():
    chain = " <- ".join(f"Map (MapDataset:{number}) {number + 1}us" for number in range(60))
    text = WAITING.replace(WAITING.splitlines()[2], f"pipeline: {chain}")
    (pipeline,) = Facts(sketch(text))(input_pipelines)
    assert len(pipeline.stages) == 60
    assert pipeline.stages[pipeline.limiting].name == "MapDataset:59"
    (chain_ran,) = Facts(sketch(text))(chains)
    assert [one.needed for one in chain_ran.stages] == [1.0] * 60


def test_the_pipeline_is_a_graph_and_a_part_of_the_page():
    analysis = judge(sketch(WAITING))
    graph = analysis.to_networkx("input")
    assert list(graph.nodes) == [
        "PrefetchDataset:4", "BatchDatasetV2:3", "InterleaveDataset:2", "InterleaveDataset:2/MapDataset",
    ]  # fmt: skip
    assert ("BatchDatasetV2:3", "PrefetchDataset:4") in graph.edges()
    assert [name for name, limits in graph.nodes(data="limits") if limits] == ["InterleaveDataset:2/MapDataset"]
    page = render(analysis.document)
    assert 'id="input"' in page
    assert "steps wait 6.00 ms for input" in page


def test_a_stage_that_no_step_waits_for_limits_nothing():
    document = judge(sketch(WAITING)).document
    (pipeline,) = document.input
    idle = replace(pipeline, wait=replace(pipeline.wait, median_ns=0, total_ns=0, share=0.0))
    assert "steps wait 6.00 ms for input" in render(document)
    page = render(replace(document, input=(idle,)))
    assert "steps wait 0 ns for input" in page
    assert " is its slowest stage" in page


def test_of_a_dataset_alone_it_is_said_which_stage_limits_it():
    document = judge(sketch(WAITING)).document
    (pipeline,) = document.input
    page = render(replace(document, input=(replace(pipeline, id=DATASET, wait=None),)))
    assert "limits them" in page
    assert "was not seen" not in page
    unseen = render(replace(document, input=(replace(pipeline, wait=None),)))
    assert "limits them; what steps wait for them was not seen" in unseen
