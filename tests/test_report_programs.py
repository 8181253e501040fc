"""Several programs, steps of several kinds, and measurements that cannot be: as every report says it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graphlens.ir.analysis import Document
from graphlens.ir.measured import ProgramRow, StepKind, StepTime
from graphlens.pipeline.result import Analysis
from graphlens.report.html import render as render_page
from graphlens.report.terminal import render
from graphlens.report.view import view_of
from graphlens.report.view_programs import SHOWN
from graphlens.report.view_steps import KINDS_LIMIT
from tests.sample_document import RICH, STATIC
from tests.sample_programs import ALARM, BY_TURNS, IN_A_LOOP, PROGRAMS, SEVERAL, TRAIN
from tests.test_report_html import Page


def page_of(document: Document) -> Page:
    return Page(render_page(document))


def sections(page: Page) -> list[str]:
    return [attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes]


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# -- which programs ran -------------------------------------------------------------------------------------------


def test_the_summary_lists_the_programs_and_says_which_is_judged_and_how_to_choose() -> None:
    text = render(SEVERAL)
    assert "Programs: 7 ran; train_946 is judged" in text
    assert re.search(r"train_946 +step +16 21\.0 ms +39 %", text)
    assert re.search(r"train_988 +evaluation +8 6\.90 ms +25 %", text)
    assert "--program NAME judges another one" in text
    assert "program train_946 (step)" in text


def test_functions_of_datasets_are_folded_to_a_few() -> None:
    text = render(SEVERAL)
    assert text.count("dataset  ") == 2
    assert "and 2 more dataset functions; --program" in text
    assert re.search(r"initialize +initialization +1 7\.80 ms +1\.0 %", text)


def test_many_programs_are_folded_and_counted() -> None:
    many = tuple(replace(PROGRAMS[1], id=f"f_{number}") for number in range(100))
    shown = view_of(replace(SEVERAL, programs=(PROGRAMS[0], *many))).programs
    assert shown is not None
    assert (len(shown.shown), shown.more) == (SHOWN, "95 more programs")
    assert shown.note == "and 35 more programs, listed in the JSON report"
    mixed = view_of(replace(SEVERAL, programs=(PROGRAMS[0], *PROGRAMS[2:5], *many[:5]))).programs
    assert mixed is not None
    assert mixed.more == "3 more programs, 1 of them a dataset function"


def test_time_of_what_was_traced_or_compiled_is_told_apart() -> None:
    said = "train_988: 1 call of 177 ms that traced or compiled it, told apart"
    assert said in flat(render(SEVERAL))
    assert "told apart: 1 call of 177 ms that traced or compiled it" in page_of(SEVERAL).words


def test_the_page_has_a_section_of_programs_with_all_of_them() -> None:
    page = page_of(SEVERAL)
    assert sections(page)[:3] == ["findings", "programs", "time"]
    for row in PROGRAMS:
        assert row.id in page.words
    assert "7 ran; train_946 is judged" in page.words
    assert "2 more dataset functions" in page.words


def test_the_headline_and_the_step_name_the_judged_program() -> None:
    view = view_of(SEVERAL)
    assert view.tiles[0].label == "Step of train_946"
    assert ("program", "train_946 (step)") in view.about
    assert "the median step of train_946" in page_of(SEVERAL).words


def test_an_analysis_of_one_program_speaks_of_no_programs() -> None:
    one = replace(RICH, programs=(ProgramRow("f", "__inference_f_1", "step", 30, 30, RICH.step, 0.97),))
    assert render(one) == render(RICH)
    assert page_of(one).words == page_of(RICH).words


@pytest.mark.parametrize("kind", ["service", "xplane"])
def test_the_only_program_of_a_recording_is_named_as_nothing_else_says_what_ran(kind: str) -> None:
    recorded = replace(RICH, target=replace(RICH.target, kind=kind), programs=(replace(PROGRAMS[0], step=RICH.step),))
    assert f"program {PROGRAMS[0].id}" in render(recorded)
    assert "--program NAME" not in render(recorded)


def test_where_no_program_is_judged_none_is_named() -> None:
    """All that ran was called op by op; the functions of the dataset are no step of the user's."""
    none = replace(SEVERAL, step=RICH.step, programs=PROGRAMS[2:4])
    assert "Programs: 2 ran; none of them is judged" in render(none)
    assert "--program NAME judges one of them" in render(none)
    assert view_of(none).tiles[0].label == "Step time"
    assert "none of them is judged" in page_of(none).words


def test_programs_of_which_only_graphs_are_recorded_have_no_times() -> None:
    graphs_only = tuple(ProgramRow(name, name, "step", graphs=STATIC.graphs) for name in ("f", "g"))
    text = render(replace(STATIC, programs=graphs_only))
    assert "Programs: 2 are recorded; f is judged" in text
    assert re.search(r"g +step +unknown +unknown +unknown", text)


# -- how often, and of how many kinds --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period_ns", "words"),
    [
        (23_100_000, "called every 23.1 ms"),
        (21_500_000, ""),  # within the spread of the step
        (20_000_000, ""),  # a step that the user marked holds several calls
        (None, ""),
    ],
)
def test_how_often_it_is_called_is_said_where_that_differs_from_the_step(period_ns: int | None, words: str) -> None:
    assert view_of(replace(RICH, step=replace(TRAIN, period_ns=period_ns))).rhythm == words


def test_the_period_of_a_call_that_holds_several_steps_says_how_many() -> None:
    assert view_of(IN_A_LOOP).rhythm == "4 steps a call, called every 109 ms"
    assert re.search(r"fit +step +4 +16 21\.0 ms +91 %", render(IN_A_LOOP))
    assert "step · 16 steps" in page_of(IN_A_LOOP).words


def test_steps_of_several_kinds_are_said_in_a_sentence_and_a_table() -> None:
    said = "12 of 16 steps take 24.0 ms, 4 take 43.0 ms; 29.0 ms on average over a cycle of 4"
    assert said in flat(render(BY_TURNS))
    page = page_of(BY_TURNS)
    assert f"{said}." in page.words
    assert "12 of 1624.0 ms62 ops" in page.words  # cells of a row
    assert "4 of 1643.0 ms236 ops" in page.words


def test_kinds_without_an_order_and_rare_ones_are_said() -> None:
    kinds = tuple(StepKind(16 - number, 10_000_000, 5) for number in range(15))
    step = StepTime(10_000_000, 9_000_000, 11_000_000, 100, mean_ns=12_000_000, kinds=kinds)
    shown = view_of(replace(RICH, step=step)).kinds
    assert shown is not None
    assert shown.words == (
        "16 of 135 profiled steps take 10.0 ms, 15 take 10.0 ms, 14 take 10.0 ms, 90 are of 12 more kinds; "
        "12.0 ms on average in no fixed order"
    )
    assert (len(shown.rows), shown.note) == (KINDS_LIMIT, "and 3 more kinds, listed in the JSON report")


def test_steps_that_are_all_alike_have_no_kinds() -> None:
    assert view_of(RICH).kinds is None
    assert "several kinds" not in page_of(RICH).words


def test_the_spread_is_said_to_be_without_the_profiler_only_where_it_is() -> None:
    assert "of the step without profiler, over its median" in page_of(RICH).words
    profiled = replace(RICH, quality=replace(RICH.quality, profiler_overhead=None))
    assert "of the step, over its median" in page_of(profiled).words


# -- measurements that cannot be -------------------------------------------------------------------------------------

NUMBERS_OF_THE_STEP = r"\d (ns|us|ms) (of|–)|\d %"


def test_an_alarm_is_the_first_thing_on_the_page() -> None:
    page = page_of(ALARM)
    (alarm,) = [index for index, (_, attributes) in enumerate(page.tags) if attributes.get("role") == "alert"]
    (heading,) = [index for index, (tag, _) in enumerate(page.tags) if tag == "h1"]
    assert alarm < heading
    assert "This measurement contradicts itselfops ran for 5.72 s on 2 threads" in page.words
    assert "The model was not measured" not in page.words


def test_an_alarm_is_the_first_thing_in_the_summary_and_is_said_once() -> None:
    text = flat(render(ALARM))
    assert text.count("ops ran for 5.72 s") == 1
    assert text.index("ALARM ops ran for 5.72 s") < text.index("Step not shown the measurement contradicts itself")
    assert "Quality Contradicts itself (grade: none)" in text
    assert "no step was executed" not in text


def test_no_number_that_rests_on_the_step_follows_an_alarm() -> None:
    for words in (flat(render(ALARM)), page_of(ALARM).words):
        assert words.count("so no time is shown") == 1
        after = words.partition("so no time is shown")[2]
        assert not re.search(NUMBERS_OF_THE_STEP, after)
    assert sections(page_of(ALARM)) == ["findings", "ops", "rules"]
    assert "the measurement contradicts itself, so savings are unknown" in page_of(ALARM).words


def test_a_notebook_shows_the_same_page() -> None:
    frame = Analysis(SEVERAL)._repr_html_()
    assert "Step of train_" in frame
    assert "contradicts itself" in Analysis(ALARM)._repr_html_()
