"""Functions survive the way out and back: copied unedited, and written as SavedModels that other processes load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from end_to_end import python
from real_inputs import REAL

from graphlens.errors import RewriteError, UsageError
from graphlens.ir.edits import FoldAffine, RemoveDropout

pytestmark = pytest.mark.tf
TOLERANCE = 1e-5  # relative; a loop repeats the rounding of the folded weights

# Runs in a process of its own: loads two SavedModels and prints the largest difference of every output of every
# signature, on the same inputs, relative to the largest number.
COMPARE = """
import sys, numpy as np, tensorflow as tf
one, other = map(tf.saved_model.load, sys.argv[1:3])
random = np.random.default_rng(3)
assert sorted(one.signatures) == sorted(other.signatures), (sorted(one.signatures), sorted(other.signatures))
worst = 0.0
for key in one.signatures:
    before, after = one.signatures[key], other.signatures[key]
    assert before.structured_input_signature == after.structured_input_signature, key
    assert before.structured_outputs == after.structured_outputs, (before.structured_outputs, after.structured_outputs)
    fed = {}
    for name, spec in before.structured_input_signature[1].items():
        shape = [size or 2 for size in spec.shape]
        words = np.resize(np.array(["reads", "nothing", "graphs"]), shape)
        fed[name] = tf.constant(words if spec.dtype == tf.string else random.random(shape), spec.dtype)
    expected, found = before(**fed), after(**fed)
    for name in expected:
        scale = max(np.abs(expected[name].numpy()).max(), 1e-30)
        worst = max(worst, float(np.abs(expected[name].numpy() - found[name].numpy()).max() / scale))
print(worst)
"""


# The same, for a model that reads serialized examples: two taxi companies and ways to pay that its vocabularies know.
TAXI = """
import tensorflow as tf
from graphlens.tf.open.saved_models import loaded_saved_model
def feature(value):
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
numbers = dict(trip_miles=2.5, trip_seconds=600, fare=9.25, trip_start_hour=17, trip_start_day=4, trip_start_month=5)
places = dict(pickup_latitude=41.88, pickup_longitude=-87.63, dropoff_latitude=41.89, dropoff_longitude=-87.62)
rows = []
for company, payment in (("Taxi Affiliation Services", "Cash"), ("Flash Cab", "Credit Card")):
    values = {**numbers, **places, "company": company, "payment_type": payment}
    example = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in values.items()}))
    rows.append(example.SerializeToString())
for folder in FOLDERS:
    with loaded_saved_model(folder, None) as (loaded, _):  # one op of it has no kernel any more, and is replaced
        function = loaded.signatures["serving_default"]
        keyword = next(iter(function.structured_input_signature[1]))
        print(function(**{keyword: tf.constant(rows)})["scores"].numpy().tobytes().hex())
"""


def difference(one: Path, other: Path) -> float:
    """Compare two SavedModels in a fresh process."""
    return float(python("-c", COMPARE, str(one), str(other)).split()[-1])


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with everything: a vocabulary asset, a table, a loop, a conditional, and two signatures."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("rich")
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("reads\ngraphs\n")

    class Rich(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            source = tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.table = tf.lookup.StaticVocabularyTable(source, 1)
            random = np.random.default_rng(5)
            self.embeddings = tf.Variable(random.normal(size=(3, 8)).astype("float32"), name="embeddings")
            self.weights = tf.Variable(random.normal(size=(8, 8)).astype("float32"), name="weights")
            self.scale = tf.Variable(random.uniform(0.5, 1.5, 8).astype("float32"), name="scale")
            self.shift = tf.Variable(random.normal(size=8).astype("float32"), name="shift")

        def layer(self, x: Any) -> Any:
            return tf.nn.relu(tf.matmul(x, self.weights, name="layer") * self.scale + self.shift)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="words")])
        def words(self, words: Any) -> dict[str, Any]:
            state = self.layer(tf.nn.embedding_lookup(self.embeddings, self.table.lookup(words)))
            for index in tf.range(4):
                updated = tf.tanh(tf.matmul(state, self.weights))
                state = tf.cond(index % 2 == 0, lambda updated=updated: updated, lambda updated=updated: -updated)
            return {"state": state, "length": tf.strings.length(words)}

        @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="rows")])
        def rows(self, rows: Any) -> dict[str, Any]:
            return {"out": self.layer(rows)}

    module = Rich()
    target = folder / "model"
    tf.saved_model.save(module, str(target), signatures={"words": module.words, "rows": module.rows})
    return target


# -- copied, not edited ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_cnn", "lstm", "while_if", "jit", "demo", "tiny.keras"])
def test_a_copy_gives_the_same_bits(small_models: Path, lab: Any, name: str) -> None:
    assert same_bits(lab, small_models / name)


@pytest.mark.parametrize(
    "name", ["basic_pitch_savedmodel", "half_plus_two_gpu_savedmodel/00000123", "tfx_taxi_savedmodel"]
)
def test_copies_of_models_that_others_made_give_the_same_bits(lab: Any, name: str) -> None:
    assert same_bits(lab, REAL / name)


def same_bits(lab: Any, path: Path) -> bool:
    import tensorflow as tf

    from graphlens.tf.open import following, inputs, targets
    from graphlens.tf.record import graphs

    opened = targets.open_target(str(path), "keras" if path.suffix else "saved_model")
    specs = inputs.resolve(opened.specs, {}, None, {})
    traced = opened.trace(specs)
    built = lab.rewrite.build(lab.rewrite.extract(opened, specs))
    followed = following.graph_of(
        traced.concrete.graph.as_graph_def(add_shapes=True), graphs.captured_shapes(traced.concrete)
    )
    made = inputs.make(specs, {}, followed)
    tensors = [tf.convert_to_tensor(one.value, dtype=one.spec.dtype) for one in made]
    before, after = traced.call(tensors), built.call(tensors)
    tf.nest.assert_same_structure(before, after)
    pairs = zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True)
    return all(one.dtype == other.dtype and np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)


def test_effects_and_their_order_survive(lab: Any) -> None:
    import tensorflow as tf

    state = tf.Variable(1.0)
    lab.KEPT.append(state)

    @tf.function
    def doubled() -> Any:
        state.assign(state * 2.0)
        return state.read_value()

    def function(x: Any) -> Any:
        first = doubled()
        state.assign_add(1.0)
        return x + first, doubled() + state

    traced = lab.trace(function, np.float32(0))
    built = lab.rewrite.build(traced.program)
    results = []
    for call in (lambda: traced.concrete(*traced.examples), lambda: built.call(traced.examples)):
        state.assign(3.0)
        results.append([float(part) for part in call()] + [float(state)])
    assert results == [[6.0, 28.0, 14.0]] * 2


def test_a_final_softmax_is_looked_behind(lab: Any) -> None:
    import tensorflow as tf

    traced = lab.trace(lambda x: {"classes": tf.nn.softmax(x * 2.0), "raw": x + 1.0}, lab.random(2, 4))
    found = lab.rewrite.build(lab.rewrite.probing(traced.program)).call(traced.examples)
    assert np.array_equal(found["classes"].numpy(), traced.examples[0].numpy() * 2)
    assert np.array_equal(found["raw"].numpy(), traced.examples[0].numpy() + 1)


# -- written --------------------------------------------------------------------------------------------------------


def test_a_model_with_everything_is_written_and_loaded_elsewhere(rich: Path, lab: Any, tmp_path: Path) -> None:
    result = tmp_path / "fixed"
    lab.rewrite.write_saved_model(rich, {"words": [FoldAffine()], "rows": [FoldAffine()]}, result)
    assert difference(rich, result) < TOLERANCE
    assert [path.name for path in (result / "assets").iterdir()] == ["vocabulary.txt"]
    assert bytes_of(result) <= 1.1 * bytes_of(rich)


def test_the_original_may_be_gone_and_the_variables_can_be_checkpointed(rich: Path, lab: Any, tmp_path: Path) -> None:
    import shutil

    import tensorflow as tf

    source, result = tmp_path / "source", tmp_path / "result"
    shutil.copytree(rich, source)
    lab.rewrite.write_saved_model(source, {"rows": [FoldAffine()]}, result)
    shutil.rmtree(source)
    assert difference(rich, result) < TOLERANCE
    loaded = tf.saved_model.load(str(result))
    names = sorted(variable.name for variable in loaded.variables)
    assert names == ["embeddings:0", "layer/folded_bias:0", "scale:0", "shift:0", "weights:0", "weights_folded:0"]
    saved = tf.train.Checkpoint(loaded).save(str(tmp_path / "checkpoint"))
    assert len([key for key, _ in tf.train.list_variables(saved) if "variables" in key]) == len(names)


def test_two_names_of_one_function_stay_one(small_models: Path, lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    lab.rewrite.write_saved_model(small_models / "tiny_cnn", {"serving_default": [FoldAffine()]}, tmp_path / "out")
    assert difference(small_models / "tiny_cnn", tmp_path / "out") < 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert set(loaded.signatures) == {"serve", "serving_default"}
    assert not [variable for variable in loaded.variables if "moving" in variable.name]


def test_ops_are_called_as_in_the_original(small_models: Path, lab: Any, tmp_path: Path) -> None:
    from graphlens.tf.open import targets

    lab.rewrite.write_saved_model(small_models / "tiny_cnn", {}, tmp_path / "out")
    names = [
        {
            node.name
            for node in lab.rewrite.extract(targets.open_target(str(path), "saved_model")).graph.node
            if "/" in node.name
        }
        for path in (small_models / "tiny_cnn", tmp_path / "out")
    ]
    assert {name for name in names[0] if "convolution" in name} <= names[1]


def test_a_keras_file_and_a_function_become_saved_models(small_models: Path, lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    fold = {"serving_default": [FoldAffine()]}
    lab.rewrite.write_saved_model(small_models / "tiny.keras", fold, tmp_path / "keras", kind="keras")
    name = "fixtures.models:tiny_cnn_callable"
    lab.rewrite.write_saved_model(name, fold, tmp_path / "function", kind="callable")
    for written in ("keras", "function"):
        signature = tf.saved_model.load(str(tmp_path / written)).signatures["serving_default"]
        assert signature.structured_outputs["output_0"].shape.as_list() == [None, 10]
        assert signature.structured_input_signature[1]["image"].shape.as_list() == [None, 32, 32, 3]


def test_what_another_signature_writes_is_not_folded(lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    class Learns(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.scale = tf.Variable(tf.ones((4, 4))), tf.Variable(tf.ones(4) * 2)

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def infer(self, x: Any) -> dict[str, Any]:
            return {"y": tf.matmul(x, self.weights) * self.scale}

        @tf.function(input_signature=[tf.TensorSpec((4,), tf.float32, name="scale")])
        def learn(self, scale: Any) -> dict[str, Any]:
            return {"scale": self.scale.assign(scale) + 0.0}

    module = Learns()
    tf.saved_model.save(module, str(tmp_path / "in"), signatures={"infer": module.infer, "learn": module.learn})
    with pytest.raises(RewriteError, match="never change"):
        lab.rewrite.write_saved_model(tmp_path / "in", {"infer": [FoldAffine()]}, tmp_path / "out")
    lab.rewrite.write_saved_model(tmp_path / "in", {}, tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    loaded.signatures["learn"](scale=tf.ones(4) * 5)
    assert loaded.signatures["infer"](x=tf.ones((1, 4)))["y"].numpy().tolist() == [[20.0] * 4]


def test_tables_of_tensorflow_1_are_taken_along(lab: Any, tmp_path: Path) -> None:
    lab.rewrite.write_saved_model(REAL / "tfx_taxi_savedmodel", {}, tmp_path / "out")
    print_scores = TAXI.replace("FOLDERS", repr([str(REAL / "tfx_taxi_savedmodel"), str(tmp_path / "out")]))
    before, after = python("-c", print_scores).split()[-2:]
    assert before == after


def test_reference_variables_of_tensorflow_1_become_variables(lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    source = REAL / "half_plus_two_gpu_savedmodel" / "00000123"
    if not source.is_dir():
        pytest.skip("the real inputs are not beside the repository")
    lab.rewrite.write_saved_model(source, {}, tmp_path / "out")
    before, after = (tf.saved_model.load(str(folder)) for folder in (source, tmp_path / "out"))
    assert set(before.signatures) == set(after.signatures)
    assert sorted(variable.numpy() for variable in after.variables) == [0.5, 2.0, 3.0]
    doubled = after.signatures["serving_default"](x=tf.constant([[1.0], [4.0]]))["y"]
    assert doubled.numpy().tolist() == [[2.5], [4.0]]  # half of it plus two


def test_files_that_the_graph_reads_or_servers_do_are_taken_along_and_the_rest_is_named(
    lab: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    class Reads(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            (tmp_path / "words.txt").write_text("words")
            self.words = tf.saved_model.Asset(str(tmp_path / "words.txt"))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
        def read(self, x: Any) -> dict[str, Any]:
            return {"y": x * 2.0, "text": tf.io.read_file(self.words.asset_path)}

    module = Reads()
    source, result = tmp_path / "source", tmp_path / "result"
    tf.saved_model.save(module, str(source), signatures={"serving_default": module.read})
    (source / "assets.extra").mkdir()
    (source / "assets.extra" / "warm-up").write_text("requests")
    (source / "keras_metadata.pb").write_bytes(b"")
    notes = lab.rewrite.write_saved_model(source, {}, result)
    assert "functions (read) are not kept" in notes[0]
    assert "no Keras model" in notes[1]
    assert (result / "assets.extra" / "warm-up").read_text() == "requests"
    (source / "assets" / "words.txt").unlink()
    loaded = tf.saved_model.load(str(result))
    assert loaded.signatures["serving_default"](x=tf.ones(1))["text"].numpy() == b"words"


def test_an_input_keeps_a_name_that_is_no_keyword(lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    double = tf.function(lambda a_b: {"y": a_b * 2.0}, autograph=False)
    traced = double.get_concrete_function(tf.TensorSpec((None,), tf.float32, name="a-b"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "source"), signatures=traced)
    lab.rewrite.write_saved_model(tmp_path / "source", {}, tmp_path / "result")
    assert difference(tmp_path / "source", tmp_path / "result") == 0


def test_lost_gradients_are_said(lab: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.custom_gradient
    def through(x: Any) -> Any:
        return tf.round(x), lambda upstream: upstream

    program = lab.trace(lambda x: through(x) * 2.0, lab.random(2, 3)).program
    assert "custom_gradient" in lab.rewrite.export({"serving_default": program}, tmp_path / "out")[0]


# -- refused --------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """A folder that has to be empty in the end, hidden files included."""
    folder = tmp_path / "empty"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


def test_nothing_is_written_over(small_models: Path, lab: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        lab.rewrite.write_saved_model(small_models / "tiny_cnn", {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_edit_that_does_not_fit_leaves_nothing(small_models: Path, lab: Any, empty: Path) -> None:
    with pytest.raises(RewriteError):
        lab.rewrite.write_saved_model(small_models / "tiny_cnn", {"serving_default": [RemoveDropout()]}, empty / "out")


def test_a_failing_save_leaves_nothing(
    small_models: Path, lab: Any, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def full(_root: Any, folder: str, **_: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "half").write_text("written")
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(RewriteError, match="No space left"):
        lab.rewrite.write_saved_model(small_models / "tiny_cnn", {}, empty / "out")


def test_a_signature_that_is_not_there_is_named(small_models: Path, lab: Any, empty: Path) -> None:
    with pytest.raises(UsageError, match="no signature 'predict'; it has serve, serving_default"):
        lab.rewrite.write_saved_model(small_models / "tiny_cnn", {"predict": []}, empty / "out")


def test_state_inside_the_graph_that_cannot_be_saved_is_named(lab: Any, empty: Path) -> None:
    import tensorflow as tf

    def queues(x: Any) -> Any:
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], name="queue")
        return x + tf.cast(tf.raw_ops.QueueSizeV2(handle=queue), tf.float32)

    program = lab.trace(queues, lab.random(2, 2)).program
    with pytest.raises(RewriteError, match=r"'queue'.*keeps its state in the graph"):
        lab.rewrite.export({"serving_default": program}, empty / "out")
