"""The period: all of the time from the start of one step to that of the next, each instant once, by what went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.input.waits import step_waits
from graphlens.facts.time import around
from graphlens.facts.time.period import period
from graphlens.facts.time.unrecorded import FEWEST_PERIODS, Rest
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.iterators import InputRequest
from graphlens.ir.ops import LOOP_OVER_DATASET
from graphlens.ir.run import (
    EAGER_LOOP,
    SESSION,
    STEP_MARKER,
    Activity,
    KernelEvent,
    LedgerRow,
    Mark,
    OpEvent,
    Profile,
    Run,
    Span,
    Window,
)
from graphlens.ir.script import Script, ScriptFunction
from graphlens.ir.training import Period

PYTHON, COMPUTE, TF_DATA = 1, 7, 9
STEP, OTHER = "__inference_step_12", "__inference_metric_3"


def op(start_ns: int, end_ns: int, run: int, thread: int = COMPUTE) -> OpEvent:
    return OpEvent("gradient_tape/a", "MatMul", start_ns, end_ns, end_ns - start_ns, thread, run)


def process(start_ns: int, end_ns: int, run: int) -> Span:
    return Span("ExecutorState::Process", start_ns, end_ns, COMPUTE, run=run)


def called(at_ns: int, run: int, *, traced: bool = False, program: str = STEP) -> dict[str, Any]:
    """A call of 60 ns: 20 to its first executor, 30 of which 25 in an op, and 10 until it returns."""
    return {
        "runs": (Run(program, at_ns, at_ns + 60, PYTHON, traced=traced),),
        "ops": (op(at_ns + 22, at_ns + 47, run),),
        "executors": (process(at_ns + 20, at_ns + 50, run),),
    }


def recorded(*parts: dict[str, Any]) -> Profile:
    joined: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        for name, events in part.items():
            joined[name] = (*joined.get(name, ()), *events)
    return Profile(**joined)


def steps(count: int, every_ns: int = 100, **more: tuple[Any, ...]) -> Profile:
    return recorded(*(called(number * every_ns, number) for number in range(count)), more)


def period_of(profile: Profile) -> Period | None:
    facts = Facts(Evidence(Target("t", "script"), profile=profile))
    found = facts(period)
    assert not facts.errors
    if found is not None:
        assert sum(row.ns for row in found.rows) == found.ns
    return found


def rows(profile: Profile) -> dict[str, int]:
    found = period_of(profile)
    assert found is not None
    return {row.category: row.ns for row in found.rows}


ALONE = {around.OPS: 25, around.EXECUTOR: 5, around.DISPATCH: 30, around.PYTHON: 40}


def test_a_step_is_its_ops_its_executors_its_call_and_the_python_until_the_next() -> None:
    found = period_of(steps(3))
    assert found == Period(
        100,
        2,
        (
            LedgerRow(around.OPS, 25, "op"),
            LedgerRow(around.PYTHON, 40, "overhead"),
            LedgerRow(around.DISPATCH, 30, "overhead"),
            LedgerRow(around.EXECUTOR, 5, "overhead"),
        ),
        executor_ns=30,
        profiled_ns=100,
    )


@pytest.mark.parametrize(
    ("function", "ns", "n"),
    [
        (ScriptFunction("step", "step", concretes=(STEP,), period_ns=50, periods=200), 50, 200),
        (ScriptFunction("step", "step", concretes=(STEP,), period_ns=50, periods=FEWEST_PERIODS - 1), 100, 2),
        (ScriptFunction("step", "step", concretes=(OTHER,), period_ns=50, periods=200), 100, 2),
    ],
)
def test_a_step_is_as_long_as_it_was_without_the_profiler_where_the_script_shows_it(
    function: ScriptFunction, ns: int, n: int
) -> None:
    evidence = Evidence(Target("t", "script"), profile=steps(3), script=Script(functions=(function,)))
    found = Facts(evidence)(period)
    assert found is not None
    assert (found.ns, found.n, found.profiled_ns) == (ns, n, 100)
    assert sum(row.ns for row in found.rows) == ns
    assert found.executor_ns == ns * 30 // 100


def test_between_two_executors_of_a_call_nothing_is_known_to_go_on() -> None:
    profile = steps(3, executors=(process(55, 58, 0), process(155, 158, 1)))
    assert rows(profile) == ALONE | {around.DISPATCH: 22, around.EXECUTOR: 8, around.HANDOFF: 5}


def test_an_element_that_is_awaited_is_input_and_no_dispatch_while_no_op_runs() -> None:
    """The request is answered on another thread; where the step's ops run meanwhile, it costs nothing."""
    waits = tuple(Activity("input", "element", at + 10, at + 40, TF_DATA, run) for run, at in enumerate((0, 100, 200)))
    assert rows(steps(3, activities=waits)) == ALONE | {around.INPUT: 10, around.DISPATCH: 20}


def test_an_element_that_python_asks_for_between_steps_is_input_as_well() -> None:
    """A ``for`` loop over a dataset: an eager op, within which the iterator is asked."""
    eager = tuple(Activity("eager", "IteratorGetNext", at + 70, at + 95, PYTHON) for at in (0, 100, 200))
    waits = tuple(Activity("input", "element", at + 75, at + 95, PYTHON) for at in (0, 100, 200))
    assert rows(steps(3, activities=eager + waits)) == ALONE | {around.INPUT: 20, around.EAGER: 5, around.PYTHON: 15}


def asking_in_python(calls_ns: tuple[int, ...], **waits: tuple[Any, ...]) -> dict[str, int]:
    """The rows of steps that Python hands an element for which it waits 30 ns, and that take 90 ns in all if alone."""
    function = ScriptFunction(
        "step", "step", concretes=(STEP,), period_ns=90, periods=200, unrecorded_ns={STEP: calls_ns}
    )
    evidence = Evidence(Target("t", "script"), profile=steps(3, **waits), script=Script(functions=(function,)))
    found = Facts(evidence)(period)
    assert found is not None
    return {row.category: row.ns for row in found.rows}


def test_where_python_waits_the_wait_is_what_calls_leave_of_the_period_while_nothing_is_recorded() -> None:
    """Recorded, a call takes 60 ns of 100; alone 40 of 90. Python's own 10 ns between steps are as long."""
    waits = tuple(Activity("input", "element", at + 60, at + 90, PYTHON) for at in (0, 100, 200))
    assert asking_in_python((40,) * FEWEST_PERIODS, activities=waits)[around.INPUT] == 90 - 40 - 10
    assert asking_in_python((40,) * (FEWEST_PERIODS - 1), activities=waits)[around.INPUT] == 30 * 90 // 100


def test_a_wait_within_another_threads_call_leaves_calls_that_tell_nothing() -> None:
    """The element is awaited while the call is made: less than the call is left of the step."""
    waits = tuple(Activity("input", "element", at + 2, at + 95, PYTHON) for at in (0, 100, 200))
    found = asking_in_python((1,) * FEWEST_PERIODS, activities=waits)
    assert sum(found.values()) == 90
    assert all(ns > 0 for ns in found.values())


@pytest.mark.parametrize(
    ("share", "larger", "is_measured", "found", "told"),
    [
        (0.5, 1.0, False, 0.5, 0.5),
        (0.5, 1.2, False, 0.4, 0.4),
        (0.2, 1.5, False, 0.0, 0.1),  # a notable wait that the model has none of is told as little
        (0.05, 1.5, False, 0.05, 0.05),
        (0.2, 1.5, True, 0.0, 0.0),
        (0.5, 0.8, True, 0.6, 0.6),
        (0.02, 0.9, True, 0.04, 0.04),  # 0.118 is what two lengths leave that are off by more than that
    ],
)
def test_a_wait_while_nothing_is_recorded_is_measured_or_a_model(
    share: float, larger: float, is_measured: bool, found: float, told: float
) -> None:
    rest = Rest(larger, is_measured=is_measured)
    assert rest.wait(share) == pytest.approx(found)
    assert rest.told(share) == pytest.approx(told)


def test_where_calls_wait_themselves_they_do_not_tell_how_long() -> None:
    waits = tuple(Activity("input", "element", at + 60, at + 90, PYTHON) for at in (0, 100, 200))
    within = tuple(InputRequest(at + 10, at + 12, TF_DATA, run) for run, at in enumerate((0, 100, 200)))
    found = asking_in_python((40,) * FEWEST_PERIODS, activities=waits, requests=within)
    assert found[around.INPUT] == round(32 * 90 / 100)


def test_what_a_thread_of_the_pipeline_asks_for_ahead_is_no_wait() -> None:
    ahead = tuple(Activity("input", "element", at, at + 100, TF_DATA) for at in (0, 100, 200))
    assert rows(steps(3, activities=ahead)) == ALONE


def test_tracing_and_compiling_in_every_step_are_rows_of_their_own() -> None:
    profile = recorded(*(called(100 * number, number, traced=True) for number in range(4)))
    assert rows(profile) == ALONE | {around.TRACING: 20, around.DISPATCH: 10}
    compiled = tuple(Activity("compile", "XlaCompile", at + 20, at + 48, COMPUTE) for at in (0, 100, 200))
    profile = recorded(*(called(100 * number, number, traced=True) for number in range(4)), {"activities": compiled})
    assert rows(profile)[around.COMPILING] == 28


def test_the_first_trace_is_in_no_typical_period() -> None:
    profile = recorded(
        {"runs": (Run(STEP, 0, 5000, PYTHON, traced=True),), "ops": (op(4000, 4900, 0),)},
        *(called(5000 + 100 * number, number + 1) for number in range(5)),
    )
    found = period_of(profile)
    assert found is not None
    assert (found.ns, found.n) == (100, 4)
    assert rows(profile) == ALONE


def test_another_function_that_is_called_between_steps_is_said() -> None:
    between = tuple(Run(OTHER, at + 60, at + 75, PYTHON) for at in (0, 100, 200))
    assert rows(steps(3, runs=between)) == ALONE | {around.OTHERS: 15, around.PYTHON: 25}


def test_feeds_and_fetches_are_what_session_run_takes_beyond_its_event() -> None:
    runs = tuple(Run(SESSION, at, at + 10, PYTHON) for at in (0, 100, 200))
    marks = tuple(Mark("session", at - 60, at + 20, PYTHON) for at in (0, 100, 200))
    assert rows(
        Profile(runs=runs, ops=tuple(op(run.start_ns, run.end_ns, n) for n, run in enumerate(runs)), marks=marks)
    ) == {
        around.OPS: 10,
        around.FEEDING: 70,
        around.PYTHON: 20,
    }


def test_what_waits_for_a_result_is_reading_and_no_python() -> None:
    reads = tuple(Mark("read", at + 65, at + 90, PYTHON, "float(loss)", "train.py:3") for at in (0, 100, 200))
    assert rows(steps(3, marks=reads)) == ALONE | {around.READING: 25, around.PYTHON: 15}


def loop_of_four(at_ns: int, end_ns: int | None = None) -> Run:
    """A call of four steps in 60 ns: 20 until the first of them, and 10 each."""
    windows = tuple(Window(at_ns + 20 + 10 * step, at_ns + 30 + 10 * step) for step in range(4))
    return Run(STEP, at_ns, end_ns or at_ns + 60, PYTHON, elements=4, iterations=windows)


def test_a_call_of_several_steps_is_divided_by_them() -> None:
    runs = tuple(loop_of_four(at) for at in range(0, 500, 100))
    profile = Profile(runs=runs, ops=tuple(op(at + 20, at + 60, n) for n, at in enumerate(range(0, 500, 100))))
    found = period_of(profile)
    assert found is not None
    assert (found.ns, found.n) == (25, 12)
    assert rows(profile) == {around.OPS: 10, around.DISPATCH: 5, around.PYTHON: 10}


def test_the_iterations_of_a_single_call_are_the_periods() -> None:
    run = Run(STEP, 0, 500, PYTHON, elements=5, iterations=tuple(Window(100 * n, 100 * n + 100) for n in range(5)))
    profile = Profile(runs=(run,), ops=tuple(op(100 * n, 100 * n + 70, 0) for n in range(5)))
    found = period_of(profile)
    assert found is not None
    assert (found.ns, found.n, found.executor_ns) == (100, 4, 70)


def test_what_a_loop_does_once_is_not_what_its_steps_do() -> None:
    """It has its first element after 20 ns of each call, and returns 40 ns after its last step."""
    runs = tuple(loop_of_four(at, at + 100) for at in range(0, 600, 120))
    ops = tuple(op(run.start_ns + 20, run.start_ns + 60, n) for n, run in enumerate(runs))
    requests = tuple(InputRequest(run.start_ns + 12, run.start_ns + 20, TF_DATA, n) for n, run in enumerate(runs))
    executors = tuple(process(run.start_ns + 4, run.end_ns, n) for n, run in enumerate(runs))
    found = rows(Profile(runs=runs, ops=ops, requests=requests, executors=executors, activities=within_tf_data(runs)))
    assert found == {around.OPS: 10, around.STARTING: 4, around.ENDING: 10, around.DISPATCH: 1, around.PYTHON: 5}


def within_tf_data(runs: Sequence[Run]) -> tuple[Activity, ...]:
    """The loops of runs that tf.data makes, each with an iterator of its own."""
    return tuple(
        Activity("input", LOOP_OVER_DATASET, run.start_ns, run.end_ns, PYTHON, position)
        for position, run in enumerate(runs)
    )


def waited(profile: Profile) -> tuple[set[int], int]:
    """How long the calls of a profile waited, and a step of them by the rows of the period."""
    facts = Facts(Evidence(Target("t", "script"), profile=profile))
    whole = facts(period)
    assert whole is not None
    return {wait.wait_ns for wait in facts(step_waits)}, sum(
        row.ns for row in whole.rows if row.category == around.INPUT
    )


def test_the_first_element_of_a_loop_is_waited_for_at_its_start_and_by_none_of_its_steps() -> None:
    """It takes 16 ns, a later one 6."""
    runs = tuple(loop_of_four(at) for at in range(0, 600, 120))
    first = tuple(InputRequest(run.start_ns + 4, run.start_ns + 20, TF_DATA, n) for n, run in enumerate(runs))
    later = tuple(InputRequest(run.start_ns + 30, run.start_ns + 36, TF_DATA, n) for n, run in enumerate(runs))
    loops = Profile(runs=runs, requests=first + later, activities=within_tf_data(runs))
    assert waited(loops) == ({6}, round(6 / 4))
    assert waited(replace(loops, activities=())) == ({22}, round(22 / 4)), (
        "they go on with an iterator that they are given"
    )


def test_of_a_handful_of_loops_one_whose_end_came_late_is_not_the_usual_one() -> None:
    """It takes 60 ns, and twice 300: a mean would be of no call there was."""
    ends_ns = [0, 60, 120, 180, 480, 780, 840]
    runs = tuple(loop_of_four(at, until) for at, until in pairwise(ends_ns))
    found = period_of(Profile(runs=runs))
    assert found is not None
    assert found.ns == 60 // 4


def looped(alike_ns: tuple[int, ...], *lengths: int) -> Period:
    """The period of a loop of which calls of so many steps were recorded, a step in 100 ns and none of it outside."""
    runs, at = [], 0
    for length in lengths:
        windows = tuple(Window(at + 100 * n, at + 100 * n + 100) for n in range(length))
        runs.append(Run(STEP, at, at + 100 * length, PYTHON, elements=length, iterations=windows))
        at += 100 * length
    ops = tuple(op(run.start_ns, run.start_ns + 70, n) for n, run in enumerate(runs))
    function = ScriptFunction("step", "step", concretes=(STEP,), alike_ns={STEP: alike_ns})
    evidence = Evidence(
        Target("t", "script"), profile=Profile(runs=tuple(runs), ops=ops), script=Script(functions=(function,))
    )
    found = Facts(evidence)(period)
    assert found is not None
    return found


def test_of_a_loop_the_period_is_that_of_calls_over_the_same_data_that_were_not_recorded() -> None:
    assert (looped((400, 300), 5).ns, looped((400, 300), 5).n) == (60, 10)


def test_what_the_program_does_between_calls_of_loops_is_a_part_of_the_step_while_nothing_is_recorded_too() -> None:
    """Five steps of 100 ns a call and 250 ns until the next one; a call takes 300 ns while nothing is recorded."""
    runs = tuple(
        Run(
            STEP,
            at_ns,
            at_ns + 500,
            PYTHON,
            iterations=tuple((at_ns + n * 100, at_ns + n * 100 + 100) for n in range(5)),
        )
        for at_ns in range(0, 6 * 750, 750)
    )
    function = ScriptFunction("step", "step", concretes=(STEP,), alike_ns={STEP: (300, 320)})
    evidence = Evidence(Target("t", "script"), profile=Profile(runs=runs), script=Script(functions=(function,)))
    found = Facts(evidence)(period)
    assert found is not None
    assert (found.ns, found.profiled_ns) == ((300 + 250) // 5, 750 // 5)


def test_of_a_single_loop_the_rest_of_the_call_is_not_between_calls() -> None:
    """Two steps in one recorded call of 200 ns, which takes 60 while nothing is recorded."""
    assert looped((60,), 2).ns == 30


def test_a_call_of_several_steps_is_no_step_where_few_calls_were_recorded() -> None:
    run = Run(STEP, 0, 500, PYTHON, elements=5, iterations=tuple(Window(100 * n, 100 * n + 100) for n in range(5)))
    function = ScriptFunction("step", "step", concretes=(STEP,), period_ns=400, periods=200)
    evidence = Evidence(Target("t", "script"), profile=Profile(runs=(run,)), script=Script(functions=(function,)))
    found = Facts(evidence)(period)
    assert found is not None
    assert (found.ns, found.n) == (80, 1000)


@pytest.mark.parametrize(
    ("alike_ns", "lengths"), [((), (5,)), ((300,), (5, 4)), ((501,), (5,))], ids=["none", "of two lengths", "slower"]
)
def test_of_a_loop_whose_calls_do_not_tell_it_the_period_is_the_recorded_one(
    alike_ns: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    assert looped(alike_ns, *lengths).ns == 100


@pytest.mark.parametrize(("plain_ns", "ns", "n"), [((80,) * 20, 80, 20), ((80,) * (FEWEST_PERIODS - 1), 100, 2)])
def test_a_step_of_an_eager_loop_is_as_long_as_it_was_without_the_profiler(
    plain_ns: tuple[int, ...], ns: int, n: int
) -> None:
    profile = steps(3)
    profile = replace(profile, runs=tuple(run._replace(program=EAGER_LOOP) for run in profile.runs))
    found = Facts(Evidence(Target("t", "script"), profile=profile, unprofiled_ns=plain_ns))(period)
    assert found is not None
    assert (found.ns, found.n, found.profiled_ns) == (ns, n, 100)


def test_a_call_that_only_found_the_end_of_the_data_begins_no_step() -> None:
    profile = recorded(
        *(called(100 * number, number) for number in range(3)),
        {"runs": (Run(STEP, 300, 310, PYTHON, elements=0),)},
        *(called(400 + 100 * number, number + 4) for number in range(3)),
    )
    found = period_of(profile)
    assert found is not None
    assert (found.ns, found.n) == (100, 4), "of five stretches the first is left out"


def test_of_accumulating_steps_none_is_lost() -> None:
    """Every fourth step runs the optimizer as well: the rows are those of all four, and not of the median step."""
    runs, ops = [], []
    for number in range(9):
        at = 100 * number
        runs.append(Run(STEP, at, at + 100, PYTHON))
        ops.append(op(at, at + 10, number))
        if number % 4 == 3:
            ops += [OpEvent(f"adam/{name}", "Mul", at + 20, at + 80, 60, COMPUTE, number) for name in "abcd"]
    assert rows(Profile(runs=tuple(runs), ops=tuple(ops)))[around.OPS] == (4 * 10 + 60) / 4


@pytest.mark.parametrize("profile", [None, Profile(), steps(1), steps(3, steps=(Span(STEP_MARKER, 0, 60, PYTHON),))])
def test_where_no_program_of_the_user_was_called_again_there_is_no_period(profile: Profile | None) -> None:
    assert Facts(Evidence(Target("t", "script"), profile=profile))(period) is None


def test_compiled_instructions_are_ops() -> None:
    kernels = tuple(
        KernelEvent("fusion", "fusion.1", "m", at + 22, at + 47, COMPUTE, n) for n, at in enumerate((0, 100, 200))
    )
    profile = steps(3)
    assert rows(recorded({"runs": profile.runs, "executors": tuple(profile.executors), "kernels": kernels})) == ALONE


def test_of_a_loop_within_tf_data_only_its_requests_are_waiting_where_they_were_recorded() -> None:
    """Between two of its bodies 30 ns pass, of which it asks for an element for 10."""
    between = tuple(Activity("input", LOOP_OVER_DATASET, at + 70, at + 100, PYTHON, 0) for at in range(0, 500, 100))
    asked = tuple(InputRequest(at + 85, at + 95, PYTHON, 0) for at in range(0, 500, 100))
    run = Run(STEP, 0, 500, PYTHON, elements=5, iterations=tuple(Window(100 * n, 100 * n + 100) for n in range(5)))
    ops = tuple(op(100 * n, 100 * n + 70, 0) for n in range(5))
    unseen = Profile(runs=(run,), ops=ops, activities=between)
    assert rows(unseen)[around.INPUT] == 30
    assert rows(replace(unseen, requests=asked))[around.INPUT] == 10
