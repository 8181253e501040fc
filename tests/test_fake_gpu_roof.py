"""A recording on the fake GPU: the roof is that of the device on which the ops ran, and its kernels are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import graphlens

pytestmark = pytest.mark.tf
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def capture(fake_gpu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("recorded") / "gpu.capture"
    target = "fixtures.models:tiny_cnn_callable"
    env = {**os.environ, "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(fake_gpu), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", "graphlens", "record", target, "-o", str(output), "--steps", "6"]
    subprocess.run(command, check=True, cwd=ROOT, env=env, capture_output=True, timeout=300)
    return output


def test_the_roof_is_that_of_the_device_that_ran_the_ops(capture: Path) -> None:
    with zipfile.ZipFile(capture) as archive:
        manifest = json.loads(archive.read("capture.json"))
    assert manifest["errors"] == []
    assert (manifest["roof"]["device"], manifest["roof"]["threads"]) == ("GPU:0", None)


def test_ops_are_compared_by_their_kernels(capture: Path) -> None:
    document = graphlens.load(capture).document
    compared = {row.name: row for row in document.ops if row.roof_share is not None}
    assert any(row.op == "Conv2D" for row in compared.values())
    assert {row.timing for row in compared.values()} == {"kernel"}
    assert all((row.device or "").endswith("GPU:0") for row in compared.values())


def test_the_memory_is_the_devices(capture: Path) -> None:
    memory = graphlens.load(capture).document.memory
    assert memory is not None
    assert (memory.device, memory.unknown) == ("GPU:0", 0)


def test_a_gpu_of_unknown_generation_is_not_said_to_have_tensor_cores(capture: Path) -> None:
    (status,) = [one for one in graphlens.load(capture).document.rules if one.code == "GL502"]
    assert (status.status, status.why) == (
        "not-applicable",
        "no tensor cores are known of GPU:0 (compute capability unknown)",
    )
