"""What real models are fed: ragged tensors, images of any size, scalars, loops; TensorFlow says whether it fits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedInput, CapturedTarget
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.loaders.warm_up import FILE, WarmUp, WarmUpRequest

pytestmark = pytest.mark.tf


@dataclass(frozen=True)
class Fed:
    """A model's inputs as they were made, its outputs, and the notes."""

    inputs: dict[str, CapturedInput]
    values: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    notes: tuple[str, ...]


Feeder = Callable[..., Fed]


def write_twice_named(folder: Path) -> None:
    """Write a model of TensorFlow 1 whose signature has two keys for one tensor, as TFMA's do."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        y = tf.matmul(x, v1.get_variable("w", initializer=[[3.0], [4.0]]))
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"inputs": info(x), "examples": info(x)}, {"y": info(y)}, "predict"
        )
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


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
    parser = tf.Module()
    parser.parse = tf.function(
        lambda examples: {"out": tf.io.parse_example(examples, {"a": tf.io.FixedLenFeature([], tf.float32)})["a"]},
        input_signature=[tf.TensorSpec([None], tf.string, "examples")],
    )
    tf.saved_model.save(parser, str(folder / "parser"), signatures={"classify": parser.parse})
    write_twice_named(folder / "twice_named")
    save("any_rank", doubled, tf.TensorSpec(None, name="x"))
    return folder


@pytest.fixture
def feed(models: Path, tmp_path: Path) -> Feeder:
    """Make the inputs of a model as a recording does, and run it once."""
    from graphlens.tf.open import targets, warm_up
    from graphlens.tf.record import preparing

    def made(name: str, signature: str | None = None, request: int | None = None, **plan: Any) -> Fed:
        capture = CaptureDirectory(tmp_path / "capture", CapturedTarget(name, "saved_model", signature))
        opened = targets.open_target(str(models / name), "saved_model", signature)
        opened = warm_up.with_request(opened, models / name, request)
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


@pytest.mark.parametrize("name", ["examples", "inputs"])
def test_two_inputs_that_are_one_tensor_are_fed_once_by_either_name(feed: Feeder, name: str) -> None:
    fed = feed("twice_named", arrays={name: np.array([[1, 2]], np.float32)})
    assert fed.outputs["y"].tolist() == [[11.0]]
    assert fed.inputs["inputs"].source == "the same tensor as examples"
    assert {one.range for one in fed.inputs.values()} == {(1.0, 2.0)}
    assert fed.notes == ("Inputs that are the same tensor by another name are fed once: inputs is examples.",)
    assert feed("twice_named", shapes={name: (5, 2)}).outputs["y"].shape == (5, 1)


def test_a_written_model_has_both_names_of_one_tensor(models: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    from graphlens.tf import rewrite

    rewrite.write_saved_model(models / "twice_named", {"serving_default": []}, tmp_path / "written")
    serve = tf.saved_model.load(str(tmp_path / "written")).signatures["serving_default"]
    assert set(serve.structured_input_signature[1]) == {"examples", "inputs"}
    x = tf.constant([[1.0, 2.0]])
    assert serve(examples=x, inputs=x)["y"].numpy().tolist() == [[11.0]]


# -- requests for warming up ------------------------------------------------------------------------------------------

RECORDED = Path(__file__).parents[1] / "fixtures" / "warm_up" / "requests"


@pytest.fixture
def requests(models: Path) -> Iterator[None]:
    """The models bring the recorded requests."""
    names = ("loop", "image", "parser")
    for name in names:
        (models / name / FILE).parent.mkdir(exist_ok=True)
        shutil.copy(RECORDED, models / name / FILE)
    yield
    for name in names:
        shutil.rmtree((models / name / FILE).parent)


@pytest.mark.usefixtures("requests")
def test_the_first_request_of_the_model_is_fed_and_told(feed: Feeder) -> None:
    fed = feed("loop")
    assert fed.values["n"] == 200
    assert np.array_equal(fed.outputs["out"], np.array([0.5, 2.0], "float32") + 200)
    assert {(one.origin, one.source, one.decides) for one in fed.inputs.values()} == {
        ("example", "warm-up request 1 of 7", "")
    }
    assert fed.notes == (
        "The model's own warm-up request 1 of 7 was fed; --warm-up-request N takes another one, "
        "and --warm-up-request 0 none of them.",
    )


@pytest.mark.usefixtures("requests")
def test_another_request_may_be_chosen_or_none(feed: Feeder) -> None:
    assert feed("loop", request=2).values["n"] == 50
    none = feed("loop", request=0)
    assert (none.inputs["n"].origin, none.notes) == ("made-up", ())


@pytest.mark.usefixtures("requests")
def test_what_the_user_gives_goes_before_what_the_model_brings(feed: Feeder) -> None:
    fed = feed("loop", arrays={"n": np.int32(3)})
    assert (fed.inputs["n"].origin, fed.inputs["x"].origin) == ("given", "example")
    assert np.array_equal(fed.outputs["out"], np.array([0.5, 2.0], "float32") + 3)


@pytest.mark.usefixtures("requests")
def test_examples_are_fed_to_the_parser_and_repeated_for_a_batch(feed: Feeder) -> None:
    assert feed("parser", "classify").outputs["out"].tolist() == [1.0, 2.0]
    assert feed("parser", "classify", request=6).outputs["out"].tolist() == [4.0]
    fed = feed("parser", "classify", batch=5)
    assert fed.outputs["out"].tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert fed.inputs["examples"].source == "warm-up request 3 of 7, repeated for the batch"


@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize(
    ("model", "request_", "message"),
    [
        ("loop", 8, f"--warm-up-request 8: '{FILE}' holds 7"),
        ("loop", 3, "--warm-up-request 3 is for another signature: --signature classify"),
        ("image", 1, "--warm-up-request 1: it names an input 'n', which the signature does not have"),
        ("any_rank", 1, f"--warm-up-request 1: the model brings no requests ({FILE})"),
    ],
)
def test_a_request_that_cannot_be_fed_is_refused(feed: Feeder, model: str, request_: int, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        feed(model, request=request_)
    assert str(refused.value) == message


@pytest.mark.usefixtures("requests")
def test_requests_that_fit_nothing_are_told_and_inputs_made_up(feed: Feeder) -> None:
    fed = feed("image")
    assert fed.inputs["image"].origin == "made-up"
    assert fed.notes[0] == (
        f"Request 1 of '{FILE}' was not fed: it names an input 'n', which the signature does not have."
    )


def test_a_few_bytes_that_stand_for_a_huge_tensor_fill_no_memory(models: Path) -> None:
    import tensorflow as tf

    from graphlens.tf.open import targets, warm_up

    huge = tf.compat.v1.make_tensor_proto(1.0)
    huge.tensor_shape.dim.add(size=1 << 40)
    (models / "any_rank" / FILE).parent.mkdir()
    request = WarmUp((WarmUpRequest(1, "serving_default", {"x": huge.SerializeToString()}),), 1)
    opened = targets.open_target(str(models / "any_rank"), "saved_model")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warm_up, "warm_up_of", lambda _: request)
        (note,) = warm_up.with_request(opened, models / "any_rank", None).notes
    assert note == f"Request 1 of '{FILE}' was not fed: its input 'x' is too large."


@pytest.mark.usefixtures("requests")
def test_random_inputs_of_a_proof_keep_what_bounds_a_loop(models: Path, tmp_path: Path) -> None:
    from graphlens.tf.open import targets, warm_up
    from graphlens.tf.record import preparing

    opened = warm_up.with_request(targets.open_target(str(models / "loop"), "saved_model"), models / "loop", None)
    capture = CaptureDirectory(tmp_path / "capture", CapturedTarget("loop", "saved_model"))
    prepared = preparing.prepare(opened, preparing.Plan(), capture)
    values = {
        spec.name: tensor.numpy() for spec, tensor in zip(prepared.specs, prepared.random_tensors(5), strict=True)
    }
    assert values["n"] == 200
    assert not np.array_equal(values["x"], [0.5, 2.0])


def test_the_analysis_says_what_was_fed_and_that_a_made_up_number_decides(models: Path) -> None:
    """Through the recording process, as a user calls it."""
    import graphlens

    made_up = graphlens.analyze(str(models / "loop"), prove=False, steps=3)
    rows = {row.name: row for row in made_up.document.inputs}
    assert (rows["n"].origin, rows["n"].range, rows["n"].shape) == ("made-up", (1, 1), ())
    assert (rows["x"].origin, rows["x"].decides) == ("made-up", "")
    assert made_up.quality.grade == "poor"
    assert f"'n' decides {rows['n'].decides}, and its value is made up: give it with --inputs FILE.npz" in (
        made_up.quality.reasons
    )
    given = graphlens.analyze(str(models / "loop"), {"n": np.int32(40)}, prove=False, steps=3)
    assert [row.origin for row in given.document.inputs if row.name == "n"] == ["given"]
    assert not [reason for reason in given.quality.reasons if "made up" in reason]


def test_a_function_of_a_ragged_tensor_is_fed_rows(tmp_path: Path) -> None:
    import tensorflow as tf

    from graphlens.tf.open import callables
    from graphlens.tf.record import preparing

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
    def lengths(ids: Any) -> Any:
        return ids.row_lengths() + tf.cast(tf.shape(ids.flat_values)[0], tf.int64) * 100

    def made(target: Any, example: Any, **plan: Any) -> tuple[list[list[int]], list[int]]:
        capture = CaptureDirectory(tmp_path / "capture", CapturedTarget("lengths", "callable"))
        prepared = preparing.prepare(callables.open_object(target, example), preparing.Plan(**plan), capture)
        return [tensor.numpy().tolist() for tensor in prepared.tensors[1:]], prepared.step().numpy().tolist()

    assert made(lengths, None, shapes={"ids/0": (12,)}, batch=3) == ([[0, 4, 8, 12]], [1204, 1204, 1204])
    example = tf.ragged.constant([[5, 6, 7], [], [8]], dtype=tf.int64)
    assert made(lengths, (example,)) == ([[0, 3, 3, 4]], [403, 400, 401])
    concrete = lengths.get_concrete_function()
    assert made(concrete, (example,)) == ([[0, 3, 3, 4]], [403, 400, 401])
