"""The view model: formatting of evidence, links between findings and ops, and what is left out with a note."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from graphlens.facts.core import Facts
from graphlens.ir.analysis import Saving
from graphlens.report import view_ops
from graphlens.report.evidence import cells_of
from graphlens.report.html import render
from graphlens.report.view import view_of
from graphlens.rules import find, judge
from graphlens.testing import cases_in as cases_in_file
from graphlens.testing.sketch import sketch
from graphlens.units import format_ns
from tests import sample_document

RICH = sample_document.RICH


def shown(key, value):
    ((label, cell),) = cells_of({key: value})
    return label, cell


@pytest.mark.parametrize(
    ("key", "value", "label", "text"),
    [
        ("measured_self_ns", 2_310_000, "measured self time", "2.31 ms"),
        ("ns", 12, "time", "12 ns"),
        ("mean_ns", 1500.4, "mean", "1.50 us"),
        ("moved_bytes", 1_572_864, "moved", "1.50 MiB"),
        ("bytes_per_step", 73_858, "bytes per step", "72.1 KiB"),
        ("extra_flops", 2_000_000, "extra FLOPs", "2.00 MFLOP"),
        ("bytes_moved", 24_000_032, "bytes moved", "22.9 MiB"),
        ("ns_per_step", 1_200_000, "time per step", "1.20 ms"),
        ("roof_flops_per_s", 131_084_241_137.0, "roof operation rate", "131 GFLOP/s"),
        ("link_bytes_per_s", 41_100_000_000, "link transfer rate", "41.1 GB/s"),
        ("_FusedMatMul", 12, "_FusedMatMul", "12"),
        ("function", "", "function", "none"),
        ("share_of_step", 0.098, "share of step", "9.8 %"),
        ("hit_rate", 0.5, "hit rate", "50 %"),
        ("flop_rate", 3e9, "flop rate", "3,000,000,000"),
        ("count", 12345, "count", "12,345"),
        ("epsilon", 0.001, "epsilon", "0.001"),
        ("folded", False, "folded", "no"),
        ("operands", None, "operands", "unknown"),
        ("self_ns", None, "self time", "unknown"),
        ("nothing", (), "nothing", "none"),
        ("why", "two reasons", "why", "two reasons"),
        ("runs_ns", (1000, 2000), "runs", "1.00 us, 2.00 us"),
    ],
)
def test_evidence_is_written_with_the_unit_of_its_key(key, value, label, text):
    got, cell = shown(key, value)
    assert (got, cell.kind, cell.text) == (label, "value", text)


# Words that are units, or parts of names that a program gives and a person does not.
RAW = re.compile(r"\bns\b|\bper s\b|\bflops\b|_ns\b|_per_s\b")
LARGE = re.compile(r"\d(,\d{3}){2,}|\d{7,}")


def cells_in(pairs):
    """Every label with its text, however deep."""
    for label, cell in pairs:
        yield label, cell.text
        yield from cells_in(cell.parts)
        yield from cells_in((label, inner) for inner in cell.cells)
        yield from cells_in(pair for row in cell.rows for pair in zip(cell.headers, row, strict=True))


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "rules").glob("*.md")), ids=lambda path: path.stem)
def test_no_rule_shows_a_raw_unit(path):
    for case in cases_in_file(path.read_text("utf-8")):
        for finding in judge(Facts(sketch(case.sketch)), [find(path.stem)])[0]:
            for label, text in cells_in(cells_of(finding.evidence)):
                assert not RAW.search(label), label
                assert not LARGE.search(re.sub(r"\[[\d,?]*\]", "", text)) or "elements" in label, (label, text)
            for text in (finding.title, finding.reason, finding.fix.summary):
                assert not LARGE.search(re.sub(r"\[[\d,?]*\]", "", text)), text
                assert not re.search(r"\b0 FLOP\b", text), text


def test_a_unit_of_the_outer_key_holds_inside():
    _, cell = shown("step_ns", {"median": 1000, "share": 0.5})
    assert [(label, part.text) for label, part in cell.parts] == [("median", "1.00 us"), ("share", "50 %")]


def test_lists_of_records_become_a_table_with_unknown_cells():
    _, cell = shown("layers", ({"layer": "a", "self_ns": 5}, {"layer": "b", "self_ns": None}))
    assert cell.headers == ("layer", "self time")
    assert [[part.text for part in row] for row in cell.rows] == [["a", "5 ns"], ["b", "unknown"]]


def test_long_lists_are_cut_with_a_note():
    _, cell = shown("ops", tuple(map(str, range(500))))
    assert (len(cell.items), cell.total, cell.note) == (200, 500, "and 300 more, listed in the JSON report")


def test_anchors_count_the_findings_of_one_rule():
    twice = replace(RICH, findings=(sample_document.HIGH, sample_document.LOW, sample_document.HIGH))
    assert [finding.anchor for finding in view_of(twice).findings] == [
        "finding-GL203-1",
        "finding-GL212-1",
        "finding-GL203-2",
    ]


def test_overlaps_link_to_the_finding_of_that_rank():
    first, _, third, _ = view_of(RICH).findings
    assert first.overlaps[0].anchor == third.anchor
    assert third.overlaps[0].anchor == first.anchor
    titled = replace(
        RICH,
        findings=(replace(sample_document.HIGH, shares_ops_with=(sample_document.LOW.title,)), sample_document.LOW),
    )
    assert view_of(titled).findings[0].overlaps[0].anchor == "finding-GL212-1"
    strange = replace(RICH, findings=(replace(sample_document.HIGH, shares_ops_with=("GL999#7",)),))
    assert view_of(strange).findings[0].overlaps[0].anchor is None


def test_ops_of_a_finding_link_to_their_rows_and_back():
    view = view_of(RICH)
    op = view.findings[0].ops[0]
    (row,) = [row for row in view.ops.rows if row.anchor == op.anchor]
    assert (row.name, op.time) == (sample_document.BATCH_NORM_OPS[0], "151 us")
    assert ("GL203", "finding-GL203-1") in row.findings


def test_numbers_of_which_nothing_is_known_are_listed_and_take_no_room():
    view = view_of(replace(RICH, quality=replace(RICH.quality, join_rate=None, coverage=None)))
    assert view.quality.unknown == "joined op time, coverage"
    assert "unknown" not in [number.value for number in view.quality.numbers]


def test_a_single_step_has_no_spread():
    assert view_of(replace(RICH, step=replace(RICH.step, n=1))).step_detail == "1 step, measured"


def test_a_saving_of_nothing_is_said_in_words():
    refuted = replace(sample_document.LOW, saving=Saving(0, 0.0, "measured"))
    (finding,) = view_of(replace(RICH, findings=(refuted,))).findings
    assert (finding.saving.time, finding.saving.share) == ("nothing", "")


def test_the_ledger_bars_cover_the_step_without_gaps():
    rows = view_of(RICH).ledger.rows
    for before, after in pairwise(rows):
        assert after.start == pytest.approx(before.start + before.width, abs=0.02)
    assert rows[-1].start + rows[-1].width == pytest.approx(1000, abs=0.02)


def test_an_op_that_was_not_seen_reads_so_in_every_measured_column():
    table = view_of(RICH).ops
    (row,) = [row for row in table.rows if row.op == "PrintV2"]
    cells = {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}
    assert cells["self_ns"].text == cells["calls_per_step"].text == "not seen"
    assert cells["flops"].text == "unknown"
    assert all(cell.value is None for cell in row.cells)


def test_a_static_analysis_shows_no_measured_columns_and_no_step():
    view = view_of(sample_document.STATIC)
    assert [column.key for column in view.ops.columns] == ["flops"]
    assert (view.measured, view.step, view.ledger, view.path_view) == (False, "not measured", None, None)


def test_rows_beyond_the_limit_are_counted(monkeypatch):
    monkeypatch.setattr(view_ops, "ROW_LIMIT", 17)
    table = view_of(RICH).ops
    assert len(table.rows) == 17
    assert "first 17 of 19 ops" in table.note
    assert "43.0 us of self time together (1 op of them not seen)" in table.note


def test_ops_of_which_no_time_is_known_are_by_name_and_those_not_shown_have_no_time_either(monkeypatch):
    monkeypatch.setattr(view_ops, "ROW_LIMIT", 1)
    static = sample_document.STATIC
    assert view_of(static).ops.note == f"The first 1 of {len(static.ops)} ops are shown; the JSON report lists all."
    page, timed = render(static), render(RICH)
    assert (
        page.count('aria-sort="descending"'),
        page.count("ops of the judged graph, by name. There are no times"),
    ) == (0, 1)
    assert timed.count('aria-sort="descending"') == 1
    assert "ops of the judged graph, by falling self time." in timed


def test_an_op_has_one_time_on_the_page_and_which_steps_it_is_of_is_said():
    """Ops are timed with the profiler on, in other steps than the one that is shown: no time is moved from one to the
    other, and the critical path is a part of the step that is shown.
    """
    ops = tuple(replace(RICH.ops[0], name=name, layer=name, self_ns=ns) for name, ns in (("a", 30_000), ("b", 10_000)))
    path = replace(RICH.critical_path, ns=20_000, ops=("a", "b"))
    shown = view_of(replace(RICH, ops=ops, critical_path=path)).path_view
    assert [(segment.time, segment.share) for segment in shown.segments] == [("30.0 us", "75 %"), ("10.0 us", "25 %")]
    assert (shown.time, shown.profiled) == ("20.0 us", "40.0 us")
    base = (
        "Ops are timed with the profiler on: their times are parts of steps of "
        f"{format_ns(RICH.step.profiled_ns)}, not of the {format_ns(RICH.step.median_ns)} without it."
    )
    whole = view_of(replace(RICH, ops=ops, critical_path=path))
    assert shown.base == whole.ops.base == base
    assert [row.cells[0].text for row in whole.ops.rows] == ["30.0 us", "10.0 us"]
    page = re.sub(r"\s+", " ", render(replace(RICH, ops=ops, critical_path=path)))
    assert page.count(base) == 3, "at the findings, the path and the ops"
    assert "20.0 us of the step, in 2 ops" in page
    assert "So are those of the stops, 40.0 us together." in page


def test_where_ops_and_step_were_timed_together_nothing_is_said_of_it():
    alike = replace(RICH.step, profiled_median_ns=RICH.step.median_ns)
    shown = view_of(replace(RICH, step=alike))
    assert (shown.ops.base, shown.path_view.base, shown.path_view.profiled) == ("", "", "")
    assert "their times are parts of steps" not in render(replace(RICH, step=alike))


def test_the_strip_merges_slivers_but_the_list_keeps_them():
    names = tuple(f"layer{index}/op" for index in range(10))
    ops = tuple(
        replace(RICH.ops[0], name=name, layer=name, self_ns=10 if i else 10_000) for i, name in enumerate(names)
    )
    path = view_of(replace(RICH, ops=ops, critical_path=replace(RICH.critical_path, ops=names))).path_view
    assert [segment.label for segment in path.strip] == ["layer0/op", "9 short runs"]
    assert len(path.segments) == 10


def test_what_was_fed_names_first_what_decides_how_much_work_a_step_is():
    inputs = view_of(sample_document.RICH).inputs
    assert inputs is not None
    assert inputs.summary == "4 inputs, 2 made up, 1 given, 1 example"
    assert inputs.line == (
        "length int32 = 1 (made up); image float32[1,224,224,3] (224 x 224 guessed); mask bool[1,50] (given); "
        "and 1 more"
    )
    alike = replace(sample_document.RICH, inputs=sample_document.RICH.inputs[2:3] * 2)
    both = view_of(alike).inputs
    assert both is not None
    assert both.line == "length int32 = 1; length int32 = 1 (all made up)"
    assert inputs.warning == "length decides how often the loop while runs"
    assert [row.range for row in inputs.rows] == ["0.00021 to 0.99997", "1", "1", ""]
    assert [row.origin for row in inputs.rows] == ["made up", "given", "made up", "example"]


def test_the_page_shows_what_was_fed_and_nothing_where_that_is_not_known():
    page = render(sample_document.RICH)
    assert "What the model was fed" in page
    assert "how often the loop while runs" in page
    assert "What the model was fed" not in render(sample_document.STATIC)
