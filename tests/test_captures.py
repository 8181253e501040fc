"""Recorded captures are judged again: goldens of the results, every rule on every capture in one table, and facts.

`GRAPHLENS_UPDATE=1 pytest tests/test_captures.py` rewrites the goldens; a difference is a question to the author.
"""

from __future__ import annotations

import json
import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from oracles import op_totals_ps

from graphlens.api import Analysis, load

ROOT = Path(__file__).parents[1]
CAPTURES = sorted((ROOT / "fixtures" / "captures").glob("*.capture"))
GOLDENS = Path(__file__).parent / "snapshots"


@cache
def judged(path: Path) -> Analysis:
    return load(path)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


every_capture = pytest.mark.parametrize("path", CAPTURES, ids=names(CAPTURES))


def check_golden(name: str, found: str) -> None:
    golden = GOLDENS / name
    if os.environ.get("GRAPHLENS_UPDATE"):
        golden.write_text(found, encoding="utf-8")
    assert golden.exists(), f"no golden {name}; write it with GRAPHLENS_UPDATE=1"
    assert found == golden.read_text(encoding="utf-8")


def test_there_are_captures() -> None:
    assert len(CAPTURES) >= 10


# -- goldens ------------------------------------------------------------------------------------------------------


def outline(analysis: Analysis) -> dict[str, Any]:
    """The parts of the document that a person can check by eye; the rest has tests of its own."""
    document = json.loads(analysis.to_json())
    ops = document.pop("ops")
    document.pop("environment")
    document.pop("graphlens_version")
    for finding in document["findings"]:
        figure = finding.pop("figure") or {"nodes": [], "edges": []}
        finding["figure_size"] = [len(figure["nodes"]), len(figure["edges"])]
        finding["nodes"] = finding["nodes"][:6]
        finding["fix"].pop("edits")
    for dag in document["dags"]:
        dag["size"] = [len(dag.pop("name")), len(dag.pop("edges")["sources"])]
        for column in [name for name in dag if name not in ("program", "stage", "size")]:
            dag.pop(column)
    if document["memory"] is not None:
        document["memory"]["curve"] = len(document["memory"]["curve"])
        document["memory"]["alive"] = document["memory"]["alive"][:3]
    document["slowest_ops"] = [
        {key: op[key] for key in ("name", "op", "executed_as", "self_ns", "timing", "flops", "origin")}
        for op in ops[:8]
    ]
    return document


@every_capture
def test_the_analysis_is_the_golden_one(path: Path) -> None:
    check_golden(f"{path.stem}.json", json.dumps(outline(judged(path)), indent=1, ensure_ascii=False) + "\n")


def test_every_rule_on_every_capture() -> None:
    """One sorted table: a new false positive is one changed line."""
    codes = [status.code for status in judged(CAPTURES[0]).document.rules]
    marks = {"found": "F", "passed": ".", "not-applicable": "-", "error": "E"}
    lines = [f"{'':20}" + " ".join(code[2:] for code in codes)]
    for path in CAPTURES:
        statuses = {status.code: marks[status.status] for status in judged(path).document.rules}
        lines.append(f"{path.stem:20}" + " ".join(f"{statuses[code]:>3}" for code in codes))
    check_golden("rule-matrix.txt", "\n".join(lines) + "\n")


# -- facts that hold whatever was recorded ------------------------------------------------------------------------


@every_capture
def test_the_ledger_sums_to_the_step(path: Path) -> None:
    analysis = judged(path)
    assert analysis.step is not None
    assert sum(row.ns for row in analysis.ledger) == analysis.step.median_ns


@every_capture
def test_nothing_unseen_is_shown_as_zero(path: Path) -> None:
    for op in judged(path).document.ops:
        assert (op.self_ns is None) == (op.timing is None) == (op.calls_per_step is None)
        if op.timing:
            assert op.calls_per_step


@every_capture
def test_no_rule_fails(path: Path) -> None:
    assert [status for status in judged(path).document.rules if status.status == "error"] == []


@every_capture
def test_nearly_all_measured_op_time_is_joined(path: Path) -> None:
    rate = judged(path).quality.join_rate
    assert rate is not None
    assert rate >= 0.97


@every_capture
def test_op_times_are_those_of_a_second_reader_of_the_profile(path: Path) -> None:
    """All events of the profile by a wire-format reader of the tests' own, against the joined totals."""
    analysis = judged(path)
    assert analysis.facts is not None
    profile = analysis.facts.evidence.profile
    assert profile is not None
    ours: dict[str, int] = {}
    for event in profile.ops:
        name = f"{event.node}:{event.op}"
        ours[name] = ours.get(name, 0) + event.end_ns - event.start_ns
    with zipfile.ZipFile(path) as archive:
        theirs = op_totals_ps(archive.read("profile.xplane.pb"))
    assert set(ours) <= set(theirs)
    assert {name.partition(":")[0][:12] for name in set(theirs) - set(ours)} <= {"__inference_"}, "only whole functions"
    for name, total_ns in ours.items():
        count, total_ps = theirs[name]
        assert total_ns == pytest.approx(total_ps / 1000, abs=count)  # each event is rounded to whole ns


@every_capture
def test_the_graphs_handed_out_are_plain_and_acyclic(path: Path) -> None:
    analysis = judged(path)
    for stage, size in analysis.document.graphs.items():
        graph = analysis.to_networkx(stage)  # type: ignore[arg-type]
        assert type(graph) is nx.MultiDiGraph
        assert nx.is_directed_acyclic_graph(graph)
        assert (graph.number_of_nodes(), graph.number_of_edges()) == (size.nodes, size.edges)
    assert {"op", "device", "self_ns", "flops", "bytes", "origin", "findings"} <= set(graph.nodes[next(iter(graph))])


@every_capture
def test_a_capture_holds_no_weights(path: Path) -> None:
    """Weights are what a constant or a variable holds: no stored tensor has more than 64 elements."""
    analysis = judged(path)
    assert analysis.facts is not None
    for graph in (analysis.facts.evidence.traced, analysis.facts.evidence.executed):
        for function in graph.functions.values() if graph else ():
            for op in function.graph.ops():
                assert op.constant is None or op.constant.values is None or len(op.constant.values) <= 64
