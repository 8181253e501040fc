"""Datasets as targets: what is read of their graphs, and what is recorded of them, in one TensorFlow process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphlens.children.messages import Failure, RecordRequest
from graphlens.errors import RewriteError
from graphlens.facts.patterns.input_rewrites import rewrites_of
from graphlens.ir.capture import Manifest
from graphlens.ir.edits import (
    AddCache,
    AddPrefetch,
    InputThreads,
    MergeConstants,
    NotDeterministic,
    ParallelInterleave,
    ParallelMap,
    VectorizeMap,
)
from graphlens.ir.pipelines import AUTOTUNE, DATASET, WrittenPipeline, WrittenStage
from graphlens.loaders.capture.manifest import to_bytes
from graphlens.loaders.capture.reading import evidence_of, open_capture

pytestmark = pytest.mark.tf

REPOSITORY = Path(__file__).parents[1]
FIXTURES = REPOSITORY / "fixtures" / "datasets.py"


def line_of(text: str) -> str:
    """Where a text stands in the fixtures: file and line."""
    lines = FIXTURES.read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, start=1) if text in line)
    return f"{FIXTURES}:{number}"


@pytest.fixture(scope="module")
def datasets() -> Any:
    """The fixtures, made while it is noted where datasets are made."""
    from graphlens.tf.datasets import creation

    creation.watch()
    from fixtures import datasets

    return datasets


Read = Callable[[Any], WrittenPipeline]


@pytest.fixture(scope="module")
def read() -> Read:
    from graphlens.tf.datasets import reading

    return lambda dataset: reading.pipeline_of(dataset, DATASET)[0]


def stage(pipeline: WrittenPipeline, kind: str) -> WrittenStage:
    (found,) = (one for one in pipeline.stages if one.kind == kind)
    return found


# -- what is read of a graph ------------------------------------------------------------------------------------------


def test_stages_are_told_with_their_kinds_functions_and_lines(datasets: Any, read: Read) -> None:
    pipeline = read(datasets.unvectorized_map())
    assert [one.kind for one in pipeline.stages] == ["TensorSliceDataset", "MapDataset", "BatchDatasetV2"]
    source, mapped, batch = pipeline.stages
    assert (mapped.inputs, batch.inputs, pipeline.root) == ((source.name,), (mapped.name,), batch.name)
    assert (mapped.function, mapped.source) == ("scale", line_of(".map(scale).batch(256)"))
    assert (source.cardinality, batch.batch_size, batch.cardinality) == (8192, 256, 32)
    assert {"Cast", "Sub", "RealDiv", "Mul"} <= set(mapped.ops)


def test_what_a_function_does_is_told(datasets: Any, read: Read) -> None:
    mapped = stage(read(datasets.unvectorized_map()), "MapDataset")
    assert (mapped.python, mapped.stateful, mapped.random, mapped.per_element) == (False, False, False, True)
    drawing = stage(read(datasets.random_map()), "MapDataset")
    assert (drawing.python, drawing.random, drawing.per_element) == (False, True, False)
    python = stage(read(datasets.sequential_map()), "MapDataset")
    assert (python.python, python.stateful, python.random) == (True, True, False)


def test_a_name_is_the_one_that_profiles_have_and_survives_fusing(datasets: Any, read: Read) -> None:
    pipeline = read(datasets.sequential_map())
    mapped, batch = stage(pipeline, "MapDataset").name, stage(pipeline, "BatchDatasetV2").name
    assert mapped.startswith("MapDataset:")
    fused = next(one for one in pipeline.rewritten if one.kind == "MapAndBatchDataset")
    assert (fused.made_of, fused.parallelism) == ((mapped, batch), 1)  # it calls Python
    fused = next(one for one in read(datasets.repeated_decode()).rewritten if one.kind == "MapAndBatchDataset")
    assert fused.parallelism == AUTOTUNE


def test_what_tensorflow_adds_is_made_of_nothing(read: Read) -> None:
    import tensorflow as tf

    pipeline = read(tf.data.Dataset.range(8).batch(2))
    added = next(one for one in pipeline.rewritten if one.kind == "PrefetchDataset")
    assert added.made_of == ()


def test_stages_within_the_function_of_an_interleave_are_told_with_their_lines(datasets: Any, read: Read) -> None:
    pipeline = read(datasets.sequential_interleave())
    outer = stage(pipeline, "InterleaveDataset")
    inner = stage(pipeline, "MapDataset")
    assert inner.name == f"{outer.name}/MapDataset"
    assert (inner.source, inner.python) == (line_of("number * 50 + 50"), True)
    assert inner.name in outer.inputs
    assert not outer.python  # what its elements call is theirs


def test_options_are_told_and_rewrites_that_they_forbid_are_not_made(read: Read) -> None:
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = 3
    options.experimental_optimization.apply_default_optimizations = False
    pipeline = read(tf.data.Dataset.range(8).map(lambda number: number + 1).batch(2).with_options(options))
    assert pipeline.options["threading.private_threadpool_size"] == "3"
    assert to_bytes(Manifest(pipelines=(pipeline,))), "what a manifest refuses would end the script that is watched"
    assert "MapDataset" in [one.kind for one in pipeline.rewritten]
    assert pipeline.root.startswith("BatchDatasetV2:")  # options make no elements


@pytest.mark.parametrize(
    ("function", "holds"),
    [
        (lambda x: x * 2.0 + 1.0, True),
        (lambda x: x - [1.0, 2.0, 3.0], True),
        (lambda x: x - [[1.0], [2.0]], False),  # more dimensions than an element
        (lambda x: x + sum_of(x), False),
        (lambda x: x[0], False),
    ],
)
def test_functions_that_do_the_same_to_each_row_are_told(read: Read, function: Any, holds: bool) -> None:
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices(tf.ones((4, 3)))
    assert stage(read(rows.map(function)), "MapDataset").per_element is holds


def sum_of(row: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_sum(row)


def test_operands_of_other_ranks_are_lined_up_with_other_dimensions_of_a_batch(read: Read) -> None:
    import tensorflow as tf

    pairs = tf.data.Dataset.from_tensor_slices((tf.ones((4, 3)), tf.ones((4,))))
    assert not stage(read(pairs.map(lambda row, weight: row * weight)), "MapDataset").per_element
    assert stage(read(pairs.map(lambda row, weight: (row * 2.0, weight + 1.0))), "MapDataset").per_element


def test_the_graph_of_much_data_is_not_written_down(monkeypatch: pytest.MonkeyPatch, datasets: Any) -> None:
    from graphlens.tf.datasets import reading, serializing

    monkeypatch.setattr(serializing, "MOST_HELD_BYTES", 1000)
    pipeline, notes = reading.pipeline_of(datasets.unvectorized_map(), DATASET)
    assert pipeline.stages == ()
    assert "its graph would hold them again" in notes[0]


# -- what is changed -------------------------------------------------------------------------------------------------


Changed = Callable[..., tuple[Any, WrittenPipeline]]


@pytest.fixture(scope="module")
def change(read: Read) -> Changed:
    """Apply edits to a copy; the dataset that came of it, and its pipeline."""
    from graphlens.tf.datasets import changing, serializing

    def changed(dataset: Any, *edits: Any) -> tuple[Any, WrittenPipeline]:
        graph = changing.changed(serializing.graph_of(dataset), edits)
        copy = changing.with_options(serializing.dataset_of(graph, dataset.element_spec), edits)
        return copy, read(copy)

    return changed


def values(dataset: Any, count: int = 40) -> list[Any]:
    return [one.numpy().tolist() for one in dataset.take(count)]


def kinds(pipeline: WrittenPipeline) -> list[str]:
    return [one.kind for one in pipeline.stages]


def test_a_sequential_map_becomes_parallel_and_gives_the_same(datasets: Any, read: Read, change: Changed) -> None:
    dataset = datasets.sequential_map()
    copy, pipeline = change(dataset, ParallelMap(stage(read(dataset), "MapDataset").name, 6))
    assert stage(pipeline, "ParallelMapDatasetV2").parallelism == 6
    assert values(copy, 5) == values(dataset, 5)


def test_a_batch_is_moved_before_the_map_and_gives_the_same(datasets: Any, read: Read, change: Changed) -> None:
    dataset = datasets.unvectorized_map()
    copy, pipeline = change(dataset, VectorizeMap(stage(read(dataset), "MapDataset").name))
    assert kinds(pipeline) == ["TensorSliceDataset", "BatchDatasetV2", "MapDataset"]
    assert values(copy) == values(dataset)


def test_a_rest_that_fills_no_batch_stays_or_goes_as_it_did(read: Read, change: Changed) -> None:
    import tensorflow as tf

    for drops in (False, True):
        dataset = tf.data.Dataset.range(10).map(lambda number: number * 2).batch(4, drop_remainder=drops)
        copy, _ = change(dataset, VectorizeMap(stage(read(dataset), "MapDataset").name))
        assert values(copy) == values(dataset)


def test_a_map_that_does_more_than_the_same_to_each_row_is_not_moved(read: Read, change: Changed) -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(tf.ones((4, 3))).map(tf.reduce_sum).batch(2)
    with pytest.raises(RewriteError, match="does more than the same to each row of a batch"):
        change(dataset, VectorizeMap(stage(read(dataset), "MapDataset").name))


def test_files_are_read_in_parallel_in_the_order_that_they_had(datasets: Any, read: Read, change: Changed) -> None:
    dataset = datasets.sequential_interleave()
    copy, pipeline = change(dataset, ParallelInterleave(stage(read(dataset), "InterleaveDataset").name))
    assert stage(pipeline, "ParallelInterleaveDatasetV4").parallelism == AUTOTUNE
    assert values(copy, 10) == values(dataset, 10)


def test_as_many_files_are_mixed_as_before_where_nobody_has_said_how_many(read: Read, change: Changed) -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.range(64).interleave(lambda number: tf.data.Dataset.from_tensors(number).repeat(2))
    copy, _ = change(dataset, ParallelInterleave(stage(read(dataset), "InterleaveDataset").name))
    assert values(copy) == values(dataset)
    assert ", cycle_length=2, num_parallel_calls=tf.data.AUTOTUNE)" in fitting(read(dataset))["parallel-interleave"]


def test_a_cache_calls_a_function_in_its_first_epoch_alone(read: Read, change: Changed) -> None:
    import tensorflow as tf

    calls: list[int] = []

    def counted(number: Any) -> Any:
        calls.append(int(number))
        return number

    dataset = tf.data.Dataset.range(5).map(lambda number: tf.numpy_function(counted, [number], tf.int64))
    copy, _ = change(dataset, AddCache(stage(read(dataset), "MapDataset").name))
    assert [values(copy) for _ in range(3)] == [[0, 1, 2, 3, 4]] * 3
    assert calls == [0, 1, 2, 3, 4]
    assert values(dataset) == [0, 1, 2, 3, 4]
    assert len(calls) == 10  # the user's own dataset keeps nothing


def test_what_is_made_ahead_and_options_come_on_top(read: Read, change: Changed) -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.range(8).map(lambda number: number + 1, num_parallel_calls=2).batch(2)
    copy, pipeline = change(dataset, AddPrefetch(), InputThreads(5), NotDeterministic())
    assert kinds(pipeline)[-1] == "PrefetchDataset"
    assert pipeline.options["threading.private_threadpool_size"] == "5"
    assert pipeline.options["deterministic"] == "False"
    assert sorted(number for batch in values(copy) for number in batch) == list(range(1, 9))
    assert kinds(read(dataset))[-1] == "BatchDatasetV2"


def test_what_is_no_edit_of_a_stage_that_is_there_is_refused(datasets: Any, change: Changed) -> None:
    with pytest.raises(RewriteError, match="has no stage 'MapDataset:0815'"):
        change(datasets.good(), ParallelMap("MapDataset:0815"))
    with pytest.raises(RewriteError, match="'merge-constants' is no change of an input pipeline"):
        change(datasets.good(), MergeConstants())


# -- which changes fit ------------------------------------------------------------------------------------------------


def fitting(pipeline: WrittenPipeline) -> dict[str, str]:
    return {one.edits[0].kind: one.change for one in rewrites_of(pipeline, 2)}


def test_changes_that_fit_are_told_as_they_are_written_in_python(datasets: Any, read: Read) -> None:
    assert fitting(read(datasets.sequential_map())) == {
        "parallel-map": ".map(read, num_parallel_calls=tf.data.AUTOTUNE)",
        "add-prefetch": ".prefetch(tf.data.AUTOTUNE) at the end",
        "input-threads": "options.threading.private_threadpool_size = 4",
    }
    assert fitting(read(datasets.unvectorized_map()))["vectorize-map"].startswith(".batch(256).map(scale)")
    assert fitting(read(datasets.sequential_interleave()))["parallel-interleave"] == (
        ".interleave(_file, cycle_length=8, num_parallel_calls=tf.data.AUTOTUNE)"
    )


def test_what_tensorflow_makes_parallel_itself_needs_no_change(datasets: Any, read: Read) -> None:
    assert "parallel-map" not in fitting(read(datasets.repeated_decode()))


def test_nothing_is_kept_that_is_another_in_each_epoch(datasets: Any, read: Read) -> None:
    import tensorflow as tf

    assert "add-cache" in fitting(read(datasets.repeated_decode()))
    shuffled = tf.data.Dataset.range(9).shuffle(9).map(lambda number: number + 1)
    for dataset in (datasets.random_map(), datasets.sequential_map(), shuffled, datasets.repeated_decode().cache()):
        assert "add-cache" not in fitting(read(dataset))


# -- what is recorded -------------------------------------------------------------------------------------------------


class Recorded:
    """What a request left."""

    def __init__(self, path: Path, messages: list[Any]) -> None:
        self.path = path
        self.error = next((message.why for message in messages if isinstance(message, Failure)), "")
        self.manifest = json.loads((path / "capture.json").read_text())


Record = Callable[..., Recorded]


@pytest.fixture
def record(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    from graphlens.tf.record import child
    from graphlens.tf.record import datasets as recording

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(recording, "BLOCK_S", 0.02)
    monkeypatch.setattr(recording, "WARM_UP_S", 0.05)

    def serve(name: str, **request: Any) -> Recorded:
        messages: list[Any] = []
        asked = RecordRequest(f"fixtures.datasets:{name}", "callable", steps=6, **request)
        child.serve(asked, tmp_path / "out", messages.append)
        return Recorded(tmp_path / "out", messages)

    return serve


def test_a_dataset_is_recorded_with_its_pipeline_and_no_row_of_its_data(record: Record, datasets: Any) -> None:
    recorded = record("unvectorized_map")
    evidence = evidence_of(open_capture(recorded.path))
    assert (evidence.target.kind, recorded.error) == (DATASET, "")
    assert [one.kind for one in evidence.pipelines[0].stages][-1] == "BatchDatasetV2"
    assert evidence.profile is not None
    assert len(evidence.profile.steps) == recorded.manifest["profiled_steps"] >= 6
    assert len(evidence.unprofiled_ns) > 1
    row = datasets._pixels()[0].tobytes()
    assert not [file.name for file in recorded.path.rglob("*") if file.is_file() and row in file.read_bytes()]


def test_one_without_an_end_is_recorded(record: Record) -> None:
    recorded = record("endless")
    assert recorded.error == ""
    assert recorded.manifest["profiled_steps"] >= 6


def test_one_that_is_empty_or_fails_says_so_in_one_line(record: Record) -> None:
    assert record("empty").error == "the dataset has no element; nothing can be measured of it"
    assert record("raising").error.startswith("the dataset failed on an element: Error in user-defined function")


def test_only_the_graph_is_read_where_nothing_is_to_run(record: Record) -> None:
    recorded = record("empty", mode="trace")
    assert recorded.error == ""
    assert recorded.manifest["pipelines"][0]["root"].startswith("MapDataset:")
    assert "unprofiled_ns" not in recorded.manifest or not recorded.manifest["unprofiled_ns"]


def test_a_dataset_that_is_joined_with_itself_again_and_again_is_walked_once() -> None:
    import tensorflow as tf

    from graphlens.tf.datasets.serializing import all_of
    from graphlens.tf.watch.datasets import outside_of_functions

    def joined(times: int) -> Any:
        dataset = tf.data.Dataset.range(2)
        for _ in range(times):
            dataset = dataset.concatenate(dataset)
        return dataset

    assert len(list(all_of(joined(40)))) == 41
    found = []

    @tf.function(autograph=False)
    def within() -> Any:
        found.append(outside_of_functions(joined(40)))
        return tf.constant(0)

    within.get_concrete_function()
    assert found == [None]
