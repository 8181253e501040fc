"""Wrappers around TensorFlow: they tell of calls while they are in place, and leave it as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphlens.ir.capture import CapturedTarget
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf.watch import hooks

pytestmark = pytest.mark.tf


class Told:
    """Notes what it is told, and runs the calls."""

    def __init__(self) -> None:
        self.of: list[str] = []

    def _run(self, what: str, call: Callable[[], Any]) -> Any:
        self.of.append(what)
        return call()

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        return self._run("function", call)

    def execution(self, concrete: Any) -> None:
        self.of.append("execution")

    def traced(self, traces: Any, concrete: Any) -> None:
        self.of.append("traced")

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        return self._run("gradient", call)

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        return call()

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        return self._run("session", call)

    def profiler(self, call: Callable[[], Any]) -> Any:
        return self._run("profiler", call)

    def iterates(self, dataset: Any) -> None:
        self.of.append("iterates")


def wrapped() -> dict[str, Any]:
    """What a program calls of TensorFlow, as it is now."""
    from tensorflow.core.function.polymorphism import function_cache
    from tensorflow.python.client import session
    from tensorflow.python.eager import backprop
    from tensorflow.python.eager.polymorphic_function import concrete_function, polymorphic_function
    from tensorflow.python.profiler import profiler_v2

    kinds = {
        "Function": (polymorphic_function.Function, "__call__"),
        "ConcreteFunction": (concrete_function.ConcreteFunction, "__call__"),
        "execution": (concrete_function.ConcreteFunction, "_call_flat"),
        "traced": (function_cache.FunctionCache, "add"),
        "gradient": (backprop.GradientTape, "gradient"),
        "session": (session.Session, "run"),
        "profiler": (profiler_v2, "start"),
    }
    return {what: getattr(owner, name) for what, (owner, name) in kinds.items()}


def test_calls_are_told_of_until_the_hooks_are_removed_and_tensorflow_is_as_it_was() -> None:
    import tensorflow as tf

    before, finders, told = wrapped(), list(sys.meta_path), Told()
    placed = hooks.Hooks(told)
    placed.install()
    assert hooks.are_installed()
    assert all(wrapped()[what] is not before[what] for what in before)
    double = tf.function(lambda x: 2 * x)
    assert double(tf.constant(3)).numpy() == 6
    assert told.of[:1] == ["function"]
    assert told.of.index("traced") < told.of.index("execution")
    placed.remove()
    assert not hooks.are_installed()
    assert wrapped() == before
    assert sys.meta_path == finders
    told.of.clear()
    assert double(tf.constant(4)).numpy() == 8
    assert told.of == []


def test_datasets_are_told_of_as_they_are_iterated_over_in_whatever_way() -> None:
    import tensorflow as tf

    told, placed = Told(), None
    numbers = tf.data.Dataset.range(3)

    @tf.function
    def summed(dataset: Any) -> Any:
        total = tf.constant(0, tf.int64)
        for number in dataset:
            total += number
        return total

    def first_of(sets: Any) -> Any:
        return tf.function(lambda sets: summed(sets[0][1]["data"]))(sets)

    placed = hooks.Hooks(told)
    placed.install()
    try:
        in_whatever_way = (
            lambda: list(numbers),
            lambda: next(iter(numbers)),
            lambda: summed(numbers),
            lambda: summed(dataset=numbers),
            lambda: first_of([("training", {"data": numbers})]),
        )
        for iterate in in_whatever_way:
            told.of.clear()
            iterate()
            assert "iterates" in told.of
    finally:
        placed.remove()


def test_a_dataset_within_a_function_is_known_by_what_the_program_made_of_it() -> None:
    import tensorflow as tf

    from graphlens.tf.watch.datasets import IteratedDatasets, outside_of_functions

    numbers = tf.data.Dataset.range(3)
    seen: list[Any] = []

    @tf.function
    def looks() -> Any:
        seen.append(outside_of_functions(numbers.batch(2)))
        return tf.constant(0)

    looks()
    assert seen[0] is numbers
    iterated = IteratedDatasets()
    iterated.note(numbers)
    iterated.note(numbers)
    iterated.note(tf.data.Dataset.range(5))  # nobody keeps it
    assert [one.stages[0].kind for one in iterated.pipelines()[0]] == ["RangeDataset"]


def test_datasets_are_kept_while_they_are_recorded_unless_they_hold_much(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from graphlens.tf.watch import datasets

    monkeypatch.setattr(datasets, "MOST_KEPT_BYTES", 4096)
    iterated = datasets.IteratedDatasets()
    small, large = tf.data.Dataset.range(3), tf.data.Dataset.from_tensor_slices(tf.zeros(2000))
    for dataset in (small, large):
        iterated.note(dataset)
    iterated.keep()
    del small, large, dataset
    assert [one.stages[0].kind for one in iterated.pipelines()[0]] == ["RangeDataset"]
    iterated.let_go()
    assert iterated.pipelines() == ((), ())


def test_what_is_noted_of_datasets_does_not_grow_with_the_epochs() -> None:
    import tensorflow as tf

    from graphlens.tf.watch import datasets, script

    iterated, late = datasets.IteratedDatasets(), script.Late(Path(), "train.py", 30)
    for _ in range(50):
        dataset = tf.data.Dataset.range(3)
        iterated.note(dataset)
        late.iterates(dataset)
    assert len(iterated._seen) == len(late._iterated) == 1


def test_a_wrapper_that_somebody_else_has_wrapped_since_is_left_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorflow.python.eager import backprop

    placed = hooks.Hooks(Told())
    placed.install()
    own = backprop.GradientTape.gradient

    def theirs(*arguments: Any, **options: Any) -> Any:
        return own(*arguments, **options)

    monkeypatch.setattr(backprop.GradientTape, "gradient", theirs)
    placed.remove()
    assert backprop.GradientTape.gradient is theirs
    monkeypatch.undo()
    backprop.GradientTape.gradient = own.__wrapped__


def test_a_function_that_is_recorded_twice_is_one_program_that_keeps_the_graph_that_ran(tmp_path: Path) -> None:
    """TensorFlow hands out what it made of a function when it is instantiated, which is once."""
    import tensorflow as tf

    from graphlens.tf import private
    from graphlens.tf.watch import programs

    capture = CaptureDirectory(tmp_path, CapturedTarget("s.py", "script"))
    private.start_collecting_graphs()
    try:
        concrete = tf.function(lambda x: tf.nn.relu(x) + 1.0).get_concrete_function(tf.TensorSpec((2,)))
        concrete(tf.ones((2,)))
        collected = private.collected_graphs()
    finally:
        private.stop_collecting_graphs()
    for _ in range(2):
        programs.write(capture, [concrete], collected)
    (program,) = capture.manifest.programs
    assert program.executed == (f"programs/{program.id}/executed/0.pb",)
