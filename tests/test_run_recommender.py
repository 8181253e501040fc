"""A recommender's script: what its optimizer does to the table, and what that does to everyone who reads it."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from test_run_scripts import SCRIPTS, Ended, plainly, run

pytestmark = pytest.mark.tf

ROWS, WIDTH, LOOKED_UP = 100_000, 64, 32 * 10  # 32 samples of a batch with 10 items each

# What Keras' Adam does to a table, read off `keras/src/optimizers/adam.py` by hand: m += (g - m) * (1 - b1),
# v += (g² - v) * (1 - b2), table -= m * alpha / (sqrt(v) + e), with g and g² made dense from the rows.
PASSES_OF_ADAM = {
    "UnsortedSegmentSum": 2,
    "Sub": 2,
    "Mul": 3,
    "AssignAddVariableOp": 2,
    "Sqrt": 1,
    "AddV2": 1,
    "RealDiv": 1,
    "AssignSubVariableOp": 1,
}


class Recorded(NamedTuple):
    outcome: Ended
    document: dict[str, Any]
    capture: Path

    def finding(self, code: str) -> dict[str, Any] | None:
        return next((found for found in self.document["findings"] if found["code"] == code), None)


def recorded(place: Path, *arguments: str) -> Recorded:
    report, capture = place / "report.json", place / "script.capture"
    outcome = run("-o", str(report), "-o", str(capture), str(SCRIPTS / "recommender.py"), *arguments)
    assert outcome.code == 0, outcome.err
    return Recorded(outcome, json.loads(report.read_text("utf-8")), capture)


@pytest.fixture(scope="module")
def adam(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded(tmp_path_factory.mktemp("adam"), "adam")


def graphs_in(capture: Path, part: str) -> list[GraphDef]:
    with zipfile.ZipFile(capture) as parts:
        return [GraphDef.FromString(parts.read(name)) for name in parts.namelist() if name.endswith(part)]


def shape_of(node: NodeDef) -> list[int]:
    shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    return [dim.size for dim in shapes[0].dim] if len(shapes) else []


def types_over_the_table(capture: Path) -> Counter[str]:
    """The ops that ran and make a tensor of the table's shape, or write one: by a walk of the protobufs alone."""
    (traced,) = graphs_in(capture, "traced.pb")
    ran = {node.name.rpartition("/")[2] for graph in graphs_in(capture, "executed/0.pb") for node in graph.node}
    found: Counter[str] = Counter()
    for function in traced.library.function:
        shapes = {node.name: shape_of(node) for node in function.node_def}
        for node in function.node_def:
            read = [shapes.get(source.partition(":")[0]) for source in node.input]
            writes = node.op.startswith("Assign") and [ROWS, WIDTH] in read
            if (shapes[node.name] == [ROWS, WIDTH] or writes) and node.name.rpartition("/")[2] in ran:
                found[node.op] += 1
    del found["ReadVariableOp"], found["Identity"]
    return found


def test_a_recommender_prints_what_it_prints_alone(adam: Recorded) -> None:
    assert adam.outcome.out == plainly(str(SCRIPTS / "recommender.py"), "adam").out


def test_rows_looked_up_and_passes_over_the_table_are_counted_as_by_hand(adam: Recorded) -> None:
    finding = adam.finding("GL603")
    assert finding is not None
    evidence = finding["evidence"]
    assert evidence["variables"] == ["sequential/embedding/embeddings"]
    assert (evidence["shape"], evidence["bytes"]) == ([ROWS, WIDTH], 4 * ROWS * WIDTH)
    assert (evidence["rows_touched"], evidence["rows_updated"], evidence["made_dense"]) == (LOOKED_UP, ROWS, 2)
    assert Counter(op["type"] for op in evidence["ops"]) == PASSES_OF_ADAM == types_over_the_table(adam.capture)
    assert evidence["passes"] == sum(PASSES_OF_ADAM.values()) == 13


def test_their_time_is_measured_and_bounds_the_saving(adam: Recorded) -> None:
    finding = adam.finding("GL603")
    assert finding is not None
    assert finding["saving"]["origin"] == "bound"
    assert 0 < finding["saving"]["share"] <= 1
    times_ns = [op["self_ns"] for op in finding["evidence"]["ops"]]
    assert finding["evidence"]["passes_ns"] == sum(times_ns) > 0
    assert finding["severity"] == "high"
