"""Files that need more than TensorFlow: packages are imported, and who cannot read what is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.ir import foreign_ops

pytestmark = pytest.mark.tf

NOT_REGISTERED = "Op type not registered 'CaseFoldUTF8' in binary running on host. tf.contrib"


@pytest.fixture(scope="module")
def failures(tf: Any) -> Any:
    from graphlens.tf.open import failures

    return failures


def test_every_type_that_is_missing_is_named_with_its_package(failures: Any) -> None:
    def load() -> Any:
        raise RuntimeError(NOT_REGISTERED)

    with pytest.raises(ExecutionError) as refusal:
        failures.with_registered_ops(load, lambda: ["Relu", "RougeL", "CaseFoldUTF8", "SomebodysOp"])
    assert str(refusal.value) == (
        "no package that was imported registers the types of its ops: CaseFoldUTF8, RougeL (tensorflow-text); "
        "SomebodysOp (of an unknown package); pip install tensorflow-text (of the version of TensorFlow), and name "
        "the Python module that registers them with --import MODULE"
    )


def test_a_package_that_is_installed_is_imported(failures: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "their_ops.py").write_text("loaded = True")
    monkeypatch.syspath_prepend(tmp_path)
    package = foreign_ops._package("their-ops", "their_ops", "TheirOp")
    monkeypatch.setattr(foreign_ops, "PACKAGES", (package,))
    monkeypatch.setattr(failures.private, "is_registered", lambda kind: kind == "Relu" or "their_ops" in sys.modules)

    def load() -> str:
        if "their_ops" not in sys.modules:
            raise RuntimeError(NOT_REGISTERED)
        return "the model"

    loaded, notes = failures.with_registered_ops(load, lambda: ["Relu", "TheirOp"])
    assert loaded == "the model"
    assert notes == ("imported for the ops that the model needs: their-ops",)


def test_a_package_that_does_not_fit_is_to_blame(failures: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "broken_ops.py").write_text("raise ImportError('undefined symbol: tsl')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(foreign_ops, "PACKAGES", (foreign_ops._package("broken-ops", "broken_ops", "TheirOp"),))

    def load() -> Any:
        raise RuntimeError(NOT_REGISTERED)

    with pytest.raises(ExecutionError, match=r"broken-ops, .*TheirOp.*, cannot be imported: undefined symbol: tsl"):
        failures.with_registered_ops(load, lambda: ["TheirOp"])


def test_other_failures_stay_what_they_are(failures: Any) -> None:
    def load() -> Any:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        failures.with_registered_ops(load, lambda: [])


def test_a_graph_with_ops_of_nobody_is_refused_with_all_their_names(tf: Any, tmp_path: Path) -> None:
    from graphlens.tf.open.graph_files import open_graph_file

    graph_def = tf.compat.v1.GraphDef()
    for name in ("SomebodysOp", "AnotherOp"):
        graph_def.node.add(name=name.lower(), op=name)
    (tmp_path / "g.pb").write_bytes(graph_def.SerializeToString())
    with pytest.raises(ExecutionError, match=r"AnotherOp, SomebodysOp \(of an unknown package\).*--import MODULE"):
        open_graph_file(tmp_path / "g.pb", "graph_def", text=False)


# What TensorFlow 2.21 says at the first call of a program that JAX 0.10.2 wrote (shortened).
ARTIFACT = """Graph execution error:

Detected at node XlaCallModule defined at (most recent call last):
<stack traces unavailable>
Cannot deserialize computation: UNKNOWN: m.py:17:25: error: unregistered operation 'vhlo.composite_v2' found in dialect
m.py:17:25: note: in bytecode version 6 produced by: StableHLO_v1.15.0
<unknown>:0: error: failed to deserialize portable artifact using StableHLO_v1.13.7

\t [[{{node XlaCallModule}}]]
\t [[StatefulPartitionedCall/XlaCallModule]] [Op:__inference_signature_wrapper_394]"""


def test_a_program_that_is_too_new_is_not_blamed_on_the_inputs(tf: Any, failures: Any) -> None:
    said = failures.of_first_step(tf.errors.InvalidArgumentError(None, None, ARTIFACT))
    assert said.startswith(
        "its StableHLO program was written by StableHLO 1.15.0 and holds composite_v2; this TensorFlow reads 1.13.7: "
        "export with an older JAX or run a newer TensorFlow (Cannot deserialize computation: "
    )
    assert said.endswith("… <unknown>:0: error: failed to deserialize portable artifact using StableHLO_v1.13.7)")
    assert "inputs" not in said


def test_an_error_of_one_line_is_said_once(tf: Any, failures: Any) -> None:
    text = "Graph execution error:\n\nDetected at node x\nInput to reshape has 4 values\n\t [[{{node x}}]] [Op:f]"
    said = failures.of_first_step(tf.errors.InvalidArgumentError(None, None, text))
    assert said == "Input to reshape has 4 values; if its inputs are at fault, give real ones with --inputs FILE.npz"


# -- Keras files ---------------------------------------------------------------------------------------------------

LAYER = """
import keras


@keras.saving.register_keras_serializable("theirs")
class TheirLayer(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


@pytest.fixture(params=["m.keras", "m.h5"])
def their_model(request: Any, tf: Any, tmp_path: Path, monkeypatch: Any) -> Path:
    """A file with a layer of a class that nobody knows, beside the module that knows it."""
    import keras

    (tmp_path / "their_layers.py").write_text(LAYER)
    scope: dict[str, Any] = {}
    exec(LAYER, scope)
    inputs = keras.Input((8,))
    keras.Model(inputs, scope["TheirLayer"]()(keras.layers.Dense(4)(inputs))).save(tmp_path / request.param)
    keras.saving.get_custom_objects().clear()
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("their_layers", None)
    yield tmp_path / request.param
    keras.saving.get_custom_objects().clear()


def test_a_keras_file_with_an_unknown_class_says_who_wrote_it_and_what_to_name(their_model: Path) -> None:
    import keras

    from graphlens.tf.open.keras_models import open_keras_file

    with pytest.raises(TargetError) as refusal:
        open_keras_file(their_model, trust=False)
    said = str(refusal.value)
    version = keras.__version__
    assert said.startswith(f"Keras {version} cannot load {their_model}, which Keras {version} wrote: ")
    assert "TheirLayer'" in said
    assert said.endswith("; name the Python module that registers it with --import MODULE")
    assert refusal.value.exit_code == 2


def test_a_module_that_is_named_is_imported_before(their_model: Path, failures: Any) -> None:
    from graphlens.tf.open.keras_models import open_keras_file

    failures.import_named(["their_layers"])
    assert open_keras_file(their_model, trust=False).specs[0].shape == (None, 8)


def test_a_module_that_is_not_there_is_wrong_usage(failures: Any) -> None:
    with pytest.raises(UsageError, match="--import no_such_module: ModuleNotFoundError: No module named"):
        failures.import_named(["no_such_module"])


def test_what_keras_2_wrote_is_said_and_what_reads_it(tf: Any, tmp_path: Path) -> None:
    import h5py
    import keras

    from graphlens.tf.open.keras_models import open_keras_file

    file = tmp_path / "old.h5"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.DepthwiseConv2D(2)]).save(file)
    with h5py.File(file, "a") as written:
        written.attrs["keras_version"] = "2.13.1"
        config = written.attrs["model_config"]
        written.attrs["model_config"] = config.replace('"kernel_size"', '"groups": 1, "kernel_size"')
    with pytest.raises(TargetError) as refusal:
        open_keras_file(file, trust=False)
    assert str(refusal.value) == (
        f"Keras {keras.__version__} cannot load {file}, which Keras 2.13.1 wrote (tf_keras reads it: save it as a "
        "SavedModel with that): Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 1}"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"text"])
def test_a_damaged_file_names_nobody_as_its_writer(tf: Any, tmp_path: Path, content: bytes) -> None:
    from graphlens.tf.open.keras_files import written_by

    (tmp_path / "m.keras").write_bytes(content)
    assert written_by(tmp_path / "m.keras") is None


# -- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fold [1]", "back\\slash", "star*", "two?"])
def test_a_model_is_loaded_from_a_folder_that_is_a_pattern(tf: Any, tmp_path: Path, name: str) -> None:
    from graphlens.tf.open.saved_models import open_saved_model

    module = tf.Module()
    module.v = tf.Variable([3.0])
    module.f = tf.function(lambda x: x + module.v, [tf.TensorSpec((1,), tf.float32, name="x")], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.f})
    folder = tmp_path / name / "model"
    folder.parent.mkdir()
    (tmp_path / "m").rename(folder)
    opened = open_saved_model(str(folder), None, None)
    (result,) = opened.trace(opened.specs).call([tf.constant([1.0])]).values()
    assert result.numpy().tolist() == [4.0]


def test_variables_that_git_lfs_did_not_fetch_are_named(tf: Any, tmp_path: Path) -> None:
    from graphlens.tf.open.saved_models import open_saved_model

    module = tf.Module()
    module.v = tf.Variable([3.0])
    module.f = tf.function(lambda x: x + module.v, [tf.TensorSpec((1,), tf.float32, name="x")], autograph=False)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.f})
    (file,) = (tmp_path / "variables").glob("*.data-*")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90000000\n")
    with pytest.raises(ExecutionError) as refusal:
        open_saved_model(str(tmp_path), None, None)
    assert str(refusal.value) == (
        f"TensorFlow cannot load {tmp_path}: '{file}' is a Git LFS pointer, not the file (85.8 MiB) that it stands "
        "for; fetch that with: git lfs pull"
    )
