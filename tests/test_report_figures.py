"""Figures: what a drawing says, that hostile names stay text, and that no layout can hold up a report."""

import sys
from dataclasses import replace
from itertools import pairwise
from time import monotonic
from xml.etree import ElementTree

import pytest

from graphlens.ir.analysis import Figure, FigureNode
from graphlens.report import figures
from graphlens.report.figures import Skipped, draw, draw_all
from graphlens.report.ink import Ink
from tests import sample_document

FIGURE = sample_document.BATCH_NORM_FIGURE
needs_bundled_dot = pytest.mark.skipif(figures._bundled_dot() is None, reason="graphviz-pure is not installed")


def drawn(figure, **options):
    svg = draw(figure, **options)
    assert isinstance(svg, str), svg
    return ElementTree.fromstring(svg)


def texts(svg):
    return [element.text for element in svg.iter("text")]


def nodes(svg):
    """Return the drawn nodes by their full name."""
    groups = [group for group in svg.iter("g") if group.get("class", "").startswith("node")]
    return {group.findtext("title"): group for group in groups}


@pytest.fixture
def slow_dot(tmp_path, monkeypatch):
    """A Graphviz that never finishes."""
    script = tmp_path / "dot"
    script.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    script.chmod(0o755)
    monkeypatch.setenv(figures.DOT_VARIABLE, str(script))


@needs_bundled_dot
def test_each_op_says_type_name_time_output_and_device():
    svg = drawn(FIGURE)
    group = nodes(svg)[sample_document.BATCH_NORM_OPS[0]]
    assert [line.text for line in group.iter("text")] == [
        "Mul",
        "block_1_expand_BN/batchnorm/mul_1",
        "151 us",
        "float32[1,112,112,96]",
        "CPU:0",
    ]


@needs_bundled_dot
def test_an_op_that_was_not_seen_never_reads_as_zero():
    svg = drawn(FIGURE)
    unseen = nodes(svg)[f"{sample_document.ROOT}/Print"]
    assert "not seen" in [line.text for line in unseen.iter("text")]
    assert "unseen" in unseen.get("class").split()
    assert "0 ns" not in texts(svg)


@needs_bundled_dot
def test_without_any_time_the_labels_do_not_repeat_it():
    untimed = replace(FIGURE, nodes=tuple(replace(node, self_ns=None) for node in FIGURE.nodes))
    assert "not seen" not in texts(drawn(untimed))


@needs_bundled_dot
def test_the_device_is_left_out_when_there_is_only_one():
    one_device = replace(FIGURE, nodes=tuple(replace(node, device=sample_document.CPU) for node in FIGURE.nodes))
    assert "CPU:0" in texts(drawn(FIGURE))
    assert "CPU:0" not in texts(drawn(one_device))


@needs_bundled_dot
def test_subjects_differ_from_neighbours_by_shape():
    by_name = nodes(drawn(FIGURE))
    for node in FIGURE.nodes:
        outline = "polygon" if node.role == "subject" else "path"
        assert by_name[node.name].find(outline) is not None
        assert node.role in by_name[node.name].get("class").split()


@needs_bundled_dot
def test_edges_carry_their_kind():
    classes = sorted(group.get("class") for group in drawn(FIGURE).iter("g") if "edge" in group.get("class"))
    assert classes == ["edge control", "edge data", "edge data", "edge data", "edge transfer"]


@needs_bundled_dot
@pytest.mark.parametrize("known", [("_Send", "_Recv"), ("MatMul", "Relu")])
def test_a_transfer_carries_its_size_also_between_send_and_receive(known):
    names = ("MatMul", "_Send", "_Recv", "Relu")
    edges = tuple((a, b, "transfer" if a == "_Send" else "data") for a, b in pairwise(names))
    figure = Figure("executed", tuple(FigureNode(name, name, "context", 1) for name in names), edges)
    sized = draw(figure, ink=Ink(sizes={known: "4.59 MiB"}))
    assert isinstance(sized, str)
    assert sized.count("4.59 MiB") == 1


@needs_bundled_dot
def test_ops_of_several_devices_are_told_apart_by_class_and_label():
    by_name = nodes(drawn(FIGURE, ink=Ink({"CPU:0": 0, "CPU:1": 1})))
    other = by_name[f"{sample_document.ROOT}/block_1_relu/Relu6"]
    assert "dev1" in other.get("class").split()
    assert other.findall("text")[-1].text == "CPU:1"
    one_device = replace(FIGURE, nodes=tuple(replace(node, device=sample_document.CPU) for node in FIGURE.nodes))
    assert " dev" not in draw(one_device, ink=Ink({"CPU:0": 0}))


@needs_bundled_dot
def test_the_drawing_follows_the_page():
    """No colour, size or style of its own, and identifiers that differ from figure to figure."""
    svg = draw(FIGURE, prefix="fig7")
    for forbidden in ("style=", "fill=", "stroke=", "<script", "<!DOCTYPE", "<?xml", "xlink", "xmlns"):
        assert forbidden not in svg
    identifiers = [element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")]
    assert identifiers
    assert all(identifier.startswith("fig7-") for identifier in identifiers)
    assert len(set(identifiers)) == len(identifiers)


@needs_bundled_dot
def test_hostile_names_are_labels_and_nothing_else():
    figure = sample_document.hostile().findings[0].figure
    svg = drawn(figure)
    assert len(nodes(svg)) == len(figure.nodes)
    assert {element.tag for element in svg.iter()} <= {"svg", "g", "title", "text", "path", "polygon"}
    assert all(text.isascii() and text.isprintable() for text in texts(svg))
    assert any("<b>html label</b>" in text for text in texts(svg))


@needs_bundled_dot
def test_a_long_chain_is_turned_so_that_it_fits_the_page():
    names = [f"layer_with_a_long_name_{index}" for index in range(20)]
    chain = Figure(
        "executed",
        tuple(FigureNode(name, "Op", "context", 1) for name in names),
        tuple((a, b, "data") for a, b in pairwise(names)),
    )
    assert float(drawn(chain).get("width")) <= figures.WIDTH_LIMIT


@needs_bundled_dot
def test_equal_figures_give_equal_drawings():
    assert draw(FIGURE) == draw(FIGURE)


def test_a_figure_that_nobody_can_read_is_not_drawn():
    many = Figure("executed", tuple(FigureNode(f"n{i}", "Op", "context") for i in range(301)), ())
    assert "301 ops" in draw(many).reason
    assert "no ops" in draw(Figure("executed", (), ())).reason


def test_without_graphviz_the_reason_says_what_to_do(monkeypatch):
    monkeypatch.delenv(figures.DOT_VARIABLE, raising=False)
    monkeypatch.setattr(figures, "_bundled_dot", lambda: None)
    monkeypatch.setenv("PATH", "")
    assert "reinstall graphviz-pure" in draw(FIGURE).reason


def test_a_graphviz_that_cannot_start_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv(figures.DOT_VARIABLE, str(tmp_path / "missing"))
    assert draw(FIGURE) == Skipped("figure skipped: Graphviz (missing) failed with FileNotFoundError")


def test_a_graphviz_that_hangs_is_ended(slow_dot):
    started = monotonic()
    assert "did not finish within" in draw(FIGURE, time_limit_s=0.5).reason
    assert monotonic() - started < 5


def test_all_figures_together_keep_a_budget(slow_dot):
    started = monotonic()
    outcome = draw_all([FIGURE] * 12 + [None], budget_s=1.0)
    assert monotonic() - started < 8
    assert outcome[-1] is None
    assert all(isinstance(figure, Skipped) for figure in outcome[:-1])
    assert "used up" in outcome[-2].reason
