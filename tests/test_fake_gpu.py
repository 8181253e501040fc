"""The fake GPU is a GPU to TensorFlow: it is listed, models are placed and run on it, and its copies are profiled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from end_to_end import python
from fake_gpu import build
from fake_gpu.run import MODELS, PLACED, PROFILED_STEPS, Run

from graphlens.loaders.schema import xspace

pytestmark = pytest.mark.tf

# cuDNN's recurrent ops, and a batch normalization fused with its activation, have no kernel on a CPU: they give zeros.
ZEROS = {"bilstm_train", "cnn"}


def test_tensorflow_lists_it_as_a_gpu(fake_gpu: Path) -> None:
    script = "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'), tf.test.is_built_with_cuda())"
    listed = python("-c", f"import os; os.environ['TF_PLUGGABLE_DEVICE_LIBRARY_PATH'] = {str(fake_gpu)!r}; {script}")
    assert "/physical_device:GPU:0" in listed
    assert "False" in listed, "the wheel has no GPU support of its own"


def test_it_is_compiled_once(fake_gpu: Path) -> None:
    before = fake_gpu.stat().st_mtime_ns
    assert build.library() == fake_gpu
    assert fake_gpu.stat().st_mtime_ns == before


def test_without_a_compiler_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(build.Unavailable, match="there is no gcc"):
        build.library()


@pytest.mark.parametrize("name", MODELS)
def test_models_run_on_it(on_fake_gpu: dict[str, Run], name: str) -> None:
    assert on_fake_gpu[name].report["error"] == ""
    graph = on_fake_gpu[name].graph(PLACED)
    assert any(node.device.endswith("GPU:0") for node in graph.node)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ZEROS])
def test_outputs_are_those_of_the_cpu(on_fake_gpu: dict[str, Run], on_cpu: dict[str, Run], name: str) -> None:
    assert on_cpu[name].report["error"] == ""
    for there, here in zip(on_fake_gpu[name].outputs, on_cpu[name].outputs, strict=True):
        if here.dtype.kind == "S":
            assert there.tolist() == here.tolist()
        else:
            np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


def test_the_lookup_stays_on_the_host_and_the_embedding_does_not(on_fake_gpu: dict[str, Run]) -> None:
    parts = on_fake_gpu["lookup"].partitions()
    assert set(parts) == {"CPU:0", "GPU:0"}
    device_of = {node.op: device for device, graph in parts.items() for node in graph.node}
    assert device_of["LookupTableFindV2"] == "CPU:0"
    assert device_of["ResourceGather"] == "GPU:0"


def test_copies_are_profiled_with_their_bytes_and_edges(on_fake_gpu: dict[str, Run]) -> None:
    space = xspace().FromString(on_fake_gpu["lookup"].profile.read_bytes())
    (plane,) = (plane for plane in space.planes if plane.name == "/device:GPU:0")
    (line,) = (line for line in plane.lines if line.name.endswith("(MemcpyH2D)"))
    names = {number: metadata.name for number, metadata in plane.stat_metadata.items()}
    copies = [{names[stat.metadata_id]: stat.str_value for stat in event.stats} for event in line.events]
    # 32×20 words become ids of 8 bytes each on the host, once a step.
    assert len(copies) == PROFILED_STEPS
    for copy in copies:
        assert copy["memcpy_details"] == "kind_src:pageable kind_dst:device size:5120 dest:0 async:1"
        assert "_Send#from=None_Lookup/LookupTableFindV2,to=embedding_lookup," in copy["annotation"]
