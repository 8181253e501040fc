"""Model files that try to get out when TensorFlow opens or runs them: none does without ``--trust``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end import Outcome, analyze, python

from graphlens.children.messages import RecordRequest
from graphlens.children.recorder import start_recorder
from graphlens.cli import main
from graphlens.ir import unsafe
from graphlens.loaders import savedmodel

pytestmark = pytest.mark.tf

BUILD = r'''
import sys
from pathlib import Path
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

v1 = tf.compat.v1
out = Path(sys.argv[1])
X = tf.TensorSpec([1, 8], tf.float32, name="x")
MARK = str(out / "it_ran")


def changed(name, change):
    """Change the file of a SavedModel by hand."""
    file = out / name / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())


class TwoSignatures(tf.Module):
    def __init__(self):
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1.0]))
        self.table = tf.lookup.StaticHashTable(initializer, 0.0)

    @tf.function(input_signature=[X])
    def good(self, x):
        return {"o": tf.nn.relu(x) + self.table.lookup(tf.constant("a"))}

    @tf.function(input_signature=[X])
    def evil(self, x):
        with tf.control_dependencies([tf.io.write_file(MARK, "hi")]):
            return {"o": tf.nn.relu(x)}

    @tf.function(input_signature=[])
    def evil_initializer(self):
        tf.io.write_file(MARK, "hi")
        return tf.constant(1)


def swapped_signature(model):
    for node in model.meta_graphs[0].object_graph_def.nodes:
        children = {child.local_name: child for child in node.children}
        if {"serving_default", "evil"} <= set(children) and len(children) == 3:
            children["serving_default"].node_id = children["evil"].node_id


def swapped_initializer(model):
    nodes = model.meta_graphs[0].object_graph_def.nodes
    names = {i: node.bare_concrete_function.concrete_function_name for i, node in enumerate(nodes)}
    evil = next(i for i, name in names.items() if "evil_initializer" in name)
    for node in nodes:
        for child in node.children:
            if child.local_name == "_initialize":
                child.node_id = evil


module = TwoSignatures()
signatures = {"serving_default": module.good, "evil": module.evil, "initializer": module.evil_initializer}
for name, change in (("harmless", lambda _: None), ("signature", swapped_signature), ("init", swapped_initializer)):
    tf.saved_model.save(module, str(out / name), signatures=signatures)
    changed(name, change)


def writes(i):
    with tf.control_dependencies([tf.io.write_file(MARK, "hi")]):
        return tf.cast(i, tf.float32)


hidden = tf.data.Dataset.range(1).map(writes)._as_serialized_graph().numpy()


class Hidden(tf.Module):
    @tf.function(input_signature=[X])
    def f(self, x):
        dataset = tf.raw_ops.DatasetFromGraph(graph_def=tf.constant(hidden))
        element = tf.raw_ops.DatasetToSingleElement(dataset=dataset, output_types=[tf.float32], output_shapes=[[]])
        return {"o": tf.nn.relu(x) + element[0]}


module = Hidden()
tf.saved_model.save(module, str(out / "dataset"), signatures=module.f)

# TensorFlow 1: one graph for two tags, and one whose restoring waits for more than variables.
for name, tags in (("tags", (["serve"], ["serve", "gpu"])), ("restore", (["serve"],))):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [1, 8], "x")
        y = tf.nn.relu(x + v1.get_variable("v", [8], use_resource=True), name="y")
        v1.io.write_file(MARK, "hi", name="evil")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(out / name))
        signature = {"serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": y})}
        builder.add_meta_graph_and_variables(session, tags[0], signature_def_map=signature)
        for more in tags[1:]:
            builder.add_meta_graph(more, signature_def_map=signature)
        builder.save()


def restores_more(model):
    meta = model.meta_graphs[0]
    for node in meta.graph_def.node:
        if node.name == meta.saver_def.restore_op_name:
            node.input.append("^evil")


changed("restore", restores_more)

with tf.Graph().as_default() as graph:
    x = v1.placeholder(tf.float32, [1, 8], "x")
    y = tf.nn.relu(x, name="größe/y".replace("ö", "o").replace("ß", "ss"))
    plain = graph.as_graph_def()
    name = v1.placeholder_with_default(tf.constant(MARK), [])
    one = tf.constant(["a"])
    tf.raw_ops.SaveV2(prefix=name, tensor_names=one, shape_and_slices=tf.constant([""]), tensors=[y], name="save")
    (out / "saves.pb").write_bytes(graph.as_graph_def().SerializeToString())
(out / "textual.pb").write_text(text_format.MessageToString(plain), encoding="utf-8")
(out / "binary.pbtxt").write_bytes(plain.SerializeToString())
'''


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unsafe")
    python("-c", BUILD, str(folder))
    assert not (folder / "it_ran").exists()
    return folder


def short(models: Path, name: str, *options: str) -> Outcome:
    return analyze(models / name, "--no-prove", "--steps", 2, *options)


REFUSED = {
    "signature": "WriteFile writes files",
    "init": "WriteFile writes files",
    "dataset": "DatasetFromGraph runs a program that stands in data",
    "restore": "WriteFile writes files",
    "saves.pb": "SaveV2 writes files",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_reaches_out_is_refused_and_nothing_of_it_has_run(models: Path, name: str) -> None:
    outcome = short(models, name)
    assert (outcome.code, REFUSED[name] in outcome.err) == (3, True), outcome
    assert list(models.glob("it_ran*")) == []


@pytest.mark.parametrize("name", ["harmless", "tags", "textual.pb", "binary.pbtxt"])
def test_a_file_that_only_looks_odd_is_executed(models: Path, name: str) -> None:
    """Functions that nobody calls may write; text may bear any name; a tag may be left out where one graph serves."""
    outcome = short(models, name)
    assert (outcome.code, outcome.err) == (0, "")
    assert list(models.glob("it_ran*")) == []


def test_the_graph_for_two_tags_is_opened_by_both(models: Path) -> None:
    assert short(models, "tags", "--tag", "gpu,serve").code == 0


@pytest.mark.parametrize("name", ["signature", "dataset", "saves.pb"])
def test_the_child_judges_what_it_is_going_to_run(models: Path, tmp_path: Path, name: str) -> None:
    """Even if the parent had seen nothing: the request is sent without it."""
    kind = "graph_def" if name.endswith(".pb") else "saved_model"
    child = start_recorder(tmp_path)
    child.send(RecordRequest(str(models / name), kind, steps=1))
    outcome = child.wait(time_limit_s=300)
    assert (outcome.returncode, outcome.message.startswith("not executed: op ")) == (3, True), outcome
    assert list(models.glob("it_ran*")) == []


def test_a_model_file_does_not_import_what_lies_beside_it(models: Path, tmp_path: Path) -> None:
    for module in ("tensorflow", "keras", "numpy", "networkx"):
        (tmp_path / f"{module}.py").write_text("open('it_ran', 'w')")
    script = "from graphlens.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    arguments = ["analyze", str(models / "harmless"), "--no-prove", "--steps", "2"]
    safe = "import sys; sys.path[:] = filter(None, sys.path); "  # the parent is started as its installed script is
    done = subprocess.run(
        [sys.executable, "-c", safe + script, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "it_ran").exists()


# -- Keras ------------------------------------------------------------------------------------------------------------

OLD_KERAS = """
import sys
import keras
from pathlib import Path
from graphlens.errors import GraphLensError
from graphlens.tf.open import targets

def load(*_, **__):
    raise ValueError("it was loaded")

keras.saving.load_model = load
keras.__version__ = sys.argv[1]
try:
    targets.open_target("m.keras", "keras", trust=sys.argv[2] == "trust")
except GraphLensError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("version", "trust", "message"),
    [
        ("3.11.2", "no", "not executed: Keras 3.11.2 may run code hidden in m.keras"),
        ("2.15.0", "no", "pip install 'keras>=3.11.3'), or pass --trust"),
        ("3.11.2", "trust", "it was loaded"),
        ("3.11.3", "no", "it was loaded"),
        ("3.12.0rc1", "no", "it was loaded"),
    ],
)
def test_a_keras_without_a_reliable_safe_mode_does_not_read_files(version: str, trust: str, message: str) -> None:
    assert message in python("-c", OLD_KERAS, version, trust)


# -- copies of old models ---------------------------------------------------------------------------------------------

COPY = """
import os, sys
from pathlib import Path
from graphlens.tf.open import retired

def refuse(*_):
    raise OSError("a privilege is missing")

os.symlink = refuse
source, target = map(Path, sys.argv[1:])
for part in source.iterdir():
    retired._link(part, target / part.name)
"""


def test_where_links_need_a_privilege_parts_are_copied(tmp_path: Path) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "variables" / "data").write_text("weights")
    (tmp_path / "model" / "fingerprint.pb").write_text("mark")
    (tmp_path / "copy").mkdir()
    python("-c", COPY, str(tmp_path / "model"), str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "variables" / "data").read_text() == "weights"
    assert (tmp_path / "copy" / "fingerprint.pb").read_text() == "mark"


# -- all ops of TensorFlow --------------------------------------------------------------------------------------------

LIST_OPS = """
import json
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

listed = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
print(json.dumps({op.name: [part.name for part in (*op.input_arg, *op.attr)] for op in listed.op}))
"""
TELLING = re.compile(r"file|path|graph_def|serialized|descriptor|url|address|uri")

# Ops with a telling name that are judged by their attributes or inputs, or were read and found to stay inside.
CONDITIONAL = """CacheDataset CacheDatasetV2 DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount
    DebugNumericSummary DecodeProtoV2 EncodeProto FixedUnigramCandidateSampler InitializeTableFromTextFile
    InitializeTableFromTextFileV2 Restore RestoreSlice RestoreV2 TensorSliceDataset"""
INSIDE = """BoostedTreesCreateEnsemble BoostedTreesDeserializeEnsemble CTCBeamSearchDecoder DeserializeManySparse
    DeserializeSparse OptionsDataset ParseExample ParseExampleV2 ParseSequenceExample ParseSequenceExampleV2
    ParseSingleExample ParseSingleSequenceExample ParseTensor ShardedFilename ShardedFilespec TensorSummaryV2"""


def test_every_op_that_could_take_a_file_a_graph_or_an_address_was_reviewed() -> None:
    """A new TensorFlow brings new ops: those in the message have to be read, and listed here or in `ir/unsafe.py`."""
    ops = json.loads(python("-c", LIST_OPS))
    telling = {name for name, parts in ops.items() if any(map(TELLING.search, parts))}
    always = {name for name in telling if unsafe._reason_of_type(name)}
    assert telling - always - {*CONDITIONAL.split(), *INSIDE.split()} == set()
    assert always & {*CONDITIONAL.split(), *INSIDE.split()} == set()


def test_a_capture_of_a_refused_file_is_not_written(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", str(models / "signature"), "-o", str(tmp_path / "out.capture")]) == 3
    assert list(tmp_path.iterdir()) == []
    assert savedmodel.load_saved_model(models / "signature").traced_root != ""
