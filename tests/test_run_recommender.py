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


# -- what is copied since rows were updated ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Two models, one trained by SGD and one by Adam; a step that trains neither of them reads both tables."""
    return recorded(tmp_path_factory.mktemp("both"), "sgd+adam", str(ROWS), "answer")


def test_a_table_is_copied_after_sgd_and_not_after_adam_in_the_same_script(both: Recorded) -> None:
    found = [finding for finding in both.document["findings"] if finding["code"] == "GL604"]
    assert [finding["evidence"]["variable"] for finding in found] == ["sequential/embedding/embeddings"]
    evidence = found[0]["evidence"]
    assert evidence["accessed_by"] == "ResourceScatterSub"
    assert (evidence["accessed_in"], evidence["accessed_in_the_step"]) == ("one_step_on_data", False)
    assert evidence["bytes"] == 4 * ROWS * WIDTH
    assert evidence["only_rows_needed"]
    reads = {op["name"]: op["self_ns"] for op in both.document["ops"] if op["op"] == "ReadVariableOp" and op["self_ns"]}
    (copied,) = evidence["reads"]
    table_of_adam = copied.replace("sequential_1/embedding_1", "sequential_1_2/embedding_1_1")
    assert reads.get(table_of_adam, 0) < reads[copied] / 10


def test_the_step_that_reads_them_neither_gathers_nor_scatters(both: Recorded) -> None:
    """What is found about it is known from another function of the script: its own graphs do not show it."""
    graphs = [*graphs_in(both.capture, "traced.pb"), *graphs_in(both.capture, "executed/0.pb")]
    types = {node.op for graph in graphs for node in graph.node}
    types |= {node.op for graph in graphs for function in graph.library.function for node in function.node_def}
    assert "ReadVariableOp" in types
    assert not [kind for kind in types if kind.startswith(("ResourceGather", "ResourceScatter", "ResourceSparse"))]


def test_the_dense_gradient_of_adam_makes_no_read_a_copy(adam: Recorded) -> None:
    assert adam.finding("GL604") is None


EAGERLY = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
table, other = tf.Variable(tf.ones([50_000, 64])), tf.Variable(tf.ones([50_000, 64]))
@tf.function
def step(x):
    return tf.reduce_sum(table.read_value()[:2] * x) + tf.reduce_sum(other.read_value()[:2] * x)
print(float(tf.reduce_sum(tf.gather(table, [1, 2]))))
{undone}
print([float(step(tf.constant(float(i)))) for i in range(40)][-1])
"""
UNDONE = "tf.train.Checkpoint(table=table).save('saved')"


@pytest.mark.parametrize(("undone", "found"), [("", ["Variable"]), (UNDONE, [])], ids=["as it is", "saved since"])
def test_one_eager_lookup_is_enough_and_a_checkpoint_undoes_it(undone: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EAGERLY.format(undone=undone), "utf-8")
    outcome = run("-o", "report.json", "script.py", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (0, "128.0\n9984.0\n"), outcome.err
    findings = json.loads((tmp_path / "report.json").read_text("utf-8"))["findings"]
    copied = [finding for finding in findings if finding["code"] == "GL604"]
    assert [finding["evidence"]["variable"] for finding in copied] == found
    assert all(finding["evidence"]["accessed_in"] is None for finding in copied)
