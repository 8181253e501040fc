"""Targets are told apart by content, and everything else is refused with one clear line."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from load_helpers import graph_def
from real_inputs import REAL
from tensorboard.compat.proto import config_pb2, meta_graph_pb2

from graphlens.errors import TargetError, UsageError
from graphlens.loaders import profiles, savedmodel
from graphlens.loaders.arrays import read_npz
from graphlens.loaders.capture import reading
from graphlens.loaders.sniff import READS, identify

BAD = Path(__file__).parents[1] / "fixtures" / "bad"
EXPECTED = json.loads((BAD / "expected.json").read_text())
LOADERS = {
    "saved_model": savedmodel.load_saved_model,
    "graph_def": savedmodel.load_graph_def,
    "meta_graph": savedmodel.load_meta_graph,
    "capture": reading.open_capture,
    "timeline": lambda path: profiles.read_recorded(path, "timeline"),
}


def identify_and_load(path):
    found = identify(path)
    return LOADERS[found.kind](found.path)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_bad_files_are_refused_with_their_message(name):
    with pytest.raises(TargetError) as refusal:
        identify_and_load(BAD / name)
    message = str(refusal.value)
    assert EXPECTED[name] in message
    assert name in message
    assert "\n" not in message


def test_every_bad_file_has_an_expected_message():
    assert {path.name for path in BAD.iterdir()} - {"expected.json"} == set(EXPECTED)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345678\n"


@pytest.mark.parametrize(
    "name", ["m.pb", "m.pbtxt", "m.keras", "m.h5", "m.capture", "m.xplane.pb", "m.json", "m/saved_model.pb"]
)
def test_a_pointer_of_git_lfs_is_called_one_whatever_its_name(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(POINTER)
    with pytest.raises(TargetError) as refusal:
        identify_and_load(tmp_path / name.partition("/")[0])
    said = f"'{file}' is a Git LFS pointer, not the file (11.8 MiB) that it stands for; fetch that with: git lfs pull"
    assert str(refusal.value) == said


def test_arrays_to_feed_may_be_a_pointer_too(tmp_path):
    (tmp_path / "x.npz").write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"x\.npz is a Git LFS pointer.*git lfs pull"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("url", "how"),
    [
        ("gs://bucket/model", "`gcloud storage cp --recursive gs://bucket/model .`"),
        ("s3://bucket/my model", "`aws s3 cp --recursive 's3://bucket/my model' DIR`"),
        ("https://host/m.keras", "download it"),
    ],
)
def test_a_target_that_lies_elsewhere_is_told_how_to_come_here(url, how):
    with pytest.raises(TargetError, match="is not on this machine") as refusal:
        identify(url)
    assert how in str(refusal.value)


DIRECTORY = b"PK\x01\x02"
# Offset in the directory's entry -> what is written there.
WRONG_ENTRIES = {
    "a version that nobody knows": (6, b"\x63"),
    "a compression that nobody knows": (10, b"\x61"),
    "encrypted content": (8, b"\x01"),
    "a name in no encoding": (9, b"\x08"),
    "an offset beyond the end": (42, b"\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize(("offset", "wrong"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_an_archive_that_pythons_reader_does_not_take_is_refused_in_one_line(tmp_path, offset, wrong):
    file = tmp_path / "some.capture"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("capture.json", '{"schema_version": 2}')
        archive.writestr("\xe4", "")
    content = bytearray(file.read_bytes())
    entries = [at for at in range(len(content)) if content.startswith(DIRECTORY, at)]
    for at in entries:
        content[at + offset : at + offset + len(wrong)] = wrong
        content[at + 46 : at + 47] = b"\xff" if offset == 9 else content[at + 46 : at + 47]
    file.write_bytes(content)
    with pytest.raises(TargetError, match=r"some\.capture' is .*damaged") as refusal:
        identify_and_load(file)
    assert "\n" not in str(refusal.value)


def test_an_empty_folder_and_a_missing_path(tmp_path):
    with pytest.raises(TargetError, match="is an empty folder"):
        identify(tmp_path)
    with pytest.raises(TargetError, match="does not exist"):
        identify(tmp_path / "nowhere.pb")
    with pytest.raises(TargetError, match="no target was given"):
        identify("")


def test_refusals_say_what_is_read(tmp_path):
    with pytest.raises(TargetError) as refusal:
        identify(tmp_path)
    assert READS in str(refusal.value)
    assert len(READS) < 80, "a refusal is one line of a terminal or two"


def test_a_folder_without_a_model_names_the_files_that_can_be_read(tmp_path):
    (tmp_path / "graph.pbtxt").write_text('node { name: "a" op: "NoOp" }')
    (tmp_path / "run_meta").write_bytes(b"\x0a\x08\x0a\x06\x0a\x04/dev")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "model.py").write_text("x = 1")
    with pytest.raises(TargetError, match=r"name a file in it: graph\.pbtxt, run_meta$"):
        identify(tmp_path)


@pytest.mark.parametrize("text", ["package.module:make", "model:build", "a.b:C.method"])
def test_a_callable_is_a_name_that_no_path_has(text):
    assert identify(text).kind == "callable"


@pytest.mark.parametrize("text", ["package.module", "a/b:c", "a:b:c", "C:\\models\\x"])
def test_other_names_are_missing_paths(text):
    with pytest.raises(TargetError, match="does not exist"):
        identify(text)


@pytest.fixture
def folder(tmp_path):
    """A folder with one file per kind, under names that say nothing."""
    graph = graph_def(("a", "Placeholder", ()), ("b", "Relu", ("a",)))
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    (tmp_path / "graph").write_bytes(graph.SerializeToString())
    (tmp_path / "graph_text").write_text('# a comment\nnode { name: "a" op: "b" }')
    (tmp_path / "meta").write_bytes(meta.SerializeToString())
    (tmp_path / "h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(10))
    (tmp_path / "script.py").write_text("print('hello')\n")
    (tmp_path / "result").write_text('{"schema_version": 1, "graphlens_version": "0.1"}')
    for name, member in (("keras", "config.json"), ("packed", "capture.json")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "{}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("graph", "graph_def"),
        ("graph_text", "graph_def"),
        ("meta", "meta_graph"),
        ("h5", "keras"),
        ("keras", "keras"),
        ("packed", "capture"),
        ("script.py", "script"),
        ("result", "analysis"),
    ],
)
def test_content_decides(folder, name, kind):
    assert identify(folder / name) == (kind, folder / name)


def test_a_capture_folder_is_a_capture(tmp_path):
    (tmp_path / "capture.json").write_text("{}")
    assert identify(tmp_path) == ("capture", tmp_path)


def test_run_metadata_and_step_stats_are_not_taken_for_a_graph(tmp_path):
    """All start with a nested message, but no node is named like a device."""
    metadata = config_pb2.RunMetadata()
    metadata.step_stats.dev_stats.add(device="/device:CPU:0").node_stats.add(node_name="x")
    (tmp_path / "run_meta").write_bytes(metadata.SerializeToString())
    (tmp_path / "step_stats").write_bytes(metadata.step_stats.SerializeToString())
    assert identify(tmp_path / "run_meta").kind == "run_metadata"
    assert identify(tmp_path / "step_stats").kind == "run_metadata"


def test_a_trace_may_be_compressed(tmp_path):
    with gzip.open(tmp_path / "trace.json.gz", "wb") as file:
        file.write(b'{"displayTimeUnit": "ns", "traceEvents": []}')
    assert identify(tmp_path / "trace.json.gz") == ("timeline", tmp_path / "trace.json.gz")


def test_a_folder_of_profiles_is_one(tmp_path):
    run = tmp_path / "plugins" / "profile" / "2026_01_01_00_00_00"
    run.mkdir(parents=True)
    (run / "worker.trace.json.gz").touch()
    assert identify(tmp_path) == ("timeline", tmp_path)
    (run / "worker.xplane.pb").touch()
    assert identify(tmp_path) == ("xplane", tmp_path)


def test_a_log_folder_without_a_profile_says_that_it_has_none(tmp_path):
    (tmp_path / "plugins" / "profile" / "2026_01_01_00_00_00").mkdir(parents=True)
    with pytest.raises(TargetError, match=r"no saved_model\.pb and no profile \(\*\.xplane\.pb\)"):
        identify(tmp_path)


TOOL_FILES = {
    "overview_page.pb": ("overview_page_pb2", "OverviewPage"),
    "input_pipeline.pb": ("input_pipeline_pb2", "InputPipelineAnalysisResult"),
    "worker.op_stats.pb": ("op_stats_pb2", "OpStats"),
    "kernel_stats.pb": ("kernel_stats_pb2", "KernelStatsDb"),
    "memory_profile.pb": ("memory_profile_pb2", "MemoryProfile"),
    "tf_stats.pb": ("tf_stats_pb2", "TfStatsDatabase"),
}


def filled(message, depth=0):
    """Set every field of a message to something, so that none is missing when it is told apart."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            something = {field.CPPTYPE_STRING: "some", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
            something = b"some" if field.type == field.TYPE_BYTES else something
            message.MergeFrom(type(message)(**{field.name: [something] if hasattr(value, "append") else something}))
        elif depth < 3 and not field.message_type.GetOptions().map_entry:
            value = value.add() if hasattr(value, "add") else value
            value.SetInParent()
            filled(value, depth + 1)
    return message


@pytest.mark.parametrize("name", sorted(TOOL_FILES))
@pytest.mark.parametrize("full", [False, True])
def test_what_a_tool_made_of_a_profile_is_refused_in_one_line(tmp_path, name, full):
    module, kind = TOOL_FILES[name]
    message = getattr(pytest.importorskip(f"xprof.protobuf.{module}"), kind)()
    data = filled(message).SerializeToString() if full else b"\x32\x02\x08\x01"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TargetError, match="is what a tool made of a profile; pass the") as refusal:
        identify(tmp_path / name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "kind", "place"),
    [
        ("basic_pitch_savedmodel", "saved_model", "basic_pitch_savedmodel"),
        ("basic_pitch_savedmodel/saved_model.pb", "saved_model", "basic_pitch_savedmodel"),
        ("half_plus_two_gpu_savedmodel", "saved_model", "half_plus_two_gpu_savedmodel/00000123"),
        ("keras_imagenet_gpu.pbtxt", "graph_def", "keras_imagenet_gpu.pbtxt"),
        ("gpu_run_metadata/graph.pbtxt", "graph_def", "gpu_run_metadata/graph.pbtxt"),
        ("gpu_bert_8xV100.xplane.pb", "xplane", "gpu_bert_8xV100.xplane.pb"),
        ("gpu_run_metadata/run_meta", "run_metadata", "gpu_run_metadata/run_meta"),
        ("kittibox_gpu.timeline.json", "timeline", "kittibox_gpu.timeline.json"),
    ],
)
def test_real_inputs(path, kind, place):
    assert identify(REAL / path) == (kind, REAL / place)


def test_a_corrupt_profile_is_refused_in_one_line():
    with pytest.raises(TargetError, match="is damaged or no TensorFlow file") as refusal:
        identify(REAL / "malformed/corrupt_tpu.xplane.pb")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.9999])
def test_a_model_cut_anywhere_is_refused_in_one_line(tmp_path, share):
    whole = (REAL / "basic_pitch_savedmodel/saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(TargetError) as refusal:
        savedmodel.load_saved_model(identify(tmp_path).path)
    assert "\n" not in str(refusal.value)


def test_several_versions_in_a_folder_ask_for_one(tmp_path):
    source = REAL / "half_plus_two_gpu_savedmodel/00000123"
    for version in ("1", "2"):
        shutil.copytree(source, tmp_path / version)
    with pytest.raises(TargetError, match=r"several SavedModels \(1, 2\)"):
        identify(tmp_path)
