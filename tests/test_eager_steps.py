"""A step of an eager loop lasts from one call for gradients to the next in the same place; its ops are its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphlens.ir.eager import GRADIENT, Asked
from graphlens.ir.run import Mark, OpEvent, Run, Span
from graphlens.loaders.eager_ops import eager_ops
from graphlens.loaders.eager_steps import steps_of
from graphlens.tf.watch.stack import Place, user_place

MS = 1_000_000


def marks(sites: Sequence[int], thread: int = 1) -> list[Mark]:
    """Calls for gradients in some places, one each millisecond."""
    return [
        Mark(GRADIENT, at * MS, at * MS + 5, thread, Asked(site, "loop", "step").text())
        for at, site in enumerate(sites)
    ]


def begun_ms(sites: Sequence[int], runs: Sequence[Run] = ()) -> list[int]:
    return [begin.start_ns // MS for begin, _ in steps_of(marks(sites), runs)]


@pytest.mark.parametrize(
    ("sites", "steps"),
    [
        ([0, 0, 0, 0], [0, 1, 2]),
        ([0, 1, 0, 1, 0, 1], [0, 2]),
        ([0, 0, 0, 0, 0, 1] * 3, [5, 11]),
        ([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ([0], []),
        ([], []),
    ],
    ids=["one place", "two by turns", "a critic five times", "a check now and then", "a single call", "none"],
)
def test_a_step_is_one_round(sites: list[int], steps: list[int]) -> None:
    assert begun_ms(sites) == steps


def test_steps_of_two_threads_are_told_apart() -> None:
    both = [*marks([0, 0, 0]), *marks([1, 1], thread=2)]
    assert [begin.thread for begin, _ in steps_of(both, ())] == [1, 1, 2]


def test_gradients_between_functions_that_take_most_of_the_time_make_no_loop() -> None:
    functions = [Run("__inference_step_5", at * MS, at * MS + 6 * MS // 10, 1) for at in range(4)]
    assert begun_ms([0, 0, 0, 0], functions) == []
    short = [run._replace(end_ns=run.start_ns + 4 * MS // 10) for run in functions]
    assert begun_ms([0, 0, 0, 0], short) == [0, 1, 2]
    elsewhere = [run._replace(thread=2) for run in functions]
    assert begun_ms([0, 0, 0, 0], elsewhere) == [0, 1, 2]


def ops(calls: list[Span], kernels: list[Span], functions: Sequence[Span] = ()) -> list[OpEvent]:
    return list(eager_ops(calls, kernels, [(7, Run("eager loop", 0, 100, 1))], functions))


def span(name: str, start: int, end: int, thread: int = 1) -> Span:
    return Span(name, start, end, thread)


def test_an_op_takes_the_time_of_its_kernel() -> None:
    found = ops([span("MatMul", 10, 30), span("Mul", 40, 50)], [span("", 15, 28), span("", 41, 49)])
    assert found == [
        OpEvent("MatMul", "MatMul", 15, 28, 13, 1, 7),
        OpEvent("Mul", "Mul", 41, 49, 8, 1, 7),
    ]


def test_what_an_op_calls_is_not_its_own_time() -> None:
    found = ops([span("EagerPyFunc", 0, 60), span("Mul", 20, 40)], [span("", 5, 55), span("", 25, 35)])
    assert [(op.op, op.self_ns) for op in found] == [("Mul", 10), ("EagerPyFunc", 40)]


def test_a_function_is_no_op_but_what_it_calls_op_by_op_is() -> None:
    calls = [span("__inference_f_3", 1, 50), span("Relu", 60, 70)]
    found = ops(calls, [span("", 2, 49), span("", 61, 69)], [span("__inference_f_3", 0, 51)])
    assert [op.op for op in found] == ["Relu"]


def test_what_ran_outside_of_the_steps_or_on_another_thread_is_in_none() -> None:
    calls = [span("Mul", 120, 130), span("Mul", 10, 20, thread=2)]
    assert ops(calls, [span("", 121, 129), span("", 11, 19, thread=2)]) == []


def test_the_function_of_a_step_is_that_which_made_the_tape_and_not_one_that_it_was_handed_to() -> None:
    def update(tape: object) -> Place | None:
        return user_place(tape)

    def train_step() -> Place | None:
        return update(object())

    place = train_step()
    assert place is not None
    assert place.function.endswith(".<locals>.train_step")
    assert int(place.source.rpartition(":")[2]) == update.__code__.co_firstlineno + 1
