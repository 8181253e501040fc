"""The recorder end to end on small models: what ran is in the capture, weights are not, and failures leave a capture.

One TensorFlow process (this one) serves the requests that the child would; what needs a process of its own gets one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from real_inputs import REAL
from tensorboard.compat.proto import graph_pb2

from graphlens.children.messages import Failure, RecordRequest
from graphlens.children.recorder import start_recorder
from graphlens.facts.core import Facts
from graphlens.facts.flat.scopes import layer_of
from graphlens.facts.programs.judged_program import programs_of
from graphlens.facts.work.memory import peak_memory
from graphlens.ir.capture import CapturedTarget
from graphlens.ir.settings import ONEDNN
from graphlens.loaders.capture.reading import evidence_of, open_capture

pytestmark = pytest.mark.tf

REPOSITORY = Path(__file__).parents[1]
STEPS = 6

# Ops that the profiler never shows: they cost nothing, or only start something.
SILENT = set(
    "Const _Arg _Retval NoOp Identity IdentityN Reshape Shape Squeeze ExpandDims StopGradient _Send _Recv Switch Merge "
    "Enter Exit NextIteration LoopCond PartitionedCall StatefulPartitionedCall VarHandleOp".split()
)


class Recording:
    """A capture directory as the tests ask about it."""

    def __init__(self, path: Path, code: int, messages: list[Any]) -> None:
        self.path = path
        self.code = code
        self.messages = messages
        self.manifest = json.loads((path / "capture.json").read_text())

    @property
    def error(self) -> str:
        return next((message.why for message in self.messages if isinstance(message, Failure)), "")

    def graph(self, name: str) -> Any:
        return graph_pb2.GraphDef.FromString((self.path / name).read_bytes())

    @property
    def executed(self) -> dict[str, str]:
        graphs = [self.graph(name) for name in self.manifest["executed"]]
        return {node.name: node.op for graph in graphs for node in graph.node}

    @property
    def replay(self) -> dict[str, Any]:
        return json.loads((self.path / "replay.json").read_text())

    def sees(self, node: str, op: str) -> bool:
        """Whether the profile names the event `node:op`; a search of bytes needs no reader of profiles."""
        return f"{node}:{op}".encode() in (self.path / "profile.xplane.pb").read_bytes()

    @property
    def coverage(self) -> float:
        expected = [(node, op) for node, op in self.executed.items() if op not in SILENT]
        return sum(self.sees(*one) for one in expected) / len(expected)

    def holds(self, content: bytes) -> list[str]:
        return [file.name for file in self.path.rglob("*") if file.is_file() and content in file.read_bytes()]


Recorder = Callable[..., Recording]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small fixture models."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from fixtures import models as build

    folder = tmp_path_factory.mktemp("models")
    for name in ("tiny_cnn", "lstm", *build.MODULES):
        build.write(name, folder / name)
    build.write("tiny_cnn", folder / "tiny.keras", "keras")
    build.write("tiny_cnn", folder / "tiny.pb", "graph_def")
    return folder


@pytest.fixture
def record(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Serve one request in this process."""
    from graphlens.tf.record import child

    monkeypatch.chdir(REPOSITORY)

    def serve(kind: str, target: str, **request: Any) -> Recording:
        path = target if kind == "callable" or target.startswith("/") else str(models / target)
        messages: list[Any] = []
        asked = RecordRequest(path, kind, **{"steps": STEPS, **request})
        code = child.serve(asked, tmp_path / "out", messages.append)
        return Recording(tmp_path / "out", code, messages)

    return serve


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_a_saved_model_is_measured_completely(record: Recorder) -> None:
    recording = record("saved_model", "tiny_cnn")
    assert recording.code == 0
    assert recording.manifest["stages_done"] == [
        "load",
        "trace",
        "graphs",
        "profile",
        "timing",
        "roof",
        "hlo",
        "replay",
    ]
    assert recording.manifest["errors"] == []
    assert recording.manifest["profiled_steps"] == STEPS
    assert len(recording.manifest["unprofiled_ns"]) == STEPS
    assert recording.manifest["target"]["signature"] == "serving_default"
    # The runtime inlines the signature's call, so its names are the call's path and the names in the file.
    assert recording.executed["StatefulPartitionedCall/tiny_1/conv_1/convolution"].endswith("Conv2D")


@pytest.mark.parametrize(("kind", "model"), [("saved_model", "tiny_cnn"), ("keras", "tiny.keras")])
def test_the_function_is_listed_under_the_name_that_the_profile_shows(record: Recorder, kind: str, model: str) -> None:
    """By it alone its runs are found among those of other programs."""
    recording = record(kind, model)
    (main,) = recording.manifest["programs"]
    assert (main["id"], main["main"]) == ("main", True)
    assert main["name"].startswith("__inference_")
    profile = evidence_of(open_capture(recording.path)).profile
    assert [program.name for program in programs_of(profile).all] == [main["name"]]


def test_the_roof_of_the_machine_is_measured_beside_the_model(record: Recorder) -> None:
    """Any machine that runs TensorFlow does 1 GFLOP/s and 100 MB/s, and none of today 100 PFLOP/s or 1 PB/s."""
    roof = record("saved_model", "tiny_cnn").manifest["roof"]
    assert 1e9 < roof["flops_per_s"] < 1e17
    assert 1e8 < roof["bytes_per_s"] < 1e15
    assert (roof["dtype"], roof["device"]) == ("float32", "CPU:0")
    assert 1 <= roof["threads"] <= (os.cpu_count() or 1)


def test_too_short_a_budget_has_no_time_for_the_roof(record: Recorder) -> None:
    recording = record("saved_model", "tiny_cnn", time_budget_s=5)
    assert recording.manifest["roof"] is None
    assert any("too short to measure what this machine can do" in note for note in recording.manifest["notes"])


def test_every_op_that_can_be_seen_is_seen(record: Recorder) -> None:
    assert record("saved_model", "tiny_cnn").coverage >= 0.95


def test_a_warm_function_is_seen_as_well_as_a_cold_one(models: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    from graphlens.tf.record import live

    weights = tf.Variable(tf.ones((8, 8)), name="weights")
    function = tf.function(lambda x: tf.nn.relu(tf.matmul(x, weights) * 2.0 + 1.0) / 3.0)
    for _ in range(300):  # after some 90 calls the runtime stops reporting ops this cheap
        function(tf.ones((4, 8)))
    live.record_callable(function, (tf.ones((4, 8)),), tmp_path / "out", steps=STEPS)
    assert Recording(tmp_path / "out", 0, []).coverage >= 0.95


def test_arguments_are_bound_to_their_variables(record: Recorder) -> None:
    recording = record("keras", "tiny.keras")
    executed = recording.manifest["executed_root_arguments"]
    assert set(executed) <= {name for name, op in recording.executed.items() if op == "_Arg"}
    assert {variable["name"] for variable in executed.values()} >= {"conv/kernel", "bn/moving_mean", "head/bias"}
    traced = recording.manifest["variables"]
    assert set(traced) <= {node.name for node in recording.graph("traced.pb").node}
    kernel = next(variable for variable in traced.values() if variable["name"] == "conv/kernel")
    assert (kernel["shape"], kernel["dtype"], kernel["trainable"]) == ([3, 3, 3, 8], "float32", True)


def test_no_weight_leaves_the_model(record: Recorder) -> None:
    from fixtures.models import EmbeddedConstant

    recording = record("saved_model", "embedded_constant")
    assert recording.holds(np.full(4, EmbeddedConstant.KNOWN_WEIGHT).tobytes()) == []
    assert max(file.stat().st_size for file in recording.path.rglob("*.pb") if "xplane" not in file.name) < 10_000


def test_loops_are_counted_by_the_replay(record: Recorder) -> None:
    recording = record("saved_model", "while_if")
    calls = {name.rsplit("/", 1)[-1]: seen["calls"] for name, seen in recording.replay.items() if "/body/" in name}
    assert calls["MatMul"] == 10
    assert set(recording.replay) <= set(recording.executed)
    matmul = next(seen for name, seen in recording.replay.items() if name.endswith("MatMul"))
    assert matmul["outputs"] == [["float32", [1, 16]]]


@pytest.mark.parametrize(
    ("kind", "target"),
    [("keras", "tiny.keras"), ("graph_def", "tiny.pb"), ("callable", "fixtures.models:tiny_cnn_callable")],
)
def test_other_forms_of_the_same_network_are_traced_and_run(record: Recorder, kind: str, target: str) -> None:
    recording = record(kind, target)
    assert recording.code == 0
    assert recording.manifest["traced_root"] == ""
    assert sum(node.op == "Conv2D" for node in recording.graph("traced.pb").node) == 1
    assert recording.coverage >= 0.95


def test_a_training_step_is_replayed_with_its_assignments(record: Recorder) -> None:
    recording = record("callable", "fixtures.models:train_step")
    assert recording.code == 0
    assert any(recording.executed[name] == "AssignSubVariableOp" for name in recording.replay)
    assert [one["origin"] for one in recording.manifest["inputs"]] == ["example", "example"]


IN_A_FOLDER_CALLED_KERAS = """
import keras
import tensorflow as tf

@tf.function
def called(x):
    return tf.sin(x)  # Sin

def helper(x):
    return tf.tanh(x)  # Tanh

class Layer(keras.layers.Layer):
    def call(self, x):
        return tf.nn.softplus(x)  # Softplus

class Step(tf.Module):
    def __init__(self):
        self.model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4), Layer()])
        self.weight = tf.Variable(tf.ones([4, 4]))

    @tf.function
    def __call__(self, x):
        with tf.GradientTape() as tape:
            y = called(tf.floor(x) @ self.weight)  # Floor
            for _ in tf.range(3):
                y = helper(y)
            loss = tf.reduce_mean(self.model(y))  # BiasAdd
        gradient = tape.gradient(loss, self.weight)  # TanhGrad Cos
        self.weight.assign_sub(gradient)  # AssignSubVariableOp
        return loss

def step():
    return Step(), (tf.ones([2, 4]),)
"""


def test_each_op_of_a_callable_has_the_line_that_wrote_it(record: Recorder, tmp_path: Path) -> None:
    """Layers, functions that are called, bodies of loops and gradients; a layer of Keras has the line that calls it."""
    module = tmp_path / "keras" / "lines_of_mine.py"
    module.parent.mkdir()
    module.write_text(IN_A_FOLDER_CALLED_KERAS)
    told = {
        kind: f"{module}:{number}"
        for number, line in enumerate(IN_A_FOLDER_CALLED_KERAS.splitlines(), 1)
        for kind in line.partition("  # ")[2].split()
    }
    recording = record("callable", "lines_of_mine:step", mode="trace", import_path=str(module.parent))
    traced = evidence_of(open_capture(recording.path)).traced
    assert traced is not None
    ops = [op for function in traced.functions.values() for op in function.graph.ops()]
    assert {(op.type, op.source) for op in ops if op.type in told} == set(told.items())
    without = {op.type for op in ops if op.source is None}
    assert without <= {"_Arg", "_Retval", "Placeholder", "Identity", "NoOp"}


def test_a_keras_file_has_layers_and_no_lines(record: Recorder) -> None:
    recording = record("keras", "tiny.keras", mode="trace")
    traced = evidence_of(open_capture(recording.path)).traced
    assert traced is not None
    assert {op.source for op in traced.main.graph.ops()} == {None}
    (product,) = (op for op in traced.main.graph.ops() if op.type == "MatMul")
    assert re.fullmatch(r"tiny(_\d+)?/head(_\d+)?", layer_of(product.name) or "")


def test_a_function_that_was_loaded_has_no_lines(tmp_path: Path) -> None:
    """Its ops were made by TensorFlow's importer, and have no traceback."""
    import tensorflow as tf

    model = tf.Module()
    function = tf.function(lambda x: tf.tanh(x) + 1.0).get_concrete_function(tf.TensorSpec([2], tf.float32, "x"))
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=function)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    recording = live(tmp_path, loaded.signatures["serving_default"], {"x": tf.ones([2])})
    traced = evidence_of(open_capture(recording.path)).traced
    assert traced is not None
    assert {op.source for function in traced.functions.values() for op in function.graph.ops()} == {None}


def stale_graph(folder: Path) -> str:
    """A frozen graph whose weights have four channels, and three in the shape that is annotated where they are read."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [1, 10, 10, 4], name="x")
        read = tf.identity(tf.ones([1, 1, 4, 4]), name="read")
        tf.nn.conv2d(image, read, 1, "SAME", name="conv")
    message = graph.as_graph_def(add_shapes=True)
    (node,) = (node for node in message.node if node.name == "read")
    node.attr["_output_shapes"].list.shape[0].dim[2].size = 3
    (folder / "stale.pb").write_bytes(message.SerializeToString())
    return str(folder / "stale.pb")


def stale_saved_model(folder: Path) -> str:
    """A model whose function annotates three channels where it reads its variable of four."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    model = tf.Module()
    model.kernel = tf.Variable(tf.ones([1, 1, 4, 4]))
    function = tf.function(lambda x: tf.nn.conv2d(x, model.kernel, 1, "SAME"))
    tf.saved_model.save(model, str(folder), signatures=function.get_concrete_function(tf.TensorSpec([1, 10, 10, 4])))
    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    library = message.meta_graphs[0].graph_def.library
    (node,) = (node for function in library.function for node in function.node_def if "Conv2D/Read" in node.name)
    node.attr["_output_shapes"].list.shape[0].dim[2].size = 3
    file.write_bytes(message.SerializeToString())
    return str(folder)


@pytest.mark.parametrize(("kind", "write"), [("graph_def", stale_graph), ("saved_model", stale_saved_model)])
def test_shapes_that_contradict_the_weights_are_dropped_before_importing(
    record: Recorder, tmp_path: Path, kind: str, write: Callable[[Path], str]
) -> None:
    """TensorFlow itself refuses both files."""
    import tensorflow as tf

    model = write(tmp_path)
    as_it_is = {
        "saved_model": lambda: tf.saved_model.load(model),
        "graph_def": lambda: tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(Path(model).read_bytes())),
    }
    with pytest.raises(ValueError, match=r"inconsistent|not a multiple"):
        as_it_is[kind]()
    recording = record(kind, model)
    assert (recording.code, recording.error) == (0, "")
    assert any("contradict its weights" in note for note in recording.manifest["notes"])
    assert any("Conv2D" in kind for kind in recording.executed.values())


def test_tracing_alone_executes_nothing(record: Recorder) -> None:
    recording = record("keras", "tiny.keras", mode="trace")
    assert recording.manifest["stages_done"] == ["load", "trace"]
    assert recording.graph("traced.pb").node
    assert not (recording.path / "profile.xplane.pb").exists()


def live(tmp_path: Path, function: Any, inputs: Any) -> Recording:
    from graphlens.tf.record import live as recorder

    recorder.record_callable(function, inputs, tmp_path / "live", steps=STEPS)
    return Recording(tmp_path / "live", 0, [])


def test_a_plain_function_keeps_its_defaults(tmp_path: Path) -> None:
    recording = live(tmp_path, lambda x, factor=3.0: x * factor, {"x": np.ones((2, 3), np.float32)})
    assert [(one["name"], one["shape"], one["origin"]) for one in recording.manifest["inputs"]] == [
        ("x", [2, 3], "example")
    ]
    assert "Mul" in recording.executed.values()


def test_a_function_compiled_as_a_whole_leaves_hlo_only(tmp_path: Path) -> None:
    import tensorflow as tf

    recording = live(tmp_path, tf.function(lambda x: tf.nn.relu(x * 2.0), jit_compile=True), (tf.ones((4, 4)),))
    assert recording.manifest["executed"] == []
    assert any("no executed TensorFlow graph" in note for note in recording.manifest["notes"])
    assert (recording.path / "hlo" / "0.txt").read_text().startswith("HloModule")


def test_an_iterator_cannot_be_replayed_and_the_rest_stands(tmp_path: Path) -> None:
    import tensorflow as tf

    batches = iter(tf.data.Dataset.range(1000).batch(2))
    recording = live(tmp_path, lambda: next(batches) * 2, None)
    assert any("was not replayed" in note for note in recording.manifest["notes"])
    assert recording.sees("mul", "Mul")


# -- inputs -----------------------------------------------------------------------------------------------------------


def test_serialized_examples_are_made_for_a_parser(record: Recorder) -> None:
    recording = record("saved_model", "parses_examples", batch=3)
    assert recording.code == 0
    (fed,) = recording.manifest["inputs"]
    told = ("name", "dtype", "shape", "origin", "range", "decides")
    assert [fed[key] for key in told] == ["examples", "string", [3], "made-up", None, ""]


def test_image_files_are_made_for_a_decoder(record: Recorder) -> None:
    assert record("saved_model", "decodes_images", batch=2).code == 0


def test_arrays_of_the_user_are_fed(record: Recorder, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", image=np.zeros((2, 32, 32, 3), np.float32))
    recording = record("saved_model", "tiny_cnn", inputs=str(tmp_path / "in.npz"))
    (fed,) = recording.manifest["inputs"]
    told = ("name", "dtype", "shape", "origin", "range", "source")
    assert [fed[key] for key in told] == ["image", "float32", [2, 32, 32, 3], "given", [0.0, 0.0], ""]


@pytest.mark.parametrize(
    ("kind", "target", "request_", "code", "message"),
    [
        (
            "callable",
            "fixtures.models:plain_step",
            {},
            2,
            "2 inputs have shapes that the model leaves open: give them with --shape left=… --shape right=…",
        ),
        ("callable", "fixtures.models:nothing", {}, 2, "'fixtures.models' has no 'nothing'"),
        ("callable", "no_such_module:step", {}, 2, "no module named 'no_such_module'"),
        ("saved_model", "tiny_cnn", {"signature": "other"}, 2, "--signature other: .* has serve, serving_default"),
        ("saved_model", "missing", {}, 3, "TensorFlow cannot load"),
        ("keras", "tiny.pb", {}, 2, r"Keras 3\.\S+ cannot load"),
        ("graph_def", "tiny.keras", {}, 2, "is not a readable graph_def"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    record: Recorder, kind: str, target: str, request_: dict[str, Any], code: int, message: str
) -> None:
    recording = record(kind, target, **request_)
    assert recording.code == code
    assert "\n" not in recording.error
    assert re.search(message, recording.error)


# -- a program that somebody else runs -----------------------------------------------------------------------------


def test_a_running_program_is_recorded_under_the_same_collectors(tmp_path: Path) -> None:
    """A loop that knows nothing of GraphLens, once instantiated before and once within."""
    import tensorflow as tf

    from graphlens.loaders.capture.collecting import Context, collecting
    from graphlens.loaders.capture.writing import CaptureDirectory
    from graphlens.tf.record.collectors.executed import ExecutedGraphs
    from graphlens.tf.record.collectors.profile import Profile

    step = tf.function(lambda x: tf.nn.relu(x @ x))
    argument = tf.ones((64, 64))
    concrete = step.get_concrete_function(argument)
    step(argument)
    context = Context(CaptureDirectory(tmp_path, CapturedTarget("a loop", "callable")))
    with collecting(context, [ExecutedGraphs(concrete), Profile()]):
        for _ in range(3):
            step(argument)
    context.capture.save()
    evidence = evidence_of(open_capture(tmp_path))
    assert evidence.profile is not None
    assert {event.op for event in evidence.profile.ops} & {"MatMul", "_FusedMatMul", "_MklMatMul", "_MklFusedMatMul"}
    assert evidence.executed is not None
    assert any("MatMul" in op.type for op in evidence.executed.main.graph.ops())


def test_a_profiler_that_does_not_start_leaves_the_times(record: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def refuse(_: str) -> None:
        raise tf.errors.AlreadyExistsError(None, None, "another profiler is running")

    monkeypatch.setattr(tf.profiler.experimental, "start", refuse)
    recording = record("saved_model", "tiny_cnn")
    assert recording.code == 0
    assert recording.manifest["profiled_steps"] == 0
    assert len(recording.manifest["unprofiled_ns"]) == STEPS
    assert [error["stage"] for error in recording.manifest["errors"]] == ["profile"]


# -- processes of their own -------------------------------------------------------------------------------------------


def in_child(
    tmp_path: Path, kind: str, target: str, kill_at: str = "", limit_s: float = 240, **request: Any
) -> Recording:
    child = start_recorder(tmp_path / "out")

    def on_progress(what: str, _done: int, _of: int) -> None:
        if what == kill_at:
            os.kill(child.process.pid, signal.SIGKILL)

    child.send(RecordRequest(target, kind, **{"steps": STEPS, "import_path": str(REPOSITORY), **request}))
    outcome = child.wait(on_progress, limit_s)
    return Recording(tmp_path / "out", outcome.returncode, [Failure(outcome.message)])


def test_two_devices_leave_two_partitions_and_the_copy_between(tmp_path: Path) -> None:
    recording = in_child(tmp_path, "callable", "fixtures.models:two_devices")
    parts = [{node.op for node in recording.graph(name).node} for name in recording.manifest["executed"]]
    assert len(parts) == 2
    assert ["_Send" in part for part in parts] == [True, False]
    assert ["_Recv" in part for part in parts] == [False, True]


LARGE_TENSORS = """
import tensorflow as tf

wide, narrow = tf.Variable(tf.ones((512, 1024))), tf.Variable(tf.ones((1024, 512)))

@tf.function
def step(x):
    for _ in range(3):
        hidden = tf.nn.softmax(tf.tanh(tf.matmul(x, wide)))  # written over the product
        halves = tf.reshape(hidden, (2, 256, 1024))  # a view
        x = x + tf.matmul(tf.reshape(tf.transpose(halves, (1, 0, 2)), (512, 1024)), narrow)
    return tf.concat([x, x * 2.0], axis=1)

def large_tensors():
    return step, (tf.ones((512, 512)),)
"""


def test_live_tensors_are_those_that_the_allocator_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only oneDNN's allocator reports, what is larger than 256 KiB; at the peak of this function that is everything."""
    (tmp_path / "large.py").write_text(LARGE_TENSORS)
    monkeypatch.setenv(ONEDNN, "1")
    recording = in_child(tmp_path, "callable", "large:large_tensors", import_path=str(tmp_path))
    peaks = oracles.allocated_peaks((recording.path / "profile.xplane.pb").read_bytes(), "graphlens_step")
    memory = Facts(evidence_of(open_capture(recording.path)))(peak_memory)
    assert memory is not None
    fed_bytes = 512 * 512 * 4  # the caller's, so it is not allocated within the step
    assert statistics.median(peak for peak, _ in peaks) == memory.peak_bytes - fed_bytes
    assert memory.weights_bytes == pytest.approx(2 * 512 * 1024 * 4, abs=100)  # and the constants of the ops
    assert memory.unknown == 0


def test_what_xla_compiled_is_kept_as_hlo(models: Path, tmp_path: Path) -> None:
    recording = in_child(tmp_path, "saved_model", str(models / "jit"))
    assert "StatefulPartitionedCall" in recording.executed.values()
    (text,) = [file.read_text() for file in (recording.path / "hlo").iterdir()]
    assert text.startswith("HloModule a_inference_compiled")
    module = text.split()[1].rstrip(",")
    assert set(recording.holds(module.encode())) == {"profile.xplane.pb", "0.txt"}  # one name on both sides
    assert not (recording.path / "xla.part").exists()


def test_a_child_killed_while_it_profiles_leaves_what_it_had(models: Path, tmp_path: Path) -> None:
    recording = in_child(tmp_path, "saved_model", str(models / "lstm"), kill_at="profiling")
    assert "was killed" in recording.error
    assert recording.manifest["stages_done"] == ["load", "trace", "graphs"]
    assert recording.executed


# -- models that others made ------------------------------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("path", "note"),
    [
        ("basic_pitch_savedmodel", "optimizer was left out"),
        ("tfx_taxi_savedmodel", "no kernel for BoostedTreesBucketize"),
        ("half_plus_two_gpu_savedmodel/00000123", "GPU placement was not honoured"),
    ],
)
def test_old_exports_run(record: Recorder, path: str, note: str) -> None:
    recording = record("saved_model", str(REAL / path))
    assert recording.code == 0
    assert recording.coverage >= 0.95
    assert any(note in one for one in recording.manifest["notes"])


@pytest.mark.parametrize("path", ["malformed/bad_node_attr", "malformed/negative_shape"])
def test_malformed_models_are_refused_in_one_line(record: Recorder, path: str) -> None:
    recording = record("saved_model", str(REAL / path))
    assert recording.code == 3
    assert recording.error.startswith("TensorFlow cannot load")
    assert "\n" not in recording.error


def test_a_keras_2_export_with_an_optimizer_loads(record: Recorder, models: Path, tmp_path: Path) -> None:
    path = with_keras_2_optimizer(models / "tiny_cnn", tmp_path / "keras_2")
    recording = record("saved_model", str(path))
    assert recording.code == 0
    assert any("optimizer was left out" in note for note in recording.manifest["notes"])


def with_keras_2_optimizer(source: Path, target: Path) -> Path:
    """Copy a SavedModel and add what Keras 2 adds: an optimizer object with a slot variable for each weight."""
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(source, target)
    model = saved_model_pb2.SavedModel.FromString((target / "saved_model.pb").read_bytes())
    objects = model.meta_graphs[0].object_graph_def.nodes
    weight, variable = next((i, node) for i, node in enumerate(objects) if node.WhichOneof("kind") == "variable")
    slot = objects.add()
    slot.variable.CopyFrom(variable.variable)
    optimizer = objects.add()
    optimizer.user_object.identifier = "optimizer"
    optimizer.user_object.version.producer = 2
    optimizer.user_object.version.min_consumer = 1
    optimizer.slot_variables.add(
        original_variable_node_id=weight, slot_name="m", slot_variable_node_id=len(objects) - 2
    )
    objects[0].children.add(node_id=len(objects) - 1, local_name="optimizer")
    (target / "saved_model.pb").write_bytes(model.SerializeToString())
    return target
