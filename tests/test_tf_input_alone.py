"""What a script iterates over, iterated over once more while it stands still: which dataset, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf

from graphlens.children.gate_messages import RunToGate, TakeElements, Watched
from graphlens.children.messages import Block, Failure
from graphlens.ir.edits import AddPrefetch, ParallelInterleave, ParallelMap
from graphlens.tf.open import datasets
from graphlens.tf.watch import alone
from graphlens.tf.watch.gate import Gate

pytestmark = pytest.mark.tf

PREFETCH = (AddPrefetch(),)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "WARM_UP_S", 0.01)


def taken(*began: tf.data.Dataset, edits: tuple[object, ...] = PREFETCH) -> Block | Failure:
    found = alone.InputAlone()
    for dataset in began:
        found.note(dataset)
    return found.answer(TakeElements(edits, 5.0))  # type: ignore[arg-type]


def counting(log: list[int]) -> tf.data.Dataset:
    """Four elements an epoch, each noted."""

    def elements() -> Iterator[int]:
        for number in range(4):
            log.append(number)
            yield number

    return tf.data.Dataset.from_generator(elements, output_signature=tf.TensorSpec((), tf.int32))


def test_elements_are_those_of_the_dataset_that_was_begun_last_epoch_after_epoch() -> None:
    first: list[int] = []
    last: list[int] = []
    block = taken(counting(first), counting(last))
    assert isinstance(block, Block)
    assert block.wall_ns > 0
    assert first == []
    assert last[:8] == [0, 1, 2, 3] * 2


def test_a_dataset_without_the_stage_that_is_changed_is_not_meant() -> None:
    log: list[int] = []
    mapped = counting(log).map(lambda number: number + 1)
    (stage,) = [one.name for one in _stages(mapped) if one.kind == "MapDataset"]
    assert isinstance(taken(mapped, tf.data.Dataset.range(3), edits=(ParallelMap(stage),)), Block)
    assert log
    assert taken(mapped, edits=(ParallelInterleave("InterleaveDataset:9"),)) == Failure(alone.NOT_FOUND)
    assert taken() == Failure(alone.NOT_FOUND)


def _stages(dataset: tf.data.Dataset) -> tuple[object, ...]:
    from graphlens.tf.datasets import reading

    return reading.pipeline_of(dataset, "p")[0].stages


def test_what_is_used_up_is_told_in_words() -> None:
    left = iter([1, 2])
    used_up = tf.data.Dataset.from_generator(lambda: left, output_signature=tf.TensorSpec((), tf.int32))
    assert [int(one) for one in used_up] == [1, 2]
    assert taken(used_up) == Failure(alone.USED_UP)


def test_what_fails_a_second_time_is_told_with_what_it_says() -> None:
    def once() -> Iterator[int]:
        raise ValueError("the socket is taken")
        yield 0

    failing = tf.data.Dataset.from_generator(once, output_signature=tf.TensorSpec((), tf.int32))
    answer = taken(failing)
    assert isinstance(answer, Failure)
    assert answer.why.startswith(alone.NOT_AGAIN.partition("{")[0])
    assert "the socket is taken" in answer.why


def test_a_gate_notes_what_the_script_iterates_over_and_not_what_is_taken_of_it() -> None:
    gate = Gate(RunToGate(Watched("step")), None, {})  # type: ignore[arg-type]
    first, second = tf.data.Dataset.range(2), tf.data.Dataset.range(3)
    gate.iterates(first)
    gate.is_answering = True
    gate.iterates(second)
    assert gate._input._begun == [first]
