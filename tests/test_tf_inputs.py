"""What real models are fed: ragged tensors, images of any size, scalars, loops; TensorFlow says whether it fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedInput, CapturedTarget
from graphlens.loaders.capture.writing import CaptureDirectory

pytestmark = pytest.mark.tf


@dataclass(frozen=True)
class Fed:
    """A model's inputs as they were made, its outputs, and the notes."""

    inputs: dict[str, CapturedInput]
    values: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    notes: tuple[str, ...]


Feeder = Callable[..., Fed]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SavedModel of each kind."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")

    def save(name: str, function: Any, *specs: Any) -> None:
        module = tf.Module()
        module.kernel = tf.Variable(tf.random.normal([3, 3, 3, 4]))
        module.table = tf.Variable(tf.random.normal([50, 8]))
        concrete = tf.function(lambda *args: function(module, *args)).get_concrete_function(*specs)
        tf.saved_model.save(module, str(folder / name), signatures={"serving_default": concrete})

    def embedded(module: Any, ids: Any) -> Any:
        return {"out": tf.reduce_sum(tf.ragged.map_flat_values(tf.gather, module.table, ids), axis=2).to_tensor()}

    def rows(module: Any, ids: Any) -> Any:
        return {"out": tf.reduce_sum(tf.ragged.map_flat_values(tf.gather, module.table, ids), axis=1)}

    def convolved(module: Any, image: Any) -> Any:
        return {"out": tf.nn.conv2d(tf.cast(image, tf.float32) / 255.0, module.kernel, 2, "SAME")}

    def looped(module: Any, x: Any, n: Any) -> Any:
        return {"out": tf.while_loop(lambda i, _: i < n, lambda i, y: (i + 1, y + 1.0), (0, x))[1]}

    def doubled(_: Any, x: Any) -> Any:
        return {"out": x * 2.0}

    ragged = tf.RaggedTensorSpec
    save("ragged", rows, ragged([None, None], tf.int64))
    save("nested", embedded, ragged([None, None, None], tf.int64))
    save("image", convolved, tf.TensorSpec([1, None, None, 3], tf.uint8, "image"))
    save("loop", looped, tf.TensorSpec([2], name="x"), tf.TensorSpec([], tf.int32, "n"))
    save("any_rank", doubled, tf.TensorSpec(None, name="x"))
    return folder


@pytest.fixture
def feed(models: Path, tmp_path: Path) -> Feeder:
    """Make the inputs of a model as a recording does, and run it once."""
    from graphlens.tf.open import targets
    from graphlens.tf.record import preparing

    def made(name: str, signature: str | None = None, **plan: Any) -> Fed:
        capture = CaptureDirectory(tmp_path / "capture", CapturedTarget(name, "saved_model", signature))
        opened = targets.open_target(str(models / name), "saved_model", signature)
        prepared = preparing.prepare(opened, preparing.Plan(**plan), capture)
        outputs = prepared.step()
        return Fed(
            {one.name: one for one in capture.manifest.inputs},
            {spec.name: tensor.numpy() for spec, tensor in zip(prepared.specs, prepared.tensors, strict=True)},
            {key: value.numpy() for key, value in outputs.items()},
            capture.manifest.notes,
        )

    return made


def test_a_ragged_signature_runs_on_rows_that_hold_all_values(feed: Feeder) -> None:
    fed = feed("ragged", shapes={"args_0": (12,)}, batch=3)
    assert fed.values["args_0_1"].tolist() == [0, 4, 8, 12]
    assert fed.inputs["args_0_1"].source == "the rows of args_0"
    assert fed.outputs["out"].shape == (3, 8)
    assert feed("ragged").values["args_0_1"].tolist() == [0, 1]


def test_rows_within_rows_fit_each_other(feed: Feeder) -> None:
    fed = feed("nested", shapes={"args_0": (12,), "args_0_2": (4,)})
    assert {name: fed.values[name].tolist() for name in ("args_0_1", "args_0_2")} == {
        "args_0_1": [0, 3],
        "args_0_2": [0, 4, 8, 12],
    }
    assert fed.outputs["out"].shape == (1, 3, 8)


def test_an_image_of_any_size_is_taken_as_224_by_224_and_said(feed: Feeder) -> None:
    fed = feed("image")
    assert fed.outputs["out"].shape == (1, 112, 112, 4)
    assert fed.inputs["image"].source == "224 x 224 guessed, the model leaves the size open"
    (note,) = fed.notes
    assert note == (
        "Input 'image': 224 x 224 guessed, the model leaves the size open; "
        "--shape image=1,224,224,3 with other numbers gives another one."
    )


def test_another_size_may_be_given_for_an_image(feed: Feeder) -> None:
    fed = feed("image", shapes={"image": (1, 64, 32, 3)})
    assert fed.outputs["out"].shape == (1, 32, 16, 4)
    assert (fed.inputs["image"].source, fed.notes) == ("", ())


def test_a_loop_that_an_input_bounds_runs_and_says_what_that_input_decides(feed: Feeder) -> None:
    fed = feed("loop")
    n = fed.inputs["n"]
    assert (n.origin, n.range, n.loop) == ("made-up", (1, 1), True)
    assert n.decides.startswith("how often the loop ")
    assert np.array_equal(fed.outputs["out"], fed.values["x"] + 1)
    given = feed("loop", arrays={"n": np.int32(7)}).inputs["n"]
    assert (given.origin, given.range, given.decides, given.loop) == ("given", (7, 7), "", False)


def test_a_tensor_of_any_rank_may_be_a_scalar(feed: Feeder) -> None:
    with pytest.raises(UsageError, match=r"--shape x=1,224,224,3, or --shape x= for a scalar"):
        feed("any_rank")
    assert feed("any_rank", shapes={"x": ()}).outputs["out"].shape == ()
