"""What is counted of a script's calls and what a trace costs, by calls whose times are made up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from graphlens.ir.script import ANOTHER_CONTEXT, Script
from graphlens.tf.watch.calls import Call, CallLog, Made

MS = 1_000_000


@dataclass(frozen=True)
class Shape:
    """A type of a tensor that holds so many rows."""

    rows: int
    dtype: Any = field(default_factory=lambda: SimpleNamespace(name="float32"))

    @property
    def shape(self) -> Any:
        return SimpleNamespace(rank=1, as_list=lambda: [self.rows])


class Literal:
    """A type of a Python value, as TensorFlow calls it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


class Function:
    """Looks like a ``tf.function`` of rows and a rate, whose clock is ours."""

    def __init__(self, log: CallLog) -> None:
        self._function_cache: OrderedDict[Any, Any] = OrderedDict()
        self._log, self._called = log, log.of_function(self)

    def call(self, ns: int, rows: int = 1, rate: float = 0.1, *, by_another: bool = False) -> bool:
        """Make a call, and trace for what there is no trace yet; ``by_another`` thread, which tells of it itself."""
        made = [] if (rows, rate) in self._function_cache else [self.trace(rows, rate)]
        concrete = self._function_cache[rows, rate]
        return self._log.ended(self._called, self, Call(concrete, [] if by_another else made, 0, ns))

    def trace(self, rows: int, rate: float) -> Made:
        types = {"x": Shape(rows), "rate": Literal(rate)}
        parameters = {name: SimpleNamespace(type_constraint=kind) for name, kind in types.items()}
        kind = SimpleNamespace(parameters=parameters)
        graph = SimpleNamespace(_weak_variables=[])
        concrete = SimpleNamespace(name=f"__inference_f_{rows}_{rate}", function_type=kind, graph=graph)
        self._function_cache[rows, rate] = concrete
        return Made(self._function_cache, len(self._function_cache), concrete)


def lost_ms(script: Script) -> list[float | None]:
    return [None if one.lost_ns is None else one.lost_ns / MS for one in script.traces if one.kind == "retrace"]


@pytest.fixture(name="log")
def new_log() -> CallLog:
    return CallLog()


def test_a_retrace_costs_its_call_less_the_median_call_without_one(log: CallLog) -> None:
    function = Function(log)
    for epoch in range(4):
        function.call(30 * MS, rate=epoch)
        for ns in (2 * MS, 2 * MS, 90 * MS):  # one of them waited for a processor
            function.call(ns, rate=epoch)
    script = log.script(0, 0)
    assert lost_ms(script) == [28.0, 28.0, 28.0]
    assert (script.functions[0].calls, script.functions[0].traces) == (16, 4)


def test_a_usual_call_is_one_with_tensors_of_the_same_shapes_where_such_are_known(log: CallLog) -> None:
    function = Function(log)
    for rate in (0.1, 0.2):
        for rows, ms in ((1, 1), (1000, 40)):
            function.call((ms + 25) * MS, rows, rate)
            for _ in range(9 if rows == 1 else 3):
                function.call(ms * MS, rows, rate)
    assert lost_ms(log.script(0, 0)) == [25.0, 25.0, 25.0]


def test_calls_that_were_recorded_are_no_usual_ones(log: CallLog) -> None:
    function = Function(log)
    function.call(30 * MS)
    for ms in (2, 2, 2, 9, 9, 9, 9, 9):
        if ms == 9:
            log.recording_changes()
        function.call(ms * MS)
        if ms == 9:
            log.recording_changes()
    function.call(32 * MS, rate=0.2)
    assert lost_ms(log.script(0, 0)) == [30.0]


def test_a_function_that_is_traced_in_every_call_has_no_usual_one(log: CallLog) -> None:
    function = Function(log)
    for rate in range(4):
        function.call(30 * MS, rate=rate)
    assert lost_ms(log.script(0, 0)) == [None, None, None]


def test_a_call_that_waited_for_another_threads_trace_has_made_none(log: CallLog) -> None:
    function = Function(log)
    assert function.call(30 * MS)
    assert not function.call(29 * MS, rate=0.2, by_another=True)
    assert len(log.script(0, 0).traces) == 1


def test_the_traces_of_functions_that_it_calls_are_none_of_a_function(log: CallLog) -> None:
    outer, inner = Function(log), Function(log)
    outer.call(30 * MS)
    made = inner.trace(1, 0.5)
    assert not log.ended(outer._called, outer, Call(None, [made], 0, 30 * MS))


def test_a_trace_is_compared_with_that_which_is_nearest(log: CallLog) -> None:
    function = Function(log)
    for rows, rate in ((32, 0.1), (5, 0.1), (32, 0.2), (5, 0.2), (64, 0.2)):
        function.call(30 * MS, rows, rate)
    changed = [trace.changed for trace in log.script(0, 0).traces[1:]]
    value, shape = "rate: the Python value 0.1 became 0.2", "x: the shape ({},) became ({},)"
    assert changed == [(shape.format(32, 5),), (value,), (value,), (shape.format(5, 64),)]


def test_of_a_trace_for_the_same_arguments_it_is_said_that_the_context_was_another(log: CallLog) -> None:
    function = Function(log)
    function.call(30 * MS)
    again = function.trace(1, 0.1)._replace(number=2)
    log.ended(function._called, function, Call(None, [again], 0, 30 * MS))
    assert log.script(0, 0).traces[1].changed == (ANOTHER_CONTEXT,)
