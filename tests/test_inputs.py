"""Inputs are made from what the user said and from what the graph does with them, and never guessed silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.compat.proto import graph_pb2

from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedInput
from graphlens.loaders.arrays import read_npz
from graphlens.tf.open import consumers, inputs
from graphlens.tf.open.inputs import InputSpec

NO_GRAPH = consumers.graph_of(graph_pb2.GraphDef())

IMAGE = InputSpec("image", "float32", (None, 224, 224, 3))
SEQUENCE = InputSpec("ids", "int32", (None, None))

# An embedding of 7 rows behind a cast, inside a function that the main graph calls.
LOOKUP = """
node { name: "ids" op: "Placeholder" }
node { name: "table" op: "Placeholder" }
node { name: "call" op: "StatefulPartitionedCall" input: "table" input: "ids"
       attr { key: "f" value { func { name: "lookup" } } } }
library { function {
  signature { name: "lookup" input_arg { name: "weights" } input_arg { name: "which" } }
  node_def { name: "cast" op: "Cast" input: "which" }
  node_def { name: "gather" op: "ResourceGather" input: "weights" input: "cast:y:0" }
} }
"""

ONE_HOT = """
node { name: "day" op: "Placeholder" }
node { name: "depth" op: "Const"
       attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape {} int_val: 5 } } } }
node { name: "hot" op: "OneHot" input: "day" input: "depth" }
"""

PARSER = """
node { name: "examples" op: "Placeholder" }
node { name: "none" op: "Const" attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { dim {} } } } } }
node { name: "sparse" op: "Const" attr { key: "value" value { tensor { dtype: DT_STRING string_val: "tags" } } } }
node { name: "dense" op: "Const"
       attr { key: "value" value { tensor { dtype: DT_STRING string_val: "age" string_val: "day" } } } }
node { name: "parse" op: "ParseExampleV2"
       input: "examples" input: "none" input: "sparse" input: "dense" input: "none"
       attr { key: "Tdense" value { list { type: DT_FLOAT type: DT_INT64 } } }
       attr { key: "sparse_types" value { list { type: DT_STRING } } }
       attr { key: "dense_shapes" value { list { shape { dim { size: 2 } } shape {} } } } }
"""

PARSER_V1 = """
node { name: "examples" op: "Placeholder" }
node { name: "k0" op: "Const" attr { key: "value" value { tensor { dtype: DT_STRING string_val: "tags" } } } }
node { name: "k1" op: "Const" attr { key: "value" value { tensor { dtype: DT_STRING string_val: "age" } } } }
node { name: "parse" op: "ParseExample" input: "examples" input: "k0" input: "k0" input: "k1"
       attr { key: "Nsparse" value { i: 1 } } attr { key: "Ndense" value { i: 1 } }
       attr { key: "Tdense" value { list { type: DT_FLOAT } } }
       attr { key: "sparse_types" value { list { type: DT_INT64 } } }
       attr { key: "dense_shapes" value { list { shape { dim { size: -1 } } } } } }
"""


def graph(text: str, **captured: tuple[int | None, ...]) -> consumers.Graph:
    return consumers.graph_of(text_format.Parse(text, graph_pb2.GraphDef()), captured)


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_the_batch_is_one_unless_it_is_given() -> None:
    assert inputs.resolve([IMAGE], {}, None, {})[0].shape == (1, 224, 224, 3)
    assert inputs.resolve([IMAGE], {}, 8, {})[0].shape == (8, 224, 224, 3)


def test_an_open_size_names_the_input_and_the_flag() -> None:
    with pytest.raises(
        UsageError, match=r"input 'ids' has sizes that the model leaves open \(1,\?\).*--shape ids=1,\?"
    ):
        inputs.resolve([SEQUENCE], {}, None, {})


def test_a_known_leading_size_is_kept_in_the_advice() -> None:
    with pytest.raises(UsageError, match=r"--shape right=3,\?"):
        inputs.resolve([InputSpec("right", "float32", (3, None))], {}, 8, {})


def test_a_given_shape_closes_an_open_size() -> None:
    assert inputs.resolve([SEQUENCE], {"ids": (2, 16)}, None, {})[0].shape == (2, 16)


def test_an_unknown_rank_asks_for_a_shape() -> None:
    with pytest.raises(UsageError, match="--shape x=1"):
        inputs.resolve([InputSpec("x", "float32", None)], {}, None, {})


@pytest.mark.parametrize(
    ("shapes", "arrays", "message"),
    [
        ({"picture": (1,)}, {}, "--shape names the input 'picture', which the model does not have; its inputs: image"),
        ({}, {"picture": np.ones(1)}, "--inputs names the input 'picture'"),
        ({"image": (1, 224)}, {}, r"--shape gives 'image' the shape \(1,224\), but the model wants \(\?,224,224,3\)"),
        ({}, {"image": np.ones((1, 2, 2, 3))}, r"--inputs gives 'image' the shape \(1,2,2,3\)"),
    ],
)
def test_what_does_not_fit_is_said(shapes: dict, arrays: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inputs.resolve([IMAGE], shapes, None, arrays)


# -- values -----------------------------------------------------------------------------------------------------------


def test_ids_stay_within_the_table_that_they_index() -> None:
    spec = InputSpec("ids", "int32", (1000,), "ids")
    (made,) = inputs.make([spec], {}, graph(LOOKUP, table=(7, 16)))
    assert set(made.value) == set(range(7))


def test_ids_stay_within_a_one_hot_depth() -> None:
    assert consumers.id_limit(graph(ONE_HOT), "day") == 5


def test_ids_that_index_nothing_known_are_zero_or_one() -> None:
    (made,) = inputs.make([InputSpec("n", "int64", (100,), "n")], {}, NO_GRAPH)
    assert set(made.value) == {0, 1}


def test_made_values_are_the_same_every_time() -> None:
    spec = InputSpec("x", "float32", (4, 4))
    first, second = (inputs.make([spec], {}, NO_GRAPH)[0].value for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() < 1


def test_a_scalar_switch_is_off_and_a_mask_lets_everything_through() -> None:
    switch, mask = inputs.make([InputSpec("t", "bool", ()), InputSpec("m", "bool", (2,))], {}, NO_GRAPH)
    assert (bool(switch.value), mask.value.tolist()) == (False, [True, True])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PARSER, {"age": ("float32", (2,)), "day": ("int64", ()), "tags": ("string", None)}),
        (PARSER_V1, {"age": ("float32", (1,)), "tags": ("int64", None)}),
    ],
)
def test_parsers_of_examples_say_their_features(text: str, expected: dict) -> None:
    found = consumers.example_features(graph(text), "examples")
    assert {feature.key: (feature.dtype, feature.shape) for feature in found} == expected


def test_given_arrays_are_used_and_say_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", image=np.full((1, 224, 224, 3), 0.5))
    arrays = read_npz(tmp_path / "in.npz")
    (spec,) = inputs.resolve([IMAGE], {}, None, arrays)
    (made,) = inputs.make([spec], arrays, NO_GRAPH)
    assert made.captured() == CapturedInput("image", "float32", (1, 224, 224, 3), "given")
    assert made.value.dtype == np.float32


def test_arrays_of_another_kind_are_refused() -> None:
    spec = InputSpec("ids", "int32", (2,))
    with pytest.raises(UsageError, match="--inputs gives 'ids' as float64, but the model wants int32"):
        inputs.make([spec], {"ids": np.array([0.5, 1.5])}, NO_GRAPH)


def test_an_array_without_a_name_says_how_to_give_it_one(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UsageError, match=r"holds one array without a name: write it with numpy\.savez"):
        read_npz(tmp_path / "one.npy")


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_damaged_file_is_one_line(tmp_path: Path, cut: float) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones(1000))
    content = (tmp_path / "in.npz").read_bytes()
    (tmp_path / "in.npz").write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(UsageError, match=r"not a readable \.npz file of plain arrays"):
        read_npz(tmp_path / "in.npz")


def test_a_pickled_file_is_not_unpacked(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([object()], dtype=object))
    with pytest.raises(UsageError, match=r"not a readable \.npz file of plain arrays"):
        read_npz(tmp_path / "evil.npz")
