"""The Python interface on recorded captures: load, round trip, graphs as plain networkx.  No TensorFlow is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from end_to_end import CAPTURES, write_saved_model

import graphlens
from graphlens.config import MOST_STEPS
from graphlens.errors import TargetError, UsageError

TINY = CAPTURES / "tiny_cnn.capture"
STAGES = ("traced", "optimized", "executed")
NODE = set(
    "op device self_ns calls_per_step timing shapes dtypes flops bytes origin executed_as layer source findings".split()
)
EDGE = {"kind", "src_port", "dst_port"}


def captures(*without: str) -> Any:
    names = sorted(path.stem for path in CAPTURES.glob("*.capture") if path.stem not in without)
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module")
def tiny() -> graphlens.Analysis:
    return graphlens.load(TINY)


# -- load and save ----------------------------------------------------------------------------------------------------


def test_an_analysis_reads_its_own_json_back(tiny: graphlens.Analysis, tmp_path: Path) -> None:
    tiny.save(tmp_path / "r.json")
    again = graphlens.load(tmp_path / "r.json")
    assert again.to_json() == tiny.to_json()


def test_analyze_and_load_judge_a_capture_the_same(tiny: graphlens.Analysis) -> None:
    assert graphlens.analyze(TINY).to_json() == tiny.to_json()
    assert graphlens.analyze(str(TINY)).to_json() == tiny.to_json()


def test_the_program_that_ran_can_be_named(tiny: graphlens.Analysis) -> None:
    (program,) = tiny.document.programs
    for name in (program.id, program.name, program.id[:-3]):
        assert graphlens.load(TINY, program=name).step == graphlens.analyze(TINY, program=name).step == tiny.step


def test_an_analysis_shows_itself_in_a_notebook(tiny: graphlens.Analysis) -> None:
    frame = tiny._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts allow-downloads" srcdoc=')
    assert "unfolded-batch-norm" in frame
    assert "<script" not in frame  # whatever the page holds is escaped into the attribute


def test_findings_are_filtered_by_severity(tiny: graphlens.Analysis) -> None:
    assert [finding.code for finding in tiny.findings_at_or_above("low")] == ["GL203"]
    assert tiny.findings_at_or_above("high") == ()
    assert tiny.findings_at_or_above("info") == tiny.findings


def test_rules_are_selected(tiny: graphlens.Analysis) -> None:
    assert {rule.code for rule in graphlens.analyze(TINY, select=["GL2"]).document.rules} == {
        rule.code for rule in tiny.document.rules if rule.code.startswith("GL2")
    }
    assert graphlens.analyze(TINY, ignore=["unfolded-batch-norm"]).findings_at_or_above("low") == ()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: graphlens.load("nowhere.capture"), TargetError, "does not exist"),
        (lambda: graphlens.load("nowhere.json"), TargetError, "nowhere.json"),
        (lambda: graphlens.analyze("nowhere"), TargetError, "does not exist"),
        (lambda: graphlens.analyze(TINY, steps=0), UsageError, f"from 1 to {MOST_STEPS}"),
        (lambda: graphlens.analyze(TINY, steps=MOST_STEPS + 1), UsageError, f"from 1 to {MOST_STEPS}"),
        (lambda: graphlens.analyze(TINY, select=["GL999"]), UsageError, "no rule is called 'GL999'"),
        (
            lambda: graphlens.analyze(TINY, program="nope"),
            UsageError,
            "--program nope is no program that ran; there are: ",
        ),
        (
            lambda: graphlens.load(TINY, program="nope"),
            UsageError,
            "--program nope is no program that ran; there are: ",
        ),
        (lambda: graphlens.load("r.json", program="f"), UsageError, "load its capture to judge another one"),
        (lambda: graphlens.analyze(len, program="f"), UsageError, "program is for paths only"),
        (lambda: graphlens.analyze(TINY, inputs=3), UsageError, "must be a mapping of names to arrays"),
        (lambda: graphlens.load(TINY).findings_at_or_above("severe"), UsageError, "'severe' is no severity"),
        (lambda: graphlens.load(TINY).save("report.docx"), UsageError, "end the file's name in"),
        (lambda: graphlens.load(TINY).save("no/such/report.html"), UsageError, "cannot write"),
    ],
)
def test_mistakes_are_typed_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_damaged_json_is_refused(tmp_path: Path) -> None:
    for content in ("", "[]", "{", '{"schema_version": 1}', '{"schema_version": 99}', "\x00"):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(TargetError) as raised:
            graphlens.load(tmp_path / "r.json")
        assert "\n" not in str(raised.value)


# -- graphs -----------------------------------------------------------------------------------------------------------


@captures()
def test_graphs_are_plain_acyclic_and_annotated(name: str) -> None:
    analysis = graphlens.load(CAPTURES / f"{name}.capture")
    for stage in sorted(analysis.document.graphs):
        graph = analysis.to_networkx(stage)  # type: ignore[arg-type]
        size = analysis.document.graphs[stage]
        assert type(graph) is nx.MultiDiGraph
        assert nx.is_directed_acyclic_graph(graph)
        assert (graph.number_of_nodes(), graph.number_of_edges()) == (size.nodes, size.edges)
        assert {frozenset(data) for _, data in graph.nodes(data=True)} == {frozenset(NODE)}
        assert {frozenset(data) for *_, data in graph.edges(data=True)} == {frozenset(EDGE)}
        assert {kind for *_, kind in graph.edges(data="kind")} <= {"data", "control", "transfer"}


@captures("jit_callable")
def test_all_three_stages_are_there(name: str) -> None:
    assert tuple(graphlens.load(CAPTURES / f"{name}.capture").document.graphs) == STAGES


@captures()
def test_the_executed_graph_says_what_the_document_says(name: str) -> None:
    analysis = graphlens.load(CAPTURES / f"{name}.capture")
    graph = analysis.to_networkx("executed")
    assert {row.name for row in analysis.document.ops} == set(graph)
    for row in analysis.document.ops:
        node = graph.nodes[row.name]
        assert (node["self_ns"], node["calls_per_step"], node["timing"]) == (
            row.self_ns,
            row.calls_per_step,
            row.timing,
        )
        assert (node["flops"], node["bytes"]) == (row.flops, row.bytes)
        assert tuple(node["origin"]) == row.origin


@captures()
def test_what_was_not_seen_has_no_time(name: str) -> None:
    for op, node in graphlens.load(CAPTURES / f"{name}.capture").to_networkx("executed").nodes(data=True):
        assert (node["timing"] is None) == (node["self_ns"] is None), op


def test_findings_are_on_their_nodes(tiny: graphlens.Analysis) -> None:
    graph = tiny.to_networkx("executed")
    (finding,) = (finding for finding in tiny.findings if finding.code == "GL203")
    assert {name for name, codes in graph.nodes(data="findings") if "GL203" in codes} == set(finding.nodes)


def test_a_fused_op_is_its_origins_and_they_are_not_given_its_time(tiny: graphlens.Analysis) -> None:
    """MatMul and BiasAdd of the last layer ran as one op, which took the last one's name."""
    executed, traced = tiny.to_networkx("executed"), tiny.to_networkx("traced")
    (fused,) = (name for name, op in executed.nodes(data="op") if "MatMul" in op)
    origins = executed.nodes[fused]["origin"]
    assert [traced.nodes[name]["op"] for name in origins] == ["MatMul", "BiasAdd"]
    assert executed.nodes[fused]["self_ns"] > 0
    for name in origins:
        assert traced.nodes[name]["executed_as"] == fused
        assert traced.nodes[name]["self_ns"] is None


def test_the_graph_is_the_users_own(tiny: graphlens.Analysis) -> None:
    tiny.to_networkx("executed").clear()
    assert len(tiny.to_networkx("executed")) == tiny.document.graphs["executed"].nodes


def test_an_analysis_from_json_has_its_graphs(tiny: graphlens.Analysis, tmp_path: Path) -> None:
    tiny.save(tmp_path / "r.json")
    again = graphlens.load(tmp_path / "r.json")
    assert set(again.to_networkx()) == set(tiny.to_networkx("executed"))


def test_a_static_analysis_has_the_traced_graph_only(tmp_path: Path) -> None:
    nodes = [("x", "Placeholder", ()), ("y", "Relu", ("x",))]
    analysis = graphlens.analyze(write_saved_model(tmp_path / "model", nodes), static=True)
    assert set(analysis.to_networkx("traced")) == {"x", "y"}
    for stage in ("optimized", "executed"):
        with pytest.raises(UsageError, match=f"has no {stage} graph"):
            analysis.to_networkx(stage)  # type: ignore[arg-type]
