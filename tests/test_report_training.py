"""A script that trains, as every report says it: programs, period, phases and layers, a step's timeline, and traces."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graphlens.ir.analysis import Document
from graphlens.ir.document import from_json, to_json
from graphlens.ir.measured import ProgramRow, ProgramTrace
from graphlens.ir.run import LedgerRow
from graphlens.ir.training import LayerRow, Period, PhaseRow, Timeline, TimelineLane, TimelineSpan, Training
from graphlens.pipeline.result import Analysis
from graphlens.report.html import render as render_page
from graphlens.report.terminal import render
from graphlens.report.view import view_of
from graphlens.report.view_period import period_view
from graphlens.report.view_timeline import SPANS_DRAWN, timeline_view
from graphlens.report.view_traces import ROWS_LIMIT, ROWS_SHOWN, TracesView, traces_view
from graphlens.report.view_training import NO_LAYER, TrainingView, layer_words, training_view
from graphlens.units import format_ns
from tests.sample_document import HOSTILE_NAMES, RICH
from tests.sample_training import HOSTILE, LAYERS, OP_NS, PERIOD, PROGRAMS, TIMELINE, TRACES, TRAINED, TRAINING
from tests.test_report_html import Page


def page_of(document: Document) -> Page:
    return Page(render_page(document))


def sections(page: Page) -> list[str]:
    return [attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes]


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def layers_of(training: Training) -> TrainingView:
    view = training_view(replace(TRAINED, training=training))
    assert view is not None
    return view


def traces_of(*traces: ProgramTrace) -> TracesView:
    view = traces_view(replace(TRAINED, programs=(replace(PROGRAMS[0], traces=traces),)))
    assert view is not None
    return view


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_training_view_stands_after_the_findings_and_before_the_ops() -> None:
    shown = sections(page_of(TRAINED))
    assert shown[:7] == ["findings", "programs", "period", "time", "layers", "timeline", "traces"]
    assert shown.index("traces") < shown.index("ops")


def test_a_page_without_a_training_step_has_none_of_its_sections() -> None:
    assert not {"period", "layers", "timeline", "traces"} & set(sections(page_of(RICH)))
    assert "From one step to the next" not in render(RICH)


def test_every_link_arrives_and_every_identifier_is_unique() -> None:
    page = page_of(TRAINED)
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"} <= set(identifiers)


def test_hostile_names_of_a_training_step_are_text() -> None:
    page = page_of(HOSTILE)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in page_of(TRAINED).tags} | {
        tag for tag, _ in page_of(RICH).tags
    }
    assert len(page.raw["script"]) == 3
    assert not [name for _, attributes in page.tags for name in attributes if name == "style" or name.startswith("on")]
    assert "\x1b" not in render(HOSTILE)
    assert len(HOSTILE_NAMES) > 10


def test_a_notebook_shows_the_training_view_in_a_frame_of_its_own() -> None:
    frame = Analysis(TRAINED)._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts allow-downloads" srcdoc="')
    assert 'height="800"' in frame
    assert "&lt;section id=&#34;layers&#34;" in frame or "&lt;section id=&quot;layers&quot;" in frame


def test_what_was_read_from_json_gives_the_same_page() -> None:
    assert render_page(from_json(to_json(TRAINED))) == render_page(TRAINED)


# -- programs ------------------------------------------------------------------------------------------------------


def test_a_program_of_a_script_has_its_calls_its_line_and_its_traces() -> None:
    page = page_of(TRAINED)
    assert "step · train.py:41 · traced 10 times, 7 retraces" in page.words
    assert "evaluation · train.py:58 · traced once" in page.words
    assert re.search(r"train_step +step +400 +30 8\.00 ms +61 %", render(TRAINED))


def test_the_only_program_of_a_script_is_shown_and_there_is_none_to_choose() -> None:
    only = replace(TRAINED, programs=PROGRAMS[:1])
    assert "1 ran; train_step is judged" in page_of(only).words
    assert "--program NAME" not in page_of(only).words
    assert "--program" not in render(only)


# -- the period ----------------------------------------------------------------------------------------------------


def test_the_period_is_divided_in_rows_that_sum_to_it_between_executor_and_the_rest() -> None:
    view = period_view(TRAINED)
    assert view is not None
    assert (view.total, view.n) == ("12.0 ms", "30 steps")
    assert [row.where for row in view.rows] == ["executor"] * 2 + ["around it"] * 3 + ["between threads"]
    assert sum(row.width for row in view.rows) == pytest.approx(100, abs=0.05)
    assert view.split.startswith("the executor is at work for 7.30 ms of it (61 %), and for 4.70 ms (39 %)")
    assert re.search(r"Python between steps +2\.40 ms +20 %", render(TRAINED))


def test_an_executor_time_that_is_not_known_or_cannot_be_is_not_said() -> None:
    for executor_ns in (None, PERIOD.ns + 1):
        view = period_view(replace(TRAINED, period=replace(PERIOD, executor_ns=executor_ns)))
        assert view is not None
        assert view.split == ""


def test_a_period_of_nothing_is_not_shown() -> None:
    assert period_view(replace(TRAINED, period=Period(0, 0, ()))) is None
    assert period_view(replace(TRAINED, period=Period(5, 2, ()))) is None


# -- phases and layers ---------------------------------------------------------------------------------------------


def test_a_layer_reads_as_its_share_by_phase() -> None:
    view = layers_of(TRAINING)
    first = view.rows[0]
    assert (first.name, first.share, first.time) == ("first", "40 %", "4.80 ms")
    assert layer_words(first, view.columns) == "25 % backward, 12 % forward, 2.5 % optimizer"
    assert re.search(r"40 % first +25 % backward, 12 % forward, 2\.5 % optimizer", render(TRAINED))


def test_layers_and_what_no_layer_has_sum_to_the_op_time() -> None:
    view = layers_of(TRAINING)
    assert [row.name for row in view.rest] == [NO_LAYER, "input", "loss", "metrics", "not known"]
    assert sum(row.ns for row in (*view.rows, *view.rest)) == OP_NS
    for at, column in enumerate(view.columns):
        of_column = sum(row.cells[at].ns for row in (*view.rows, *view.rest))
        assert format_ns(of_column) == column.time
    assert [phase.key.words for phase in view.columns] == ["forward", "backward", "optimizer"]


def test_a_phase_that_a_layer_has_no_op_in_is_a_dash_and_not_zero() -> None:
    (pool,) = [row for row in layers_of(TRAINING).rows if row.layer == "network/pool"]
    assert [cell.text for cell in pool.cells] == ["0.3 %", "0.5 %", "–"]


def test_what_of_a_layer_is_in_no_known_phase_is_said_so() -> None:
    training = Training(
        100, None, None, (PhaseRow("forward", 70, 0.7, 1), PhaseRow(None, 30, 0.3, 1)),
        (LayerRow("dense", 90, 0.9, {"forward": 70}),),
    )  # fmt: skip
    view = layers_of(training)
    assert layer_words(view.rows[0], view.columns) == "70 % forward, 20 % not known"
    assert [(row.name, row.ns) for row in view.rest] == [(NO_LAYER, 10)]
    assert view.known == ""


def test_no_bar_leaves_its_place() -> None:
    view = layers_of(TRAINING)
    for row in (*view.rows, *view.rest):
        assert sum(part.width for part in row.parts) <= 100.05
    assert max(sum(part.width for part in row.parts) for row in view.rows) == pytest.approx(100, abs=0.05)


def test_phases_without_any_layer_are_rows() -> None:
    view = layers_of(Training(100, 1.0, 1.0, (PhaseRow("forward", 60, 0.6, 1), PhaseRow("optimizer", 40, 0.4, 1))))
    assert view.columns == ()
    assert [(row.name, row.share) for row in view.rest] == [("forward", "60 %"), ("optimizer", "40 %")]


def test_layers_beyond_those_shown_are_counted_with_their_time() -> None:
    layers = tuple(LayerRow(f"layer_{number}", 1_000, 0.001, {"forward": 1_000}) for number in range(302))
    view = layers_of(Training(1_000_000, 1.0, 1.0, (PhaseRow("forward", 1_000_000, 1.0, 9),), layers))
    assert len(view.rows) == 300
    assert view.note == "and 2 more layers of 2.00 us together, listed in the JSON report"


def test_a_layer_leads_to_its_slowest_op() -> None:
    rows = {row.layer: row.anchor for row in layers_of(TRAINING).rows}
    assert [rows[layer] for layer in LAYERS] == ["op-1", "op-2", "op-3", "op-4", "", ""]


# -- the timeline --------------------------------------------------------------------------------------------------


def test_each_thread_is_a_lane_that_says_how_busy_it_was() -> None:
    view = timeline_view(TRAINED)
    assert view is not None
    assert [(lane.name, lane.busy) for lane in view.lanes][::5] == [
        ("python (MainThread)", "busy 95 %"), ("tf_data_iterator_resource/7", "busy 10 %")
    ]  # fmt: skip
    assert view.note == "41 spans too short to be seen are left out"
    assert "train_step: 9.60 ms, call" in view.lanes[0].drawing


def test_a_legend_has_what_is_drawn_and_nothing_else() -> None:
    view = timeline_view(TRAINED)
    assert view is not None
    drawn = {name for lane in view.lanes for name in re.findall(r'class="ph-(\w+)', lane.drawing)}
    assert {key.tone for key in view.legend} == drawn


def test_of_very_many_spans_the_longest_are_drawn_and_the_others_counted() -> None:
    spans = tuple(TimelineSpan(f"op_{at}", "op", 1_000 * at, 100 + at % 900) for at in range(3 * SPANS_DRAWN))
    view = timeline_view(replace(TRAINED, timeline=Timeline(4_000_000, (TimelineLane("t", spans),), 7)))
    assert view is not None
    drawn = view.lanes[0].drawing.count("<title>")
    assert drawn == SPANS_DRAWN
    assert view.note == f"{len(spans) - drawn + 7:,} spans too short to be seen are left out"


def test_many_spans_of_one_length_are_not_all_left_out() -> None:
    spans = tuple(TimelineSpan("op", "op", 1_000 * at, 500) for at in range(SPANS_DRAWN + 1))
    view = timeline_view(replace(TRAINED, timeline=Timeline(4_000_000, (TimelineLane("t", spans),))))
    assert view is not None
    assert view.lanes[0].drawing.count("<title>") == SPANS_DRAWN


def test_a_span_beyond_the_step_stays_in_the_picture() -> None:
    lane = TimelineLane("t", (TimelineSpan("late", "op", 90, 60), TimelineSpan("outside", "op", 400, 10)))
    view = timeline_view(replace(TRAINED, timeline=Timeline(100, (lane,))))
    assert view is not None
    ends = [
        float(x) + float(width) for x, width in re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', view.lanes[0].drawing)
    ]
    assert len(ends) == 2
    assert max(ends) <= 100.001


def test_a_thread_that_only_waits_is_not_busy() -> None:
    lane = TimelineLane("t", (TimelineSpan("element", "wait", 10, 60),))
    view = timeline_view(replace(TRAINED, timeline=Timeline(100, (lane,))))
    assert view is not None
    assert [(one.name, one.busy) for one in view.lanes] == [("t", "waits only")]
    assert [key.words for key in view.legend] == ["waiting"]


def test_an_empty_timeline_is_not_shown() -> None:
    assert timeline_view(replace(TRAINED, timeline=Timeline(100, ()))) is None
    assert timeline_view(replace(TRAINED, timeline=replace(TIMELINE, ns=0))) is None


# -- traces --------------------------------------------------------------------------------------------------------


def test_traces_are_told_in_order_with_what_changed_and_what_was_lost() -> None:
    view = view_of(TRAINED).traces
    assert view is not None
    assert view.summary == "11 traces of 2 functions, 7 of them retraces"
    assert view.lost == "at least 1.75 s"  # of one of them it is not known
    assert [row.call for row in view.shown] == ["1", "1", "120", "1", "190", "240", "250", "260"]
    retrace = view.shown[2]
    assert retrace.changed == ("images: float32[64,32,32,3] became float32[40,32,32,3]",)
    assert (retrace.at, retrace.time, retrace.lost) == ("4.20 s", "320 ms", "308 ms")
    assert view.shown[5].lost == "unknown"
    assert "rate: the Python value 0 became 1" in flat(render(TRAINED))


def test_a_first_trace_lost_nothing() -> None:
    view = traces_of(replace(TRACES[0], lost_ns=890_000_000))
    assert (view.summary, view.lost) == ("1 trace of 1 function, no retrace", "")
    assert view.shown[0].lost == ""


def test_what_retraces_cost_is_unknown_where_it_is() -> None:
    assert traces_of(ProgramTrace("", 5, "retrace", 3, 2)).lost == "unknown"


def test_traces_that_only_a_profile_saw_have_no_place_in_the_life_of_a_script() -> None:
    seen = replace(TRAINED, programs=(replace(PROGRAMS[0], traces=(ProgramTrace("traced", 177_000_000),)),))
    assert view_of(seen).traces is None
    assert "told apart: 1 call of 177 ms" in page_of(seen).words


def test_many_traces_are_folded_and_counted() -> None:
    many = tuple(ProgramTrace("", 10, "retrace", 100 * at, at) for at in range(150))
    view = traces_of(*many)
    assert (len(view.shown), len(view.folded)) == (ROWS_SHOWN, ROWS_LIMIT - ROWS_SHOWN)
    assert (view.later, view.note) == ("142 later traces", "and 50 more traces, listed in the JSON report")
    assert view.lanes[0].drawing.count("tr-retrace") == 2 * 150


# -- what is not known ---------------------------------------------------------------------------------------------


def test_no_share_is_above_the_whole() -> None:
    view = view_of(TRAINED)
    assert view.training is not None
    assert view.period is not None
    rows = (*view.training.rows, *view.training.rest)
    shares = [row.share for row in (*rows, *view.training.phases, *view.period.rows)]
    shares += [cell.text for row in rows for cell in row.cells if cell.ns]
    numbers = [float(share.removesuffix(" %")) for share in shares]
    assert len(numbers) > 30
    assert 0 < min(numbers) <= max(numbers) < 100


def test_a_script_of_which_little_is_known_has_a_page() -> None:
    bare = replace(
        TRAINED,
        programs=(ProgramRow("f", "f", "step", calls=3),),
        training=Training(0, None, None),
        period=Period(5, 1, (LedgerRow("ops of the step", 5),)),
        timeline=None,
    )
    assert {"layers", "timeline", "traces"} & set(sections(page_of(bare))) == set()
    assert re.search(r"f +step +3 +unknown +unknown +unknown", render(bare))
