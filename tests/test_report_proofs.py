"""What a page says of each verdict: both ratios with interval and noise, the outputs, and commands that can be run."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from graphlens.report import html, terminal
from graphlens.report.ratio_plot import ratio_axis, ratio_bar, scale_of
from graphlens.report.view import view_of
from graphlens.report.view_proofs import proof_view
from tests import sample_proofs
from tests.sample_proofs import COMMAND, VERDICTS
from tests.test_report_html import Page


@pytest.fixture(scope="module")
def page():
    return Page(html.render(sample_proofs.ALL))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_says_why(page, verdict):
    shown = proof_view(VERDICTS[verdict])
    assert f"{shown.words} {shown.why}" in page.words


@pytest.mark.parametrize(
    "fact",
    [
        "Wall time24.3 ms16.2 ms1.60×1.53× – 1.79×0.96× – 1.06×",
        "CPU time25.5 ms16.5 ms1.63×1.57× – 1.67×0.98× – 1.05×",
        "5.713e-07 relative, 2.98e-07 absolute in output_0, before its last squashing op", "1e-05 relative (float32)",
        "38 % measured, 31 % modelled before", "60, before and after by turns; all of the proof took 14 s", "516 ms",
        "Proven 1.60×", "Refuted 0.08×",
        "none in logits", "none (int32)",
        "Wall time12.0 ms11.5 ms1.04×0.97× – 1.11×unknown",
        "0.31 relative, 4.2 absolute in logits",
    ],
)  # fmt: skip
def test_numbers_stand_beside_what_they_are_compared_with(page, fact):
    assert fact in page.words


def test_a_command_is_quoted_as_the_shell_wants_it_and_can_be_copied_as_a_whole(page):
    assert f"Measure againCopy{COMMAND}" in page.words
    assert "ApplyCopygraphlens fix 'my models/net' --signature predict --select GL203 -o improved" in page.words


@pytest.mark.parametrize("verdict", sorted(VERDICTS.keys() - {"proven", "changes-numbers"}))
def test_only_a_proven_fix_is_offered_for_writing(verdict):
    assert proof_view(VERDICTS[verdict]).apply is None


def test_a_fix_that_changes_numbers_is_offered_with_the_tolerance_that_it_takes(page):
    """Ratio and difference stand side by side, and the reader decides."""
    assert "Faster, changes numbers 1.62×" in page.words
    assert "0.00091 relative, 0.0027 absolute in logits" in page.words
    assert "1e-12 relative (float64); unchanged and with 1 thread for an op it differs by 3e-14" in page.words
    line = "graphlens fix 'my models/net' --signature predict --select GL203 --rtol 0.001 -o improved"
    assert f"Apply, if that difference is acceptableCopy{line}" in page.words
    again = replace(VERDICTS["changes-numbers"], command=f"{COMMAND} --rtol 1e-05")
    assert proof_view(again).apply == line


def test_a_fix_that_is_no_use_looks_like_no_defect_of_the_model(page):
    """Red is for what is wrong with a model: a rewrite that does not fit says nothing about it."""
    css = (Path(html.__file__).parent / "assets" / "app.css").read_text()
    told = [rule for rule in css.split("}") if any(f".verdict-{verdict}" in rule for verdict in VERDICTS)]
    assert told
    assert not [rule for rule in told if "--high" in rule or "#" in rule.partition("{")[2]]
    assert "Fix not usable" in page.words
    assert "Failed" not in page.words


def test_a_fix_without_numbers_has_no_table(page):
    assert proof_view(VERDICTS["failed"]).ratios == ()
    assert sum(tag == "table" and attributes.get("class") == "ratios" for tag, attributes in page.tags) == 4


def test_before_and_after_stand_side_by_side(page):
    labels = [attributes.get("aria-label", "") for _, attributes in page.tags]
    assert sum("the ops after the fix" in label for label in labels) == len(VERDICTS)


def test_the_headline_is_the_speed_up_of_all_proven_fixes():
    alone, together = (view_of(document) for document in (sample_proofs.ALL, sample_proofs.TOGETHER))
    assert [(t.value, t.detail) for t in alone.tiles if t.tone == "proven"] == [
        ("1.60×", "measured with 1 fix applied, 1.53× – 1.79×")
    ]
    assert alone.joint is None  # the finding itself says it all
    assert together.joint.factor == "1.90×"
    assert "1.90×" in {t.value for t in together.tiles}
    assert "All proven fixes together" in Page(html.render(sample_proofs.TOGETHER)).words


def test_what_was_not_proven_is_no_headline():
    doubtful = replace(sample_proofs.ALL, joint_proof=VERDICTS["inconclusive"])
    assert "proven" not in [tile.tone for tile in view_of(doubtful).tiles]


def test_the_terminal_prints_the_command_on_one_line():
    text = terminal.render(sample_proofs.TOGETHER)
    assert "graphlens fix 'my models/net' --signature predict --select GL203 -o improved" in text.splitlines()[-1]


# -- drawings ------------------------------------------------------------------------------------------------


def test_equal_factors_are_equal_distances():
    scale = scale_of([0.5, 2.0])
    assert scale.x(1) - scale.x(0.5) == pytest.approx(scale.x(2) - scale.x(1))


@pytest.mark.parametrize("ratios", [[], [1.0], [0.08, 0.07], [1.6, 1.79], [900.0], [float("inf"), 0.0, -1.0]])
def test_no_change_is_always_on_the_scale(ratios):
    assert "1×" in [tick.text for tick in ElementTree.fromstring(ratio_axis(scale_of(ratios)))]


def test_the_interval_lies_over_the_noise_on_one_scale():
    scale = scale_of([0.9, 1.79])
    bar = ElementTree.fromstring(ratio_bar(scale, 1.6, (1.53, 1.79), (0.9, 1.1)))
    parts = {part.attrib["class"]: part.attrib for part in bar}
    noise, interval = (
        (float(parts[name]["x"]), float(parts[name]["x"]) + float(parts[name]["width"]))
        for name in ("noise", "interval")
    )
    assert noise[0] < float(parts["one"]["x1"]) < noise[1] < interval[0] < float(parts["point"]["cx"]) < interval[1]
