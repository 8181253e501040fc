"""`--assume-device` from the command line to the document: a SavedModel and a capture, with and without TensorFlow."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end import CAPTURES, analyze, assert_one_line, python

import graphlens
from graphlens.facts.placement import assigned_on_gpu, limits, netlist_of, place, table_for
from graphlens.ir.analysis import Document
from graphlens.ir.devices import Counterfactual
from graphlens.loaders.capture.parts import BEFORE_PLACER, MANIFEST
from graphlens.loaders.capture.reading import open_capture
from graphlens.loaders.graphdef import build_graph, parse_graph_def
from graphlens.pipeline import whatif

pytestmark = pytest.mark.tf

# A search model (words, a table, embeddings, constant weights that a capture does not keep, boxes without duplicates,
# one op put on the host by name) and an encoder of dense layers on rank 3 whose batch is open.
BUILD = """
import sys
import keras
import numpy as np
import tensorflow as tf

random = np.random.default_rng(0)

class Search(tf.Module):
    def __init__(self):
        words = tf.constant([f"word {number}" for number in range(50)])
        values = tf.lookup.KeyValueTensorInitializer(words, tf.constant(np.arange(50), tf.int64))
        self.table = tf.lookup.StaticHashTable(values, 0)
        self.embeddings = tf.Variable(random.normal(size=(50, 16)).astype("f"))

    @tf.function(input_signature=[tf.TensorSpec((None, 20), tf.string, name="text")])
    def __call__(self, text):
        means = tf.reduce_mean(tf.nn.embedding_lookup(self.embeddings, self.table.lookup(text)), 1)
        corners = means[:, :4] @ random.normal(size=(4, 64)).astype("f") @ random.normal(size=(64, 4)).astype("f")
        boxes = tf.concat([corners[:, :2], corners[:, :2] + tf.abs(corners[:, 2:])], 1)
        kept = tf.image.non_max_suppression(boxes, tf.reduce_sum(means, 1), 8, iou_threshold=0.4)
        with tf.device("CPU:0"):
            largest = tf.reduce_max(means)
        return {"boxes": tf.gather(boxes, kept), "largest": largest}

def encoder():
    layers, ops = keras.layers, keras.ops
    tokens = keras.Input((16,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 32)(tokens)
    query = layers.Dense(32)(x)
    key = layers.Dense(32)(layers.LayerNormalization()(x))
    value = layers.Dense(32)(layers.LayerNormalization()(x + query))
    weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    x = layers.LayerNormalization()(x + ops.matmul(weights, value))
    x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="gelu")(x)))
    model = keras.Model(tokens, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    function = tf.function(lambda tokens: {"scores": model(tokens, training=False)})
    module = tf.Module()
    module.model = model
    module.serve = function
    return module, function.get_concrete_function(tf.TensorSpec((None, 16), tf.int32, name="tokens"))

search = Search()
tf.saved_model.save(search, sys.argv[1] + "/search", signatures=search.__call__)
module, function = encoder()
tf.saved_model.save(module, sys.argv[1] + "/encoder", signatures=function)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SavedModels and a capture of each."""
    folder = tmp_path_factory.mktemp("placement")
    python("-c", BUILD, str(folder))
    for name in ("search", "encoder"):
        capture = str(folder / f"{name}.capture")
        python("-m", "graphlens", "record", str(folder / name), "-o", capture, "--batch", "8", "--steps", "3")
    return folder


@pytest.fixture(scope="module")
def predicted(models: Path) -> dict[str, Document]:
    """What is predicted from each capture for a machine with an A100."""
    return {
        name: graphlens.analyze(models / f"{name}.capture", assume_device="gpu").document
        for name in ("search", "encoder")
    }


def change(document: Document, wanted: str) -> Counterfactual:
    """The outcome of one change."""
    assert document.placement is not None
    return next(item for item in document.placement.counterfactuals if item.change == wanted)


def copied(capture: Path, to: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy a capture with one part changed."""
    with zipfile.ZipFile(capture) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(source.read(name)) if name == part else source.read(name))
    return to


# -- what is predicted ---------------------------------------------------------------------------------------------


def test_a_lookup_is_an_island_between_two_copies(predicted: dict[str, Document]) -> None:
    placement = predicted["search"].placement
    assert placement is not None
    assert (placement.device, placement.table, placement.stage, placement.origin) == (
        "A100", "2.21", "executed", "modelled",
    )  # fmt: skip
    islands = {tuple(name.rpartition("/")[2] for name in island.ops): island for island in placement.islands}
    assert {ops: (island.reason, island.copies) for ops, island in islands.items()} == {
        ("LookupTableFindV2",): ("string/resource op", 2),
        ("Max",): ("explicit device", 2),
    }
    assert all(op.why for op in placement.ops if op.device == "CPU:0")


def test_its_copies_have_the_bytes_of_the_run(predicted: dict[str, Document]) -> None:
    copies = [copy for copy in predicted["search"].copies if copy.origin == "modelled" and copy.bytes]
    sizes = {copy.src.rpartition("/")[2]: (copy.kind, copy.bytes) for copy in copies}
    assert sizes == {
        "LookupTableFindV2": ("host-to-device", 8 * 20 * 8),  # int64 ids of 8 rows of 20 words
        "iou_threshold": ("device-to-host", 4),
        "score_threshold": ("device-to-host", 4),
        "unknown_0": ("device-to-host", 8),  # the table's default value, an int64 that was made on the GPU
        "Mean": ("device-to-host", 8 * 16 * 4),
        "Max": ("host-to-device", 4),
    }
    reasons = {copy.reason for copy in copies}
    assert reasons == {"string/resource op", "int32/host-memory argument", "explicit device"}


def test_weights_that_a_capture_does_not_hold_are_not_folded_away(predicted: dict[str, Document]) -> None:
    placement = predicted["search"].placement
    assert placement is not None
    assert [op.op for op in placement.ops].count("MatMul") == 2


def test_what_changes_the_copies_of_a_lookup(predicted: dict[str, Document]) -> None:
    pinned, outside, moved = (
        change(predicted["search"], name) for name in ("pin-to-host", "lookup-outside", "move-device")
    )
    assert (pinned.before.device_to_host, pinned.after.device_to_host) == (4, 1)  # all but the op put on the host
    assert (outside.before.host_to_device, outside.after.host_to_device) == (2, 1)
    assert (moved.before.device_to_host, moved.after.device_to_host) == (4, 3)


def test_shape_arithmetic_of_dense_layers_crosses_fifteen_times(predicted: dict[str, Document]) -> None:
    placement = predicted["encoder"].placement
    assert placement is not None
    assert placement.copies.device_to_host == 15
    back = [copy for copy in predicted["encoder"].copies if copy.kind == "device-to-host"]
    assert {copy.reason for copy in back} == {"shape arithmetic"}
    for name in ("pin-to-host", "static-batch"):
        tried = change(predicted["encoder"], name)
        assert (tried.before.device_to_host, tried.after.device_to_host) == (15, 0), name
        assert tried.after.host_to_device < tried.before.host_to_device


def test_nothing_is_placed_on_a_device_without_a_kernel(models: Path) -> None:
    kernels = table_for("2.21")
    for name in ("search", "encoder"):
        graph = build_graph(parse_graph_def(open_capture(models / f"{name}.capture").part(BEFORE_PLACER), name))
        netlist = netlist_of(graph.main)
        placed = place(netlist, kernels, assigned_on_gpu(netlist))
        assert all(kernels.kernel(op, placed[op.name].device) for op in netlist.ops)


# -- what a capture holds, and what it takes -----------------------------------------------------------------------


def test_the_graph_before_placement_holds_no_weights(models: Path) -> None:
    capture = open_capture(models / "search.capture")
    assert BEFORE_PLACER in capture.names
    graph = parse_graph_def(capture.part(BEFORE_PLACER), BEFORE_PLACER)
    assert max(node.ByteSize() for node in graph.node) < 1024


def test_without_tensorflow_the_optimizer_is_missed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "_installed", lambda: None)
    document = graphlens.analyze(models / "encoder.capture", assume_device="gpu").document
    assert document.placement is not None
    assert document.placement.not_covered[0] == f"{limits.NO_OPTIMIZER} (TensorFlow is not installed here)"
    assert document.placement.stage == "executed"
    assert not document.placement.counterfactuals
    assert document.placement.copies.device_to_host >= 15


def test_a_capture_of_another_version_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    def older(data: bytes) -> bytes:
        return data.replace(b'"tensorflow": "2.21', b'"tensorflow": "2.19')

    other = copied(models / "search.capture", tmp_path / "old.capture", MANIFEST, older)
    outcome = analyze(other, "--assume-device", "gpu")
    assert outcome.code == 2
    assert_one_line(outcome)
    assert "TensorFlow 2.19" in outcome.err
    assert "2.21" in outcome.err


# -- the command line ----------------------------------------------------------------------------------------------


def test_a_saved_model_is_executed_and_placed(models: Path, tmp_path: Path) -> None:
    outcome = analyze(
        models / "search", "--assume-device", "gpu:T4", "--batch", 8, "--steps", 3, "-o", "r.json", cwd=tmp_path
    )
    assert outcome.code == 0, outcome.err
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["placement"]["device"] == "T4"
    assert document["placement"]["copies"]["host_to_device"] == 2
    assert document["step"]["n"] == 3


def test_static_places_the_graph_as_written_and_says_what_that_loses(models: Path, tmp_path: Path) -> None:
    outcome = analyze(models / "search", "--assume-device", "gpu", "--static", "-o", "r.json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    placement: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())["placement"]
    assert placement["stage"] == "traced"
    assert placement["copies"]["host_to_device"] == 2
    assert {limits.NOT_LOWERED, limits.NO_OPTIMIZER, limits.NOT_EXECUTED} <= set(placement["not_covered"])


@pytest.mark.parametrize("device", ["tpu", "gpu:K80"])
def test_an_unknown_device_is_refused_before_any_work(tmp_path: Path, device: str) -> None:
    outcome = analyze("no/such/model", "--assume-device", device, cwd=tmp_path)
    assert outcome.code == 2
    assert_one_line(outcome)
    assert "gpu:A100" in outcome.err


def test_a_capture_without_that_graph_is_placed_as_written() -> None:
    document = graphlens.analyze(CAPTURES / "while_if.capture", assume_device="gpu").document
    placement = document.placement
    assert placement is not None
    assert placement.stage == "traced"
    assert limits.NOT_LOWERED in placement.not_covered
    assert limits.NOT_EXECUTED not in placement.not_covered  # the capture says sizes and iterations


def test_a_strangers_graph_that_touches_files_is_not_shown_to_grappler(models: Path, tmp_path: Path) -> None:
    def with_a_file(data: bytes) -> bytes:
        graph = parse_graph_def(data, BEFORE_PLACER)
        graph.node.add(name="read", op="ReadFile", input=["text"])
        return bytes(graph.SerializeToString())

    changed = copied(models / "search.capture", tmp_path / "strange.capture", BEFORE_PLACER, with_a_file)
    placement = graphlens.analyze(changed, assume_device="gpu").document.placement
    assert placement is not None
    assert "ReadFile reads files" in placement.not_covered[0]
    assert not placement.counterfactuals
