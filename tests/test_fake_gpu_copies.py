"""Copies of a machine with a GPU: what the analysis says of them is what the raw partitions and the raw profile hold.

They were recorded on the fake GPU, some now and some before (`fixtures/fake_gpu/README.md`): their times mean nothing,
their counts do.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from end_to_end import REPOSITORY, analyze, python
from placed import Sent, copied, sent_between
from tensorboard.compat.proto import graph_pb2

from graphlens.api import load
from graphlens.ir.analysis import Document

CAPTURES = sorted((Path(__file__).parents[1] / "fixtures" / "fake_gpu").glob("*.capture"))
BUS = {"host-to-device", "device-to-host"}

every_capture = pytest.mark.parametrize("path", CAPTURES, ids=[path.stem for path in CAPTURES])
named = {path.stem: path for path in CAPTURES}


@cache
def judged(path: Path) -> Document:
    return load(path).document


def part(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def really_sent(path: Path) -> list[Sent]:
    """The sends and receives in the executed graphs, by a walk of their raw messages."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("executed/")]
    return sent_between(graph_pb2.GraphDef.FromString(part(path, name)) for name in names)


def crossings(analysis: Document) -> Counter[tuple[str, ...]]:
    """The copies of an analysis, as the raw messages name them."""
    return Counter((copy.src, side(copy.src_device), side(copy.dst_device), str(copy.kind)) for copy in analysis.copies)


def side(device: str) -> str:
    return device.rpartition("device:")[2].partition(":")[0]


def test_there_are_captures() -> None:
    assert set(named) == {"lookup", "loop", "transformer"}
    assert sum(path.stat().st_size for path in CAPTURES) < 300_000


@every_capture
def test_they_hold_no_weights(path: Path) -> None:
    assert max(len(part(path, name)) for name in ("traced.pb", "optimized.pb")) < 40_000


@every_capture
def test_every_send_is_a_copy_and_nothing_else_is(path: Path) -> None:
    check_sends(path)


def check_sends(path: Path) -> None:
    assert crossings(judged(path)) == Counter(
        (item.src, item.src_device, item.dst_device, item.kind) for item in really_sent(path)
    )


@every_capture
def test_every_memcpy_event_belongs_to_the_copy_that_its_annotation_names(path: Path) -> None:
    check_events(path)


def check_events(path: Path) -> None:
    ran = copied(part(path, "profile.xplane.pb"))
    events: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for copy in judged(path).copies:
        if copy.kind in BUS:
            events[copy.kind, copy.src] += copy.events
            sizes[copy.kind, copy.src] += copy.event_bytes or 0
    assert events == ran.events
    assert sizes == ran.bytes


@every_capture
def test_the_device_is_there_with_what_ran_on_it(path: Path) -> None:
    (device,) = (row for row in judged(path).devices if row.kind == "GPU")
    ran = copied(part(path, "profile.xplane.pb"))
    assert (device.copies, device.copy_bytes) == (ran.events.total(), ran.bytes.total())
    assert device.kernels > 0


def told(name: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The copies over the bus, with what a user wants to know of each."""
    copies = [copy for copy in judged(named[name]).copies if copy.kind in BUS]
    return {(copy.src, copy.kind or ""): (copy.bytes, copy.calls_per_step, copy.reason) for copy in copies}


def test_the_table_is_on_the_host_and_the_embedding_is_not() -> None:
    assert told("lookup") == {
        # 32×20 words become ids of eight bytes
        ("None_Lookup/LookupTableFindV2", "host-to-device"): (5120, 1.0, "string/resource op"),
        ("none_lookup_lookuptablefindv2_default_value", "device-to-host"): (8, 1.0, "string/resource op"),
        ("non_max_suppression/iou_threshold", "device-to-host"): (4, 1.0, "int32/host-memory argument"),
        ("non_max_suppression/score_threshold", "device-to-host"): (4, 1.0, "int32/host-memory argument"),
    }


def test_a_branch_in_a_loop_is_decided_on_the_host_in_every_iteration() -> None:
    assert told("loop") == {("while/body/_1/while/Greater", "device-to-host"): (1, 3.0, "int32/host-memory argument")}


def test_a_dynamic_shape_is_computed_on_both_sides_of_the_bus() -> None:
    reasons = Counter(reason for _, _, reason in told("transformer").values())
    assert reasons["shape arithmetic"] == 8
    assert reasons["feed"] == 1
    assert all(calls == 1.0 for _, calls, _ in told("transformer").values())


# -- a SavedModel, on a machine that lists a GPU -------------------------------------------------------------------


@pytest.fixture
def with_gpu(fake_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that is started finds the fake GPU: TensorFlow itself looks for this."""
    monkeypatch.setenv("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", str(fake_gpu))


@pytest.mark.tf
@pytest.mark.usefixtures("with_gpu")
def test_a_saved_model_is_recorded_with_its_copies(small_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "while_if.capture"
    python("-m", "graphlens", "record", str(small_models / "while_if"), "-o", str(path))
    check_sends(path)
    check_events(path)
    assert {op.device for op in judged(path).ops if op.executed_as == "LookupTableFindV2"} == {device("CPU:0")}


@pytest.mark.tf
@pytest.mark.usefixtures("with_gpu")
def test_analyze_says_what_crosses_the_bus_and_why(small_models: Path, tmp_path: Path) -> None:
    outcome = analyze(small_models / "while_if", "-o", tmp_path / "while_if.json")
    assert outcome.code == 0, outcome.err
    assert "GPU:0" in outcome.out
    found = {copy.src: copy for copy in load(tmp_path / "while_if.json").document.copies if copy.kind in BUS}
    assert {copy.kind for copy in found.values()} == BUS
    (ids,) = (copy for name, copy in found.items() if name.endswith("LookupTableFindV2"))
    assert (ids.kind, ids.reason, ids.calls_per_step) == ("host-to-device", "string/resource op", 1.0)


@pytest.mark.tf
@pytest.mark.usefixtures("with_gpu")
def test_a_network_that_runs_on_the_gpu_alone_has_no_copies(small_models: Path, tmp_path: Path) -> None:
    outcome = analyze(small_models / "tiny_cnn", "-o", tmp_path / "tiny_cnn.json")
    assert outcome.code == 0, outcome.err
    document = load(tmp_path / "tiny_cnn.json").document
    assert {op.device for op in document.ops if op.device} == {device("GPU:0")}
    assert document.copies == ()


def device(name: str) -> str:
    return f"/job:localhost/replica:0/task:0/device:{name}"


# -- predicted without it ------------------------------------------------------------------------------------------


@pytest.mark.tf
@pytest.mark.parametrize(
    "name", ["loop", *(pytest.param(name, marks=pytest.mark.heavy) for name in ("lookup", "transformer"))]
)
def test_copies_predicted_on_a_cpu_are_those_that_ran(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    result = tmp_path / "predicted.json"
    outcome = analyze(f"fake_gpu.models:{name}", "--assume-device", "gpu", "-o", result, cwd=REPOSITORY / "tests")
    assert outcome.code == 0, outcome.err
    predicted = [copy for copy in load(result).document.copies if copy.origin == "modelled" and copy.kind in BUS]
    assert {(copy.src, copy.kind, copy.bytes, copy.calls_per_step) for copy in predicted} == {
        (copy.src, copy.kind, copy.bytes, copy.calls_per_step)
        for copy in judged(named[name]).copies
        if copy.kind in BUS
    }
