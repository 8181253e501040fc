"""Captures: one file or one folder gives the same evidence, and damage costs a part, not the whole."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
from load_helpers import add_function, graph_def
from test_load_xplane import HostPlane

from graphlens.errors import TargetError
from graphlens.ir.analysis import Target
from graphlens.ir.devices import Roof
from graphlens.ir.failure import AnalysisError
from graphlens.ir.graph import Variable
from graphlens.ir.nodes import Constant, TensorSpec
from graphlens.ir.run import ReplayRecord
from graphlens.loaders.binding import with_constants
from graphlens.loaders.capture import packing, reading
from graphlens.loaders.graphdef import build_reachable

HLO = """HloModule jitted, is_scheduled=true

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %neg = f32[2]{0} negate(%p), metadata={op_type="Neg" op_name="layer/Neg"}
}
"""
ROOF = {"flops_per_s": 2.1e11, "bytes_per_s": 4e10, "dtype": "float32", "threads": 2, "device": "CPU:0"}
WEIGHT = {"name": "dense/w", "dtype": "float32", "shape": [2], "trainable": True}


@pytest.fixture
def folder(tmp_path):
    """A complete capture folder."""
    place = tmp_path / "capture"
    (place / "executed").mkdir(parents=True)
    (place / "hlo").mkdir()
    traced = graph_def()
    add_function(traced, "root", [("neg", "Neg", ("x",))], args=("x",), results={"y": "neg:y:0"})
    executed = graph_def(("x", "_Arg", ()), ("neg", "Neg", ("x",)))
    (place / "traced.pb").write_bytes(traced.SerializeToString())
    (place / "optimized.pb").write_bytes(executed.SerializeToString())
    (place / "executed/0.pb").write_bytes(executed.SerializeToString())
    (place / "profile.xplane.pb").write_bytes(HostPlane().event("neg:Neg", 0, 5).space.SerializeToString())
    (place / "replay.json").write_text('{"neg": {"calls": 1, "durations_ns": [5, 6], "outputs": [["float32", [2]]]}}')
    (place / "hlo/0.txt").write_text(HLO)
    manifest = {
        "schema_version": 1,
        "graphlens_version": "0.1",
        "target": {"path": "model", "kind": "saved_model", "signature": "serve", "digest": "abc"},
        "environment": {"tensorflow": "2.21.0"},
        "traced_root": "root",
        "unprofiled_ns": [10, 11],
        "executed": ["executed/0.pb"],
        "executed_root_arguments": {"x": WEIGHT},
        "roof": ROOF,
        "notes": ["a note"],
        "errors": [{"stage": "replay", "message": "not possible"}],
        "training": False,
    }
    (place / "capture.json").write_text(json.dumps(manifest))
    return place


def change_manifest(folder, **changes):
    manifest = json.loads((folder / "capture.json").read_text())
    (folder / "capture.json").write_text(json.dumps({**manifest, **changes}))


def test_evidence_holds_every_part(folder):
    evidence = reading.evidence_of(reading.open_capture(folder))
    assert evidence.target == Target("model", "saved_model", "serve", "abc")
    assert evidence.traced.root == "root"
    assert set(evidence.optimized.main.graph) == {"x", "neg"}
    assert evidence.executed.main.captures == {"x": Variable("dense/w", TensorSpec("float32", (2,)), trainable=True)}
    assert [op.node for op in evidence.profile.ops] == ["neg"]
    assert evidence.unprofiled_ns == (10, 11)
    assert evidence.replay == {"neg": ReplayRecord("neg", 1, (5, 6), (("float32", (2,)),))}
    assert list(evidence.hlo) == ["jitted"]
    assert (evidence.training, evidence.static_reason, evidence.notes) == (False, None, ("a note",))
    assert evidence.errors == (AnalysisError("replay", "not possible"),)
    assert evidence.roof == Roof(2.1e11, 4e10, "float32", 2, "measured", "CPU:0")


def test_the_packed_file_says_the_same(folder, tmp_path):
    file = tmp_path / "model.capture"
    packing.write_capture(folder, file)
    packed, unpacked = (reading.evidence_of(reading.open_capture(path)) for path in (file, folder))
    assert packed.profile == unpacked.profile
    assert packed.replay == unpacked.replay
    assert set(packed.traced.main.graph) == set(unpacked.traced.main.graph)
    assert packed.errors == unpacked.errors


def test_packing_twice_gives_the_same_bytes_and_leaves_nothing_else(folder, tmp_path):
    first, second = tmp_path / "1.capture", tmp_path / "2.capture"
    packing.write_capture(folder, first)
    packing.write_capture(folder, second)
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "1.capture", "2.capture"}


def test_a_failed_write_leaves_nothing_behind(folder, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(TargetError):
        packing.write_capture(folder, tmp_path / "taken")
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "taken"}


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("traced.pb", "traced"),
        ("optimized.pb", "optimized"),
        ("executed/0.pb", "executed"),
        ("profile.xplane.pb", "profile"),
        ("replay.json", "replay"),
        ("hlo/0.txt", "hlo"),
    ],
)
def test_a_damaged_part_costs_that_part_only(folder, part, missing):
    (folder / part).write_bytes(b"\xff\xff\xff damaged")
    evidence = reading.evidence_of(reading.open_capture(folder))
    assert not getattr(evidence, missing)
    (error,) = [error for error in evidence.errors if error.stage == "read"]
    assert "\n" not in error.message
    others = {"traced", "optimized", "executed", "profile", "replay", "hlo"} - {missing}
    assert all(getattr(evidence, other) for other in others)


def test_a_part_that_the_manifest_promises_is_missed(folder):
    (folder / "executed/0.pb").unlink()
    evidence = reading.evidence_of(reading.open_capture(folder))
    assert evidence.executed is None
    assert any("has no part 'executed/0.pb'" in error.message for error in evidence.errors)


def test_parts_outside_of_the_capture_are_not_read(folder):
    (folder.parent / "secret.pb").write_bytes(graph_def(("a", "NoOp", ())).SerializeToString())
    change_manifest(folder, executed=["../secret.pb"])
    assert reading.evidence_of(reading.open_capture(folder)).executed is None


def test_what_was_not_executed_says_why(folder):
    change_manifest(folder, executed=[], errors=[{"stage": "execute", "message": "it crashed"}])
    assert reading.evidence_of(reading.open_capture(folder)).static_reason == "it crashed"


def test_a_version_of_the_future_is_refused(folder):
    change_manifest(folder, schema_version=3)
    with pytest.raises(TargetError, match=r"was written by a newer GraphLens .* update graphlens-tf"):
        reading.open_capture(folder)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("target", "x", "'target' in its capture.json is \"x\", expected object"),
        ("target", {"path": 3}, "'target.path' in its capture.json is 3, expected string"),
        ("environment", [1], "'environment' .* expected object"),
        ("traced_root", 7, "'traced_root' .* is 7, expected string"),
        ("unprofiled_ns", 5, "'unprofiled_ns' .* is 5, expected array"),
        ("unprofiled_ns", ["5"], r"'unprofiled_ns\[0\]' .* is \"5\", expected integer"),
        ("unprofiled_ns", [True], r"'unprofiled_ns\[0\]' .* is true, expected integer"),
        ("empty_call_ns", "many", "'empty_call_ns' .* is \"many\", expected integer"),
        ("empty_call_ns", 1.5, "'empty_call_ns' .* is 1.5, expected integer"),
        ("profiled_s", "1", "'profiled_s' .* expected number"),
        ("profiled_s", float("inf"), "'profiled_s' .* expected a finite number"),
        ("profiled_s", 10**400, "'profiled_s' .* expected a finite number"),
        ("profiled_s", -1, "'profiled_s' .* is -1, expected 0 or more"),
        ("stage_seconds", {"load": "1"}, "'stage_seconds.load' .* expected number"),
        ("stage_seconds", {"load": None}, "'stage_seconds.load' .* is null, expected number"),
        ("stage_seconds", {"load": -0.5}, "'stage_seconds.load' .* is -0.5, expected 0 or more"),
        ("executed", 1, "'executed' .* expected array"),
        ("executed", [1], r"'executed\[0\]' .* expected string"),
        ("executed_root_arguments", {"x": 1}, "'executed_root_arguments.x' .* expected object"),
        ("executed_root_arguments", {"x": {"shape": 2}}, "'executed_root_arguments.x.shape' .* expected array"),
        ("variables", [WEIGHT], "'variables' .* expected object"),
        ("variables", {"w": {**WEIGHT, "trainable": 1}}, "'variables.w.trainable' .* expected boolean"),
        ("inputs", [{"name": "x", "dtype": 3}], r"'inputs\[0\].dtype' .* expected string"),
        ("hosts", [{"name": "a"}], r"'hosts\[0\].profile' .* is missing"),
        ("notes", 1, "'notes' .* expected array"),
        ("errors", 1, "'errors' .* expected array"),
        ("errors", ["e"], r"'errors\[0\]' .* expected object"),
        ("training", "yes", "'training' .* expected boolean"),
        ("trust", 1, "'trust' .* expected boolean"),
        ("stages_done", 2, "'stages_done' .* expected array"),
        ("roof", 1e9, "'roof' .* expected object"),
        ("roof", {"flops_per_s": 1e9}, "'roof.bytes_per_s' .* is missing"),
        ("roof", {**ROOF, "bytes_per_s": 0}, "'roof.bytes_per_s' .* is 0, expected above 0"),
        ("roof", {**ROOF, "flops_per_s": float("nan")}, "'roof.flops_per_s' .* expected a finite number"),
        ("roof", {**ROOF, "threads": "2"}, "'roof.threads' .* expected integer"),
        ("roof", {**ROOF, "device": 0}, "'roof.device' .* expected string"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(folder, field, value, why):
    change_manifest(folder, **{field: value})
    with pytest.raises(TargetError, match=why) as caught:
        reading.open_capture(folder)
    assert str(caught.value).startswith(f"'{folder}' is damaged: ")
    assert "\n" not in str(caught.value)


def test_fields_that_a_newer_release_adds_are_left_out(folder):
    before = reading.open_capture(folder).manifest
    change_manifest(folder, invented={"a": 1}, target={"path": "model", "kind": "saved_model", "mood": "good"})
    assert replace(reading.open_capture(folder).manifest, target=before.target) == before


def test_every_field_may_be_absent_or_null(folder):
    (folder / "capture.json").write_text('{"schema_version": 1, "target": null, "notes": null, "executed": null}')
    assert reading.evidence_of(reading.open_capture(folder)).target == Target(str(folder), "capture", None, None)


def test_arguments_have_the_shapes_that_were_fed(folder):
    """A model leaves its batch open; what was fed says it, unless it cannot be that argument's."""
    graph = graph_def(("x", "_Arg", ()), ("neg", "Neg", ("x",)))
    shape = graph.node[0].attr["_output_shapes"].list.shape.add()
    for size in (-1, 2):
        shape.dim.add().size = size
    graph.node[0].attr["T"].type = 1
    (folder / "executed/0.pb").write_bytes(graph.SerializeToString())

    def argument(**fed):
        change_manifest(folder, executed_root_arguments={}, inputs=[{"name": "x", "dtype": "float32", **fed}])
        return reading.evidence_of(reading.open_capture(folder)).executed.main.graph.op("x").outputs

    assert argument(shape=[8, 2]) == (TensorSpec("float32", (8, 2)),)
    for other in ({"shape": [8, 3]}, {"shape": [8]}, {"shape": [8, 2], "dtype": "int32"}, {"shape": None}):
        assert argument(**other) == (TensorSpec("float32", (None, 2)),)


def test_durations_of_a_clock_that_stood_still_are_dropped(folder):
    change_manifest(folder, unprofiled_ns=[0, 7, -1, 0])
    assert reading.evidence_of(reading.open_capture(folder)).unprofiled_ns == (7,)


def test_a_small_archive_of_endless_zeros_is_not_unpacked(folder, tmp_path, monkeypatch):
    """One part, or all of them together, would unpack to more than a recording can be."""
    file = tmp_path / "bomb.capture"
    packing.write_capture(folder, file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hlo/9.txt", bytes(1 << 20))
    monkeypatch.setattr(reading, "MESSAGE_LIMIT_BYTES", 1 << 19)
    with pytest.raises(TargetError, match="which no recording leaves"):
        reading.open_capture(file)
    (folder / "hlo" / "9.txt").write_bytes(bytes(1 << 20))
    with pytest.raises(TargetError, match="which no recording leaves"):
        reading.open_capture(folder).part("hlo/9.txt")


def test_a_part_that_is_larger_than_it_says_is_refused(folder, tmp_path):
    file = tmp_path / "model.capture"
    packing.write_capture(folder, file)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo("capture.json").file_size.to_bytes(4, "little")
    content[:] = content.replace(size, (10).to_bytes(4, "little"))
    file.write_bytes(content)
    with pytest.raises(TargetError, match="is damaged"):
        reading.open_capture(file)


def test_an_archive_with_damaged_content_is_refused(folder, tmp_path):
    file = tmp_path / "model.capture"
    packing.write_capture(folder, file)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        offset = archive.getinfo("capture.json").header_offset
    content[offset + 45 : offset + 90] = bytes(45)
    file.write_bytes(content)
    with pytest.raises(TargetError, match="is damaged"):
        reading.open_capture(file)


def test_the_graph_from_the_file_replaces_what_was_traced(folder):
    message = graph_def()
    add_function(message, "wrapper", [("sum", "AddV2", ("w", "c"))], args=("w", "c"))
    variable = Variable("dense/w", TensorSpec("float32", (None, 2)), trainable=None)
    root = with_constants(build_reachable(message, "wrapper"), {"c": (TensorSpec("float32", (1000,)), Constant(4000))})
    packing.add_traced(folder, message.SerializeToString(), replace(root.main, captures={"w": variable}))
    traced = reading.evidence_of(reading.open_capture(folder)).traced
    assert (traced.root, set(traced.main.graph)) == ("wrapper", {"w", "c", "sum"})
    assert traced.main.captures == {"w": variable}
    assert traced.main.graph.op("c").constant is not None, "a captured tensor is told from an input"
    assert traced.main.graph.op("w").constant is None
