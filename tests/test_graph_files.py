"""The annotated DAG as GraphML, GEXF and DOT: read back by networkx and by Graphviz, whatever the names hold."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from conftest import Command
from end_to_end import CAPTURES, assert_refused, files_in, write_saved_model

import graphlens
from graphlens import pipeline, report
from graphlens.children.tool import run_tool
from graphlens.errors import UsageError
from graphlens.facts.rows.dags import bare_dag
from graphlens.ir.analysis import Document
from graphlens.ir.annotated import annotated, networkx_of
from graphlens.ir.nodes import CONTROL, Edge, Op, TensorSpec
from graphlens.ir.table import TableBuilder
from graphlens.report.figures import find_dot
from graphlens.report.graph_files import WRITERS
from tests.sample_document import HOSTILE_NAMES, LOW, RICH

TINY = CAPTURES / "tiny_cnn.capture"
READERS = {".graphml": nx.read_graphml, ".gexf": nx.read_gexf}
every_reader = pytest.mark.parametrize("suffix", READERS)
every_suffix = pytest.mark.parametrize("suffix", WRITERS)

# What names may hold beside what is hostile to a page.
HOSTILE = (
    *HOSTILE_NAMES,
    "a:b:c",
    "a->b",
    'quote"',
    "back\\slash",
    "end\\",
    "\ufffe\uffff",
    "&amp;",
    "a b",
    "a\nb",
    "",
    "node",
)


@cache
def stages() -> list[tuple[str, str]]:
    """Each committed capture with each of its stages."""
    captures = sorted(path.stem for path in CAPTURES.glob("*.capture"))
    return [(name, stage) for name in captures for stage in judged(name).document.graphs]


@cache
def judged(name: str) -> graphlens.Analysis:
    return graphlens.load(CAPTURES / f"{name}.capture")


def hostile() -> Document:
    """A chain of ops with hostile names, types and shapes; two edges go between the first two."""
    builder = TableBuilder()
    for name in HOSTILE:
        builder.add_op(Op(name, name or "Const", name, (TensorSpec("float32", (None, 2)), TensorSpec("int8"))))
    for position in range(len(HOSTILE) - 1):
        builder.connect(position, position + 1, Edge("data", 1, 0))
    builder.connect(0, 1, CONTROL)
    dag = bare_dag(builder.table(), "traced", "main")
    finding = replace(LOW, stage="traced", nodes=(HOSTILE[0], "a:b:c"))
    return replace(RICH, graphs={"traced": RICH.graphs["traced"]}, dags=(dag,), findings=(finding, finding))


def expected(document: Document, stage: Any = None) -> Iterator[dict[str, Any]]:
    """What is known of each op, as a format says it that has no lists and no word for what is not known."""
    for _, attributes in annotated(document, stage).nodes():
        if attributes["shapes"]:
            attributes["shapes"] = [
                "[…]" if shape is None else f"[{','.join('?' if size is None else str(size) for size in shape)}]"
                for shape in attributes["shapes"]
            ]
        yield {
            key: ", ".join(value) if isinstance(value, list) else value
            for key, value in attributes.items()
            if value not in (None, [])
        }


# -- networkx reads it back --------------------------------------------------------------------------------------------


@every_reader
def test_networkx_reads_every_graph_back(suffix: str, tmp_path: Path) -> None:
    for name, stage in stages():
        path = tmp_path / f"{name}-{stage}{suffix}"
        judged(name).save(path, stage)  # type: ignore[arg-type]
        read, graph = READERS[suffix](path), judged(name).to_networkx(stage)  # type: ignore[arg-type]
        assert list(read) == list(graph)
        told = [{key: value for key, value in data.items() if key != "label"} for _, data in read.nodes(data=True)]
        assert told == list(expected(judged(name).document, stage)), path.name
        assert edges(read) == edges(graph), path.name
        assert {data["label"] for _, data in read.nodes(data=True)} == {node.rpartition("/")[2] for node in graph}


def edges(graph: Any) -> Counter[tuple[Any, ...]]:
    """Edges with their attributes; what is not known is not there."""
    return Counter(
        (src, dst, data["kind"], data.get("src_port"), data.get("dst_port"))
        for src, dst, data in graph.edges(data=True)
    )


@every_reader
def test_numbers_are_read_back_as_numbers(suffix: str, tmp_path: Path) -> None:
    judged("tiny_cnn").save(tmp_path / f"dag{suffix}")
    for _, data in READERS[suffix](tmp_path / f"dag{suffix}").nodes(data=True):
        assert {type(data[key]) for key in ("self_ns", "flops", "bytes") if key in data} <= {int}
        assert type(data.get("calls_per_step", 1.0)) is float


@every_reader
def test_hostile_names_stay_apart_and_give_wellformed_xml(suffix: str, tmp_path: Path) -> None:
    report.write(hostile(), tmp_path / f"dag{suffix}")
    ElementTree.fromstring((tmp_path / f"dag{suffix}").read_bytes())
    read = READERS[suffix](tmp_path / f"dag{suffix}")
    graph = networkx_of(hostile())
    assert (len(read), read.number_of_edges()) == (len(graph), graph.number_of_edges())
    assert [len(list(read.successors(node))) for node in read] == [len(list(graph.successors(node))) for node in graph]
    harmless = {"a:b:c", "a->b", 'quote"', "back\\slash", "end\\", "&amp;", "a b", "日本語/µ", "<b>html label</b>", ""}
    assert harmless <= set(read)
    assert read.nodes["a:b:c"]["findings"] == "GL212, GL212"


# -- Graphviz reads it back --------------------------------------------------------------------------------------------


def graphviz(path: Path, form: str) -> bytes:
    dot = find_dot()
    assert dot is not None
    return run_tool([str(dot), f"-T{form}", str(path)], b"", 60)


def read_dot(path: Path) -> tuple[dict[str, dict[str, str]], list[tuple[str, str, str]]]:
    """Return the nodes with their attributes, and the edges with their kinds, as Graphviz understands them."""
    data = json.loads(graphviz(path, "dot_json"))
    names = {node["_gvid"]: node["name"] for node in data["objects"]}
    return (
        {node["name"]: node for node in data["objects"]},
        [(names[edge["tail"]], names[edge["head"]], edge["kind"]) for edge in data["edges"]],
    )


@pytest.mark.parametrize("stage", ["traced", "optimized", "executed"])
def test_graphviz_reads_a_graph_back(stage: Any, tmp_path: Path) -> None:
    path = tmp_path / "dag.dot"
    judged("tiny_cnn").save(path, stage)
    nodes, arrows = read_dot(path)
    graph = judged("tiny_cnn").to_networkx(stage)
    assert list(nodes) == list(graph)
    assert sorted(arrows) == sorted((src, dst, data["kind"]) for src, dst, data in graph.edges(data=True))
    for (name, node), known in zip(nodes.items(), expected(judged("tiny_cnn").document, stage), strict=True):
        known["model_layer"] = known.pop("layer", None)
        assert {key: node.get(key) for key in known} == {
            key: None if value is None else str(value) for key, value in known.items()
        }
        assert node["label"] == f"{known['op']}\\n{name.rpartition('/')[2]}"


def test_graphviz_draws_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "dag.dot"
    judged("tiny_cnn").save(path)
    drawing = ElementTree.fromstring(graphviz(path, "svg"))
    classes = Counter(group.get("class") for group in drawing.iter("{http://www.w3.org/2000/svg}g"))
    size = judged("tiny_cnn").document.graphs["executed"]
    assert (classes["node"], classes["edge"]) == (size.nodes, size.edges)


def test_graphviz_takes_no_name_for_a_port_markup_or_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "dag.dot"
    report.write(hostile(), path)
    nodes, arrows = read_dot(path)
    assert (len(nodes), len(arrows)) == (len(HOSTILE), len(HOSTILE))
    assert {"a:b:c", "a->b", 'quote"', "&amp;", "a b", "日本語/µ", "<b>html label</b>", "node"} <= set(nodes)
    told = {key for edge in json.loads(graphviz(path, "dot_json"))["edges"] for key in edge}
    assert told <= {"_gvid", "tail", "head", "kind", "style", "src_port", "dst_port"}
    assert not any(node.get("URL") for node in nodes.values())
    ElementTree.fromstring(graphviz(path, "svg"))


# -- files -------------------------------------------------------------------------------------------------------------


@every_suffix
def test_equal_documents_give_equal_files(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report.write(judged("tiny_cnn").document, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@every_suffix
def test_a_loaded_analysis_writes_the_same_file_as_the_live_one(suffix: str, tmp_path: Path) -> None:
    live = judged("tiny_cnn")
    live.save(tmp_path / "r.json")
    graphlens.load(tmp_path / "r.json").save(tmp_path / f"loaded{suffix}", "optimized")
    live.save(tmp_path / f"live{suffix}", "optimized")
    assert (tmp_path / f"loaded{suffix}").read_bytes() == (tmp_path / f"live{suffix}").read_bytes()


@every_suffix
def test_a_stage_that_is_not_there_leaves_no_file(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no executed graph; choose from traced"):
        report.write(hostile(), tmp_path / f"dag{suffix}", "executed")
    assert files_in(tmp_path) == set()


def test_a_report_holds_no_graph() -> None:
    assert [report.holds_a_graph(path) for path in ("a.html", "a.json", "a.txt", "b.GraphML", ".dot")] == [
        False, False, False, True, True,
    ]  # fmt: skip


# -- the command -------------------------------------------------------------------------------------------------------


def model(folder: Path) -> Path:
    return write_saved_model(folder / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])


def test_the_command_writes_graphs_beside_reports(run: Command, tmp_path: Path) -> None:
    outputs = ("dag.graphml", "dag.gexf", "dag.dot", "r.json")
    assert run("analyze", TINY, "--stage", "traced", *(word for name in outputs for word in ("-o", name))).code == 0
    assert files_in(tmp_path) == set(outputs)
    assert len(nx.read_gexf(tmp_path / "dag.gexf")) == judged("tiny_cnn").document.graphs["traced"].nodes


def test_the_judged_graph_is_written_unless_another_is_named(run: Command, tmp_path: Path) -> None:
    assert run("analyze", TINY, "-o", "dag.graphml").code == 0
    assert len(nx.read_graphml(tmp_path / "dag.graphml")) == judged("tiny_cnn").document.graphs["executed"].nodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stage", "traced", "-o", "r.html"), "--stage is for graphs; name a file that ends in .graphml, .gexf or"),
        (("--stage", "executed", "--static", "-o", "dag.dot"), "with --static nothing is executed"),
        (("--stage", "drawn", "-o", "dag.dot"), "invalid choice: 'drawn'"),
    ],
)
def test_a_stage_that_cannot_be_written_is_refused_before_any_work(
    run: Command, options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = model(tmp_path)
    before = files_in(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(pipeline, "analyze", refuse)
    assert_refused(run("analyze", target, *options), message, tmp_path, before)


def test_what_was_measured_is_shown_although_there_is_no_graph_of_the_stage(run: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(TINY) as archive:
        profile = archive.extract("profile.xplane.pb", tmp_path)
    before = files_in(tmp_path)
    outcome = run("analyze", profile, "--stage", "optimized", "-o", "dag.dot", "-o", "dag.gexf", "-o", "r.json")
    assert outcome.code == 2
    assert outcome.err == (
        "graphlens: this analysis has no optimized graph; only a profile is known; name the model that ran too: "
        "to `record`, or to `analyze` with the profile as --profile\n"
    )
    assert "Slowest ops" in outcome.out
    assert [line for line in outcome.out.splitlines() if line.startswith("Report:")] == ["Report: r.json"]
    assert files_in(tmp_path) == before | {"r.json"}


def test_why_there_is_no_executed_graph_is_said(run: Command, tmp_path: Path) -> None:
    reads = write_saved_model(tmp_path / "m", [("name", "Placeholder", ()), ("content", "ReadFile", ("name",))])
    before = files_in(tmp_path)
    outcome = run("analyze", reads, "--stage", "executed", "-o", "dag.dot", "-o", "r.json")
    assert outcome.code == 3
    why, missing = outcome.err.splitlines()
    assert "op 'content' ReadFile reads files; pass --trust to execute it anyway" in why
    assert missing == "graphlens: this analysis has no executed graph; choose from traced"
    assert "GL901" in outcome.out
    assert files_in(tmp_path) == before | {"r.json"}
