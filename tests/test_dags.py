"""The graphs in the document: one annotated DAG from a live analysis and from its JSON, small, and never in a page."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from end_to_end import CAPTURES
from test_facts_programs import two_programs

import graphlens
from graphlens.errors import TargetError, UsageError
from graphlens.facts.core import FactError
from graphlens.facts.graphs import (
    executed_by,
    executed_graph,
    judged_stage,
    optimized_graph,
    origins,
    traced_graph,
)
from graphlens.facts.rows.dags import bare_dag, dags
from graphlens.facts.time.attribution import timings
from graphlens.facts.training.executed import layer_of_op
from graphlens.facts.training.layers import written_layers
from graphlens.facts.training.phases import written_phases
from graphlens.facts.work import costs
from graphlens.ir.analysis import Document
from graphlens.ir.annotated import networkx_of
from graphlens.ir.dag import Dag, Deferred, Edges, Words
from graphlens.ir.document import from_json, to_json
from graphlens.ir.nodes import CONTROL, Edge, Op
from graphlens.ir.op_rows import OpRows
from graphlens.ir.table import TableBuilder
from graphlens.loaders.capture.reading import evidence_of, open_capture
from graphlens.pipeline.choosing import choose
from graphlens.pipeline.judge import judge
from graphlens.report import html
from tests.sample_document import RICH

GRAPHS = {"traced": traced_graph, "optimized": optimized_graph, "executed": executed_graph}
NAMES = sorted(path.stem for path in CAPTURES.glob("*.capture"))
every_capture = pytest.mark.parametrize("name", NAMES)


@cache
def judged(name: str) -> graphlens.Analysis:
    return graphlens.load(CAPTURES / f"{name}.capture")


def as_data(graph: nx.MultiDiGraph) -> tuple[Any, Any]:
    """Nodes and edges in their order, with their attributes."""
    return list(graph.nodes(data=True)), list(graph.edges(keys=True, data=True))


# -- one graph, whichever way it came ----------------------------------------------------------------------------------


@every_capture
def test_a_loaded_analysis_hands_out_the_same_dag_as_the_live_one(name: str, tmp_path: Path) -> None:
    live = judged(name)
    live.save(tmp_path / "r.json")
    loaded = graphlens.load(tmp_path / "r.json")
    assert loaded.facts is None
    assert set(live.document.graphs) == {dag.stage for dag in loaded.document.dags}
    for stage in live.document.graphs:
        assert as_data(loaded.to_networkx(stage)) == as_data(live.to_networkx(stage))
    assert as_data(loaded.to_networkx()) == as_data(live.to_networkx(judged_stage_of(live)))


def judged_stage_of(analysis: graphlens.Analysis) -> Any:
    assert analysis.facts is not None
    return analysis.facts(judged_stage)


@every_capture
def test_nodes_say_what_the_facts_say_of_each_op_by_itself(name: str) -> None:
    """The columns against the facts asked one op at a time."""
    analysis = judged(name)
    for stage in analysis.document.graphs:
        graph = analysis.to_networkx(stage)  # type: ignore[arg-type]
        table = analysis.facts(GRAPHS[stage])  # type: ignore[misc]
        assert list(graph) == list(table)
        for op_name, op in table.items():
            assert graph.nodes[op_name] == annotation(analysis, stage, op_name, op)
        expected = sorted((src, dst, repr(edge)) for src, dst, edge in table.edges())
        assert sorted((src, dst, repr(Edge(**data))) for src, dst, data in graph.edges(data=True)) == expected


def annotation(analysis: graphlens.Analysis, stage: str, name: str, op: Op) -> Mapping[str, Any]:
    facts = analysis.facts
    assert facts is not None
    is_traced, is_judged = stage == "traced", stage == facts(judged_stage)
    ran = facts(executed_by).get(name) if is_traced else name
    alone = ran is not None and (not is_traced or len(facts(origins)[ran]) == 1)
    timing = facts(timings).get(ran) if ran and alone and facts(judged_stage) == "executed" else None
    cost = costs.cost_of(facts(GRAPHS[stage]), name)  # type: ignore[arg-type]
    found = [item.code for item in analysis.findings if item.stage == stage for node in item.nodes if node == name]
    return {
        "op": op.type,
        "device": op.device or None,
        "self_ns": timing.self_ns if timing else None,
        "calls_per_step": timing.calls_per_step if timing else None,
        "timing": timing.source if timing else None,
        "shapes": [spec.shape for spec in op.outputs] or None,
        "dtypes": [spec.dtype for spec in op.outputs] or None,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "origin": list(facts(origins).get(name, ())) if is_judged and not is_traced else [name],
        "executed_as": ran if is_traced else None,
        "layer": layer(analysis, name) if is_judged else None,
        "source": op.source,
        "findings": sorted(found),
    }


def layer(analysis: graphlens.Analysis, name: str) -> str | None:
    """Of a training step the Keras layer of most of its ops as written, the last in a tie; else what its scope says."""
    facts = analysis.facts
    assert facts is not None
    if not facts(written_phases):
        return layer_of_op(facts, name)
    known = facts(written_layers)
    paths = [known[one].path for one in facts(origins).get(name, ()) if one in known]
    return max(reversed(paths), key=paths.count, default=None)


def test_a_graph_is_the_callers_own(tmp_path: Path) -> None:
    analysis = judged("tiny_cnn")
    analysis.to_networkx().nodes[next(iter(analysis.to_networkx()))]["origin"].append("changed")
    first = analysis.to_networkx()
    shared = [data for _, data in first.nodes(data=True) if data["shapes"]]
    shared[0]["shapes"].append("changed")
    assert as_data(analysis.to_networkx()) != as_data(first)


def test_the_graphs_of_every_program_are_in_the_document() -> None:
    analysis = judged("train_step")
    (row,) = analysis.document.programs
    assert {dag.program for dag in analysis.document.dags} == {row.id}
    assert as_data(analysis.to_networkx("executed", program=row.id)) == as_data(analysis.to_networkx("executed"))
    with pytest.raises(UsageError, match=rf"no executed graph of a program 'eval'; there are those of {row.id}"):
        analysis.to_networkx("executed", program="eval")


def test_each_of_several_programs_has_its_graphs_under_the_id_of_its_row() -> None:
    analysis = judge(choose(two_programs()))
    train, test = (row.id for row in analysis.document.programs)
    assert [(dag.program, dag.stage) for dag in analysis.document.dags] == [(train, "executed"), (test, "executed")]
    for row in analysis.document.programs:
        graph = analysis.to_networkx("executed", program=row.id)
        assert (len(graph), graph.number_of_edges()) == (row.graphs["executed"].nodes, row.graphs["executed"].edges)
    other = analysis.to_networkx("executed", program=test)
    assert {(data["self_ns"], data["layer"], *data["findings"]) for _, data in other.nodes(data=True)} == {(None, None)}


def test_graphs_that_cannot_be_made_are_an_error_in_the_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(facts: object) -> object:
        raise LookupError("planted")

    monkeypatch.setattr(dags, "derive", fail)
    document = judge(evidence_of(open_capture(CAPTURES / "tiny_cnn.capture"))).document
    written = from_json(to_json(document))
    assert written.dags == ()
    assert [error.message[:36] for error in written.errors] == ["dags failed with LookupError: planted"[:36]]
    with pytest.raises(FactError, match="planted"):
        networkx_of(document)


def test_a_stage_that_is_not_there_is_refused_with_those_that_are() -> None:
    static = replace(judged("tiny_cnn").document, graphs={}, dags=())
    with pytest.raises(UsageError, match=r"has no executed graph; only a profile is known"):
        networkx_of(static, "executed")
    only_traced = replace(static, graphs={"traced": RICH.graphs["traced"]}, dags=judged("tiny_cnn").document.dags[:1])
    with pytest.raises(UsageError, match=r"has no executed graph; choose from traced"):
        networkx_of(only_traced, "executed")
    assert len(networkx_of(only_traced))


def test_an_analysis_of_an_earlier_version_says_that_it_has_no_graphs() -> None:
    data = json.loads(to_json(judged("tiny_cnn").document))
    del data["dags"]
    with pytest.raises(UsageError, match="has no graphs: it was taken from a page, or written by an earlier version"):
        networkx_of(from_json(json.dumps(data)))


# -- in the JSON -------------------------------------------------------------------------------------------------------


def repeated(copies: int) -> Dag:
    """Copies of a small layer, as a large model has them."""
    builder = TableBuilder()
    last = None
    for copy in range(copies):
        names = [f"model/layer_{copy}/{part}" for part in ("weights", "ReadVariableOp", "MatMul", "BiasAdd", "Relu")]
        for part, kind in zip(names, ("VarHandleOp", "ReadVariableOp", "MatMul", "BiasAdd", "Relu"), strict=True):
            builder.add_op(Op(part, kind))
        for port, (src, dst) in enumerate(pairwise(names)):
            builder.add_edge(src, dst, Edge("data", 0, port % 2))
        if last:
            builder.add_edge(last, names[2], Edge("data"))
            builder.add_edge(last, names[1], CONTROL)
        last = names[-1]
    return bare_dag(builder.table(), "traced", "main")


def test_an_op_takes_few_bytes_of_the_document() -> None:
    """The graph is columns with each word once: a name, an edge and a half, and a few small numbers for each op."""
    dag = repeated(2000)
    ops = len(dag.name)
    with_graph, without = (to_json(replace(RICH, dags=graphs)) for graphs in ([dag], []))
    names = sum(map(len, dag.name)) / ops
    assert (len(with_graph) - len(without)) / ops < names + 45


def test_a_row_without_a_time_takes_few_bytes_of_the_document() -> None:
    names = [f"model/layer_{i}/MatMul" for i in range(1000)]
    rows = OpRows({"name": names, "op": ["MatMul"] * 1000, "scope": ["model"] * 1000})
    per_row = (len(to_json(replace(RICH, ops=rows))) - len(to_json(replace(RICH, ops=())))) / len(names)
    assert per_row < 480


def test_each_column_of_a_graph_is_a_line_of_the_document() -> None:
    text = to_json(replace(RICH, dags=[repeated(3)]))
    assert re.search(r'^   "flops": \[0, 0, ', text, re.MULTILINE)
    assert from_json(text).dags == (repeated(3),)


def test_a_document_is_handed_to_another_process_with_its_graphs() -> None:
    document = judged("tiny_cnn").document
    for again in (pickle.loads(pickle.dumps(document)), deepcopy(document)):
        assert to_json(again) == to_json(document)
        assert again.ops == document.ops


def test_graphs_are_made_when_they_are_looked_at() -> None:
    made = []
    deferred = Deferred(lambda: made.append(1) or (repeated(1),))  # type: ignore[func-returns-value]
    document = replace(RICH, dags=deferred)
    html.render(document)
    assert not made
    assert to_json(document) == to_json(document)
    assert made == [1]


def test_a_page_carries_the_analysis_without_its_graphs() -> None:
    document = judged("tiny_cnn").document
    (blob,) = re.findall(r">([A-Za-z0-9+/=]{400,})<", html.render(document))
    carried = gzip.decompress(base64.b64decode(blob)).decode()
    assert carried == to_json(replace(document, dags=()))
    assert json.loads(carried)["dags"] == []


EDGES_OF_NOWHERE = {"counts": [5, 0, 0, 0, 0], "sources": [7] * 5, "kinds": [{"kind": "data"}], "codes": [0] * 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops": [1]}, r"dags\[0\] has columns of different lengths"),
        ({"op": {"values": ["Relu"], "codes": [9] * 5}}, r"dags\[0\] has codes that stand for nothing"),
        ({"op": {"values": ["Relu"], "codes": [-1] * 5}}, r"dags\[0\] has codes that stand for nothing"),
        ({"edges": {"counts": [1] * 5}}, r"dags\[0\] has edges that do not fit its ops"),
        ({"edges": {"counts": [-1, 1, 0, 0, 0]}}, r"dags\[0\] has edges that do not fit its ops"),
        ({"name": ["a"] * 5}, r"dags\[0\] has several ops of one name"),
        ({"edges": EDGES_OF_NOWHERE}, r"dags\[0\] has codes that stand for nothing"),
        ({"name": [1]}, r"dags\[0\]\.name\[0\] is 1, expected string"),
        ({"self_ns": [1.5] * 5}, r"dags\[0\]\.self_ns\[0\] is 1.5, expected integer"),
        ({"stage": "drawn"}, r'dags\[0\]\.stage is "drawn"'),
    ],
)
def test_a_graph_that_is_none_is_refused(change: Mapping[str, Any], message: str) -> None:
    data = json.loads(to_json(replace(RICH, dags=[repeated(1)])))
    data["dags"][0].update(change)
    with pytest.raises(TargetError, match=message) as caught:
        from_json(json.dumps(data))
    assert "\n" not in str(caught.value)


def test_a_number_of_a_column_that_is_none_is_refused_with_its_place() -> None:
    dag = Dag("main", "traced", ("a",), Words.of(["A"]), flops=("many",), edges=Edges((0,)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dags\[0\]\.flops\[0\] is 'many', expected a whole number"):
        to_json(replace(RICH, dags=[dag]))


def test_an_empty_graph_has_no_nodes() -> None:
    dag = Dag("main", "traced", (), Words())
    document: Document = replace(RICH, graphs={"traced": RICH.graphs["traced"]}, dags=[dag])
    assert len(networkx_of(from_json(to_json(document)))) == 0
