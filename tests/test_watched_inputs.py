"""Variations of a script's input, in this process: its datasets are replaced as they are iterated over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from graphlens.ir.edits import AddCache, ParallelMap, ScriptSetting
from graphlens.tf.watch import arguments, inputs

pytestmark = pytest.mark.tf


class Applied:
    """How often something was replaced."""

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        self.count += 1


@pytest.fixture
def vary(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Any]], None]:
    """Wrap TensorFlow's modules as a variation says, until the test is over."""
    import importlib

    from tensorflow.python.autograph.operators import control_flow
    from tensorflow.python.data.ops import dataset_autograph
    from tensorflow.python.data.ops.dataset_ops import DatasetV2
    from tensorflow.python.data.ops.iterator_ops import OwnedIterator
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    monkeypatch.setattr(OwnedIterator, "__init__", OwnedIterator.__init__)
    monkeypatch.setattr(Function, "__call__", Function.__call__)
    monkeypatch.setattr(dataset_autograph, "_tf_ag_dataset_for_stmt", dataset_autograph._tf_ag_dataset_for_stmt)
    loops = dict(control_flow.for_loop_registry._registry)

    def varied(wrappers: Mapping[str, Any]) -> None:
        for name, wrap in wrappers.items():
            wrap(importlib.import_module(name))
        # As it is registered where the module is wrapped while it is imported.
        loops[DatasetV2] = dataset_autograph._tf_ag_dataset_for_stmt
        monkeypatch.setattr(control_flow.for_loop_registry, "_registry", loops)

    return varied


def counted_reads(count: int) -> tuple[Any, list[int]]:
    """A dataset of numbers, and the reads that it made so far."""
    import tensorflow as tf

    reads: list[int] = []

    def read(number: Any) -> Any:
        reads.append(int(number))
        return number

    return tf.data.Dataset.range(count).map(lambda number: tf.numpy_function(read, [number], tf.int64)), reads


def numbers(dataset: Any) -> list[int]:
    return [int(one) for one in dataset]


def test_first_batches_come_again_and_again_from_memory_as_often_as_there_are_batches(vary: Any) -> None:
    applied = Applied()
    dataset, reads = counted_reads(20)
    vary(inputs.served(applied.note))
    first = list(range(inputs.KEPT))
    assert numbers(dataset) == (first * 3)[:20]
    assert numbers(dataset) == (first * 3)[:20]  # a second epoch, of the same that is kept
    assert reads == first
    assert applied.count == 1


def test_of_a_loop_in_python_they_come_for_ever(vary: Any) -> None:
    dataset, reads = counted_reads(3)
    vary(inputs.served(Applied().note, endless=True))
    assert [int(one) for one in itertools.islice(dataset, 8)] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert reads == [0, 1, 2]


def test_what_a_function_loops_over_comes_to_an_end_all_the_same(vary: Any) -> None:
    import tensorflow as tf

    @tf.function
    def counted(given: Any) -> Any:
        count = 0
        for _ in given:
            count += 1
        return count

    dataset, reads = counted_reads(5)
    vary(inputs.served(Applied().note, endless=True))
    assert int(counted(dataset)) == 5
    assert len(list(itertools.islice(dataset, 12))) == 12
    assert set(reads) == set(range(5))


def test_a_dataset_that_a_function_is_given_is_replaced_too(vary: Any) -> None:
    import tensorflow as tf

    applied = Applied()
    dataset, reads = counted_reads(20)

    @tf.function
    def summed(given: Any) -> Any:
        total = tf.constant(0, tf.int64)
        for number in given:
            number.set_shape(())
            total += number
        return total

    within = tf.function(lambda sets, *, last: summed(sets["rows"][0]) + summed(last))
    vary(inputs.served(applied.note))
    expected = sum((list(range(inputs.KEPT)) * 3)[:20])
    assert int(summed(dataset)) == int(summed(given=dataset)) == expected
    assert int(within({"rows": (dataset, 1)}, last=dataset)) == 2 * expected
    assert reads == list(range(inputs.KEPT))


@pytest.mark.parametrize("over", [lambda dataset: dataset, iter])
def test_a_dataset_from_outside_of_a_function_that_loops_over_it_is_replaced_too(vary: Any, over: Any) -> None:
    import tensorflow as tf

    applied = Applied()
    dataset, reads = counted_reads(20)

    @tf.function
    def summed() -> Any:
        total = tf.constant(0, tf.int64)
        for number in over(dataset):
            number.set_shape(())
            total += number
        return total

    vary(inputs.served(applied.note))
    assert int(summed()) == int(summed()) == sum((list(range(inputs.KEPT)) * 3)[:20])
    assert reads == list(range(inputs.KEPT))
    assert applied.count == 1


def test_of_iterators_that_a_loop_is_given_those_are_made_anew_that_are_used_up() -> None:
    import tensorflow as tf

    used_up, fresh = iter(tf.data.Dataset.range(2)), iter(tf.data.Dataset.range(9))
    assert numbers(used_up) == [0, 1]
    (first, others), number = arguments.with_new_iterators(((used_up, {"second": fresh}), 7))
    assert numbers(first) == [0, 1]
    assert others["second"] is fresh
    assert number == 7


def test_an_empty_dataset_stays_empty(vary: Any) -> None:
    import tensorflow as tf

    applied = Applied()
    vary(inputs.served(applied.note))
    assert numbers(tf.data.Dataset.range(0)) == []
    assert applied.count == 0


def test_only_the_dataset_that_has_the_stage_is_changed(vary: Any) -> None:
    from graphlens.tf.datasets import reading

    applied = Applied()
    dataset, reads = counted_reads(5)
    other, other_reads = counted_reads(5)
    stage = next(one for one in reading.pipeline_of(dataset, "")[0].stages if one.kind == "MapDataset").name
    vary(inputs.changed([ParallelMap(stage, 2), AddCache(stage)], applied.note))
    for _ in range(3):
        assert numbers(dataset) == numbers(other) == [0, 1, 2, 3, 4]
    assert sorted(reads) == [0, 1, 2, 3, 4]  # what is kept is read once
    assert len(other_reads) == 15
    assert applied.count == 1


def test_steps_of_other_batches_are_other_numbers_as_it_is_meant() -> None:
    assert ScriptSetting("served_input").changes_numbers
