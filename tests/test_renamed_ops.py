"""Ops that do not run under their own names are joined to what was written: graph files whose result is `output`.

One child process writes and records every file; what the ops are called there is TensorFlow's own doing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from end_to_end import python

from graphlens.facts.core import Facts
from graphlens.facts.flat.names import Names
from graphlens.facts.flat.origins import resolve
from graphlens.facts.flat.renames import as_written, normalized, renamed_ops
from graphlens.facts.graphs import executed_by, judged_graph, traced_graph
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.quality import quality
from graphlens.ir.evidence import Evidence
from graphlens.loaders import savedmodel, sniff
from graphlens.loaders.capture.reading import evidence_of, open_capture
from graphlens.pipeline import foreign
from graphlens.testing.sketch import sketch

STEPS = 6
GOOD_JOIN_RATE = 0.99

RECORD = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from graphlens.children.messages import RecordRequest
from graphlens.tf.record import child

v1, folder = tf.compat.v1, Path(sys.argv[1])

def weights(columns):
    return tf.constant(np.random.default_rng(0).normal(size=(128, columns)).astype(np.float32))

def hidden():
    return tf.nn.relu(tf.matmul(v1.placeholder(tf.float32, (32, 128), name="x"), weights(128)))

def output():
    tf.matmul(hidden(), weights(512), name="output")

def softmax_2():
    tf.nn.softmax(hidden(), name="softmax_2")

def y():
    tf.nn.relu(hidden() + 1.0, name="y")

def alone():
    tf.matmul(v1.placeholder(tf.float32, (32, 128), name="x"), weights(512), name="output")

def read_first():
    tf.tanh(tf.matmul(hidden(), weights(512), name="output_0"), name="output")

def two_results():
    tf.matmul(hidden(), weights(512), name="output")
    tf.nn.softmax(hidden(), name="output_0")

def read_later():
    first = tf.matmul(hidden(), weights(512), name="output")
    second = tf.nn.softmax(hidden(), name="output_0")
    tf.tanh(second, name="z")

for write in (output, softmax_2, y, alone, read_first, two_results, read_later):
    graph = tf.Graph()
    with graph.as_default():
        write()
    (folder / f"{write.__name__}.pb").write_bytes(graph.as_graph_def().SerializeToString())
    if write in (output, y):
        with graph.as_default(), v1.Session() as session:
            info = v1.saved_model.predict_signature_def(
                {"x": graph.get_tensor_by_name("x:0")}, {"result": graph.get_tensor_by_name(f"{write.__name__}:0")}
            )
            builder = v1.saved_model.Builder(str(folder / write.__name__))
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": info})
            builder.save()
            v1.train.export_meta_graph(str(folder / f"{write.__name__}.meta"))

KINDS = {".pb": "graph_def", ".meta": "meta_graph", "": "saved_model"}
for target in sorted(folder.iterdir()):
    asked = RecordRequest(str(target), KINDS[target.suffix], steps=int(sys.argv[2]))
    assert child.serve(asked, folder / "captures" / target.name, lambda message: None) == 0, target

profiled = tf.saved_model.load(str(folder / "output")).signatures["serving_default"]
profiled(x=tf.ones((32, 128)))
tf.profiler.experimental.start(str(folder / "profile"))
for number in range(3):
    with tf.profiler.experimental.Trace("step", step_num=number, _r=1):
        profiled(x=tf.ones((32, 128)))
tf.profiler.experimental.stop()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, and in `captures/` what was recorded of each."""
    folder = tmp_path_factory.mktemp("renamed")
    python("-c", RECORD, str(folder), str(STEPS))
    return folder


@pytest.fixture(scope="module")
def facts_of(recorded: Path) -> Any:
    """The facts of one recorded file, beside the graph as the file has it."""

    @cache
    def facts(name: str) -> Facts:
        evidence = evidence_of(open_capture(recorded / "captures" / name))
        written = savedmodel.load_saved_model(recorded / name).graph if "." not in name else evidence.traced
        return Facts(replace(evidence, traced=written))

    return facts


FILES = ("output.pb", "softmax_2.pb", "y.pb", "alone.pb", "output", "y", "output.meta", "y.meta")
WITH_BOTH = ("read_first.pb", "two_results.pb", "read_later.pb")


@pytest.mark.tf
@pytest.mark.parametrize("name", [*FILES, *WITH_BOTH])
def test_the_time_of_a_graph_file_is_joined_to_what_was_written(facts_of, name):
    facts = facts_of(name)
    assert facts(quality).join_rate is not None
    assert facts(quality).join_rate >= GOOD_JOIN_RATE


@pytest.mark.tf
@pytest.mark.parametrize("name", WITH_BOTH)
def test_a_graph_that_holds_both_names_has_each_op_joined_to_itself(facts_of, name):
    """The three graphs run their ops under three sets of names; by type it is plain which op each is."""
    facts = facts_of(name)
    for written, kind in (("output", {"MatMul", "Tanh"}), ("output_0", {"MatMul", "Softmax"})):
        own = facts(traced_graph).op(written).type
        assert own in kind
        assert facts(judged_graph).op(facts(executed_by)[written]).type.endswith(own)


@pytest.mark.tf
def test_the_shapes_of_a_renamed_op_are_those_that_it_was_written_with(facts_of):
    facts = facts_of("two_results.pb")
    shapes = {name: str(facts(judged_graph).op(facts(executed_by)[name]).outputs[0]) for name in ("output", "output_0")}
    assert shapes == {"output": "float32[32,512]", "output_0": "float32[32,128]"}


@pytest.mark.tf
@pytest.mark.parametrize("name", [*FILES, *WITH_BOTH])
def test_what_the_rule_says_without_a_recorder_is_what_tensorflow_did(facts_of, name):
    """It says that it does not know where two ops compete for a name, and never anything else than TensorFlow."""
    evidence = facts_of(name).evidence
    by_rule = renamed_ops(replace(evidence, renamed=None))
    known = {ran: written for ran, written in by_rule.items() if written is not None}
    assert evidence.renamed.items() >= known.items()
    assert ("output_0" in by_rule and by_rule["output_0"] is None) == (name in WITH_BOTH)
    assert name in WITH_BOTH or known


@pytest.mark.tf
def test_a_profile_that_somebody_else_recorded_is_joined_as_well(recorded):
    profile = foreign.read(sniff.identify(str(recorded / "profile")), str(recorded / "profile"))
    written = savedmodel.load_saved_model(recorded / "output").graph
    facts = Facts(foreign.joined(Evidence(sketch("x = Const()").target, traced=written), profile))
    assert facts(timings).get("output") is not None
    assert facts(attribution).op_types["output"].endswith("MatMul")


# -- without TensorFlow ---------------------------------------------------------------------------------------------


def test_arguments_take_names_away_from_ops_too():
    """TensorFlow's Python never makes `X` and `x` in one graph, since it compares without case; other writers do."""
    written = Facts(sketch("X = Placeholder()\nx = Relu(X)\ny = Tanh(x)"))(traced_graph)
    executed = Facts(sketch("x = _Arg()\nx_0 = Relu(x)\ny_0 = Tanh(x_0)"))(traced_graph)
    found = resolve(executed, written, {"x": "X", "x_0": "x", "y_0": "y"})
    assert found == {"x": ("X",), "x_0": ("x",), "y_0": ("y",)}


def test_what_a_rewrite_made_of_a_renamed_op_is_joined_to_it():
    written = Facts(sketch("x = Placeholder()\na = Relu(x)\ny = Tanh(a)"))(traced_graph)
    executed = Facts(sketch("x = _Arg()\ny_0/unary_ops_composition = _UnaryOpsComposition(x)"))(traced_graph)
    assert resolve(executed, written, {"y_0": "y"})["y_0/unary_ops_composition"] == ("a", "y")


def test_scopes_keep_their_names_when_the_op_of_that_name_does_not():
    assert list(as_written("output_0/MatMul", {"output_0": "output"})) == ["output_0/MatMul", "output/MatMul"]
    assert list(as_written("output/MatMul", {"output_0": "output"})) == ["output/MatMul"]


@pytest.mark.parametrize(
    "renamed", [{"output_0": "output", "output_0_0": "output_0"}, {"output_0": None}], ids=["recorded", "by rule"]
)
def test_a_name_that_means_two_ops_is_joined_to_neither_where_nobody_knows_how_it_was_run(renamed):
    """Run by a session `output_0` is itself, as a function it is `output`."""
    graph = Facts(sketch("x = Placeholder()\noutput = Relu(x)\noutput_0 = Tanh(x)"))(traced_graph)
    names = Names(graph, loosely=True, renamed=renamed)
    assert names.find("output_0", "Relu") is None
    assert names.find("output_0_0", "Tanh") == renamed.get("output_0_0")
    assert names.find("output", "Relu") == "output"


@pytest.mark.parametrize(
    ("name", "written"),
    [("output", "output"), ("a/B-c.1", "a_b_c_1"), ("_1x", "x"), ("12", "unknown"), ("Ä", "unknown")],
)
def test_names_of_results_are_written_as_tensorflow_writes_them(name, written):
    assert normalized(name) == written
