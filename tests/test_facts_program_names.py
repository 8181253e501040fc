"""What a program is called in reports is what ``--program`` takes."""

from __future__ import annotations

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.programs.judged_program import named
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.rows.program_rows import ids_of, program_rows
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import OpEvent, Profile, Run, Span

NAMES = (
    "__inference_multi_step_on_iterator_95",
    "__inference_multi_step_on_iterator_958",  # the number of the first is a part of this one
    "__inference_predict_step_7",
    "__backward_predict_step_9",
    "Iterator::Root::Map",
)
PROGRAMS = [ProgramRuns(name, "step", (0,), (), 1, (), 1, 0.1) for name in NAMES]


def test_programs_are_called_as_in_python_with_their_number_where_names_are_shared() -> None:
    assert tuple(ids_of(PROGRAMS).values()) == (
        "multi_step_on_iterator_95",
        "multi_step_on_iterator_958",
        "predict_step_7",
        "__backward_predict_step_9",
        "Iterator::Root::Map",
    )
    assert ids_of(PROGRAMS[1:3]) == {NAMES[1]: "multi_step_on_iterator", NAMES[2]: "predict_step"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_name_that_is_shown_chooses_its_program(program: ProgramRuns) -> None:
    assert named(PROGRAMS, ids_of(PROGRAMS)[program.name]) is program
    assert named(PROGRAMS, program.name) is program


def test_a_name_that_several_have_chooses_none() -> None:
    assert named(PROGRAMS, "multi_step_on_iterator") is None
    assert named(PROGRAMS, "Map") is PROGRAMS[4]


def test_where_no_function_was_called_no_program_has_the_step_of_the_analysis() -> None:
    runs = tuple(Run("Iterator::Root::Map", start_ns, start_ns + 10, 0) for start_ns in (0, 100, 200))
    ops = tuple(OpEvent("Mul", "Mul", run.start_ns, run.end_ns, 10, 0, position) for position, run in enumerate(runs))
    for marks, step_ns in (((Span("epoch", 0, 210, 0, 1),), 210), ((), None)):
        facts = Facts(Evidence(Target("p", "xplane"), profile=Profile(runs=runs, ops=ops, steps=marks)))
        (row,) = facts(program_rows)
        assert (facts(step_time).median_ns if facts(step_time) else None) == step_ns
        assert row.step is not None
        assert row.step.median_ns == 10
