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
from graphlens.tf.open import consumers, following, guessing, inputs, sizes
from graphlens.tf.open.inputs import InputSpec

NO_GRAPH = following.graph_of(graph_pb2.GraphDef())

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


def graph(text: str, **captured: tuple[int | None, ...]) -> following.Graph:
    return following.graph_of(text_format.Parse(text, graph_pb2.GraphDef()), captured)


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_the_batch_is_one_unless_it_is_given() -> None:
    assert inputs.resolve([IMAGE], {}, None, {})[0].shape == (1, 224, 224, 3)
    assert inputs.resolve([IMAGE], {}, 8, {})[0].shape == (8, 224, 224, 3)


def test_an_open_size_names_the_input_and_the_flag() -> None:
    with pytest.raises(
        UsageError, match=r"input 'ids' has sizes that the model leaves open \(1,\?\).*--shape ids=1,\?"
    ):
        inputs.resolve([SEQUENCE], {}, None, {})


def test_all_open_inputs_are_named_at_once() -> None:
    specs = [IMAGE, SEQUENCE, InputSpec("mask", "float32", (None, None, 4)), InputSpec("rate", "float32", None)]
    with pytest.raises(UsageError) as caught:
        inputs.resolve(specs, {}, 2, {})
    assert str(caught.value) == (
        "3 inputs have shapes that the model leaves open: give them with --shape ids=2,? --shape mask=2,?,4 "
        "--shape rate=…, every ? a number and every … a whole shape (nothing, for a scalar)"
    )
    with pytest.raises(UsageError, match=r"^2 inputs have .* --shape mask=2,.,4 --shape rate=…"):
        inputs.resolve(specs, {"ids": (2, 16)}, 2, {})


def test_a_known_leading_size_is_kept_in_the_advice() -> None:
    with pytest.raises(UsageError, match=r"--shape right=3,\?"):
        inputs.resolve([InputSpec("right", "float32", (3, None))], {}, 8, {})


def test_a_given_shape_closes_an_open_size() -> None:
    assert inputs.resolve([SEQUENCE], {"ids": (2, 16)}, None, {})[0].shape == (2, 16)


def test_an_unknown_rank_asks_for_a_shape_and_tells_how_to_say_a_scalar() -> None:
    with pytest.raises(UsageError, match="--shape x=1,224,224,3, or --shape x= for a scalar"):
        inputs.resolve([InputSpec("x", "float32", None)], {}, None, {})
    assert inputs.resolve([InputSpec("x", "float32", None)], {"x": ()}, None, {})[0].shape == ()


@pytest.mark.parametrize(
    ("shapes", "arrays", "message"),
    [
        ({"picture": (1,)}, {}, "--shape names the input 'picture', which the model does not have; its inputs: image"),
        ({}, {"picture": np.ones(1)}, "--inputs names the input 'picture'"),
        ({"image": (1, 224)}, {}, r"--shape gives 'image' the shape \(1,224\), but the model wants \(\?,224,224,3\)"),
        ({}, {"image": np.ones((1, 2, 2, 3))}, r"--inputs gives 'image' the shape \(1,2,2,3\)"),
        ({"image": ()}, {}, r"--shape gives 'image' the shape \(\) of a scalar, but the model wants \(\?,224,224,3\)"),
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
    assert made.captured() == CapturedInput("image", "float32", (1, 224, 224, 3), "given", (0.5, 0.5))
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


# -- what the graph says of sizes -------------------------------------------------------------------------------------

# n is compared with a counter in the condition of a loop, and handed to its body, which does nothing with it.
LOOP = """
node { name: "n" op: "Placeholder" }
node { name: "x" op: "Placeholder" }
node { name: "zero" op: "Const" }
node { name: "loop" op: "While" input: "zero" input: "n" input: "x"
       attr { key: "cond" value { func { name: "go_on" } } } attr { key: "body" value { func { name: "go" } } } }
library {
  function {
    signature { name: "go_on" input_arg { name: "i" } input_arg { name: "limit" } input_arg { name: "state" }
                output_arg { name: "more" } }
    node_def { name: "Less" op: "Less" input: "i" input: "limit" }
    ret { key: "more" value: "Less:z:0" } }
  function {
    signature { name: "go" input_arg { name: "i" } input_arg { name: "limit" } input_arg { name: "state" }
                output_arg { name: "i" } output_arg { name: "limit" } output_arg { name: "state" } }
    ret { key: "i" value: "i" } ret { key: "limit" value: "limit" } ret { key: "state" value: "state" } } }
"""

# A loop of TensorFlow 1 until the longest of the lengths.
FRAMES = """
node { name: "lengths" op: "Placeholder" }
node { name: "longest" op: "Max" input: "lengths" input: "axes" }
node { name: "enter" op: "Enter" input: "longest" }
node { name: "less" op: "Less" input: "counter" input: "enter" }
node { name: "loop" op: "LoopCond" input: "less" }
"""


def read_by(line: str, *more: str) -> following.Graph:
    return graph('node { name: "n" op: "Placeholder" }\n' + "\n".join((f"node {{ {line} }}", *more)))


def test_an_integer_in_the_condition_of_a_loop_decides_how_often_it_runs() -> None:
    assert sizes.decision(graph(LOOP), "n") == sizes.Decision("how often the loop 'loop' runs", loop=True)
    assert sizes.decision(graph(LOOP), "x") is None
    assert sizes.decision(graph(FRAMES), "lengths") == sizes.Decision(
        "how often the loop around 'loop' runs", loop=True
    )


# A function that hands back one number made of each argument, called twice: m goes through the first call, n through
# the second one.
CALLS = """
node { name: "m" op: "Placeholder" }
node { name: "n" op: "Placeholder" }
node { name: "first" op: "PartitionedCall" input: "zero" input: "m" attr { key: "f" value { func { name: "both" } } } }
node { name: "call" op: "PartitionedCall" input: "zero" input: "n" attr { key: "f" value { func { name: "both" } } } }
node { name: "range" op: "Range" input: "zero" input: "call:PORT" input: "one" }
library { function {
  signature { name: "both" input_arg { name: "a" } input_arg { name: "b" } output_arg { name: "p" }
              output_arg { name: "q" } }
  node_def { name: "plus" op: "AddV2" input: "b" input: "b" }
  ret { key: "q" value: "plus:z:0" } ret { key: "p" value: "a" } } }
"""


def test_what_a_called_function_hands_back_decides_where_that_result_is_read() -> None:
    decided = sizes.Decision("the size of 'range' (Range)", loop=False)
    assert sizes.decision(graph(CALLS.replace("PORT", "1")), "n") == decided
    assert sizes.decision(graph(CALLS.replace("PORT", "0")), "n") is None, "that is the other result"
    assert sizes.decision(graph(CALLS.replace("PORT", "1")), "m") is None, "it goes through the other call"


def test_a_value_that_the_body_hands_to_the_next_iteration_decides_how_often_a_loop_runs() -> None:
    """The state of the loop becomes the limit with which the next iteration is compared."""
    swapped = LOOP.replace('key: "limit" value: "limit"', 'key: "limit" value: "state"')
    assert sizes.decision(graph(swapped), "x") == sizes.Decision("how often the loop 'loop' runs", loop=True)


@pytest.mark.parametrize(
    "line",
    [
        'name: "r" op: "Range" input: "zero" input: "n" input: "one"',
        'name: "f" op: "Fill" input: "n" input: "zero"',
        'name: "t" op: "Tile" input: "data" input: "n"',
        'name: "s" op: "Reshape" input: "data" input: "n"',
        'name: "k" op: "TopKV2" input: "data" input: "n"',
        'name: "c" op: "StridedSlice" input: "data" input: "zero" input: "n" input: "one"',
    ],
)
def test_an_integer_at_the_place_of_a_size_decides_it(line: str) -> None:
    decided = sizes.decision(read_by(line), "n")
    assert decided is not None
    assert not decided.loop
    assert decided.words.startswith("the size of ")


@pytest.mark.parametrize(
    "line",
    [
        'name: "g" op: "GatherV2" input: "table" input: "n" input: "zero"',
        'name: "t" op: "Tile" input: "n" input: "times"',
        'name: "s" op: "Shape" input: "n"',
        # x[n], an index: of one dimension, which is dropped
        'name: "i" op: "StridedSlice" input: "x" input: "n" input: "n" input: "one" '
        'attr { key: "shrink_axis_mask" value { i: 1 } }',
        # x[n:n + size] of what the input is itself: its values decide nothing
        'name: "d" op: "StridedSlice" input: "n" input: "zero" input: "ten" input: "one"',
    ],
)
def test_an_integer_that_is_data_or_an_index_decides_no_size(line: str) -> None:
    assert sizes.decision(read_by(line), "n") is None


def test_a_slice_of_two_dimensions_is_as_long_as_the_one_that_is_cut() -> None:
    """``x[:, :n]`` is; of ``x[:, n]`` the first dimension is whole and the second one dropped."""
    pack = 'node { name: "p" op: "Pack" input: "zero" input: "n" attr { key: "N" value { i: 2 } } }'
    line = 'name: "c" op: "StridedSlice" input: "x" input: "zeros" input: "p" input: "ones"'
    cut = line + ' attr { key: "begin_mask" value { i: 3 } } attr { key: "end_mask" value { i: 1 } }'
    assert sizes.decision(read_by(cut, pack), "n") is not None
    assert sizes.decision(read_by(cut + ' attr { key: "shrink_axis_mask" value { i: 2 } }', pack), "n") is None


def test_a_made_up_integer_that_decides_something_is_one_and_says_what() -> None:
    spec = InputSpec("n", "int32", (), "n")
    (made,) = inputs.make([spec], {}, graph(LOOP))
    assert made.captured() == CapturedInput(
        "n", "int32", (), "made-up", (1, 1), decides="how often the loop 'loop' runs", loop=True
    )
    (given,) = inputs.make([spec], {"n": np.int32(200)}, graph(LOOP))
    assert given.captured() == CapturedInput("n", "int32", (), "given", (200, 200))


IMAGES = """
node { name: "image" op: "Placeholder" }
node { name: "cast" op: "Cast" input: "image" }
node { name: "scaled" op: "Mul" input: "scale" input: "cast" }
node { name: "conv" op: "Conv2D" input: "scaled" input: "kernel" }
"""


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, None, None, 3), (1, 224, 224, 3)),
        ((None, None, None, 1), (None, 224, 224, 1)),
        ((None, 3, None, None), (None, 3, 224, 224)),
        ((1, 64, None, 3), (1, 64, None, 3)),  # a strip, or a spectrum: no image of any size
        ((None, None, 3), (None, None, 3)),  # a sequence may be read by a convolution too
        ((None, None), (None, None)),
    ],
)
def test_an_image_of_open_size_that_a_convolution_reads_is_guessed(shape: tuple, told: tuple) -> None:
    (spec,) = guessing.told([InputSpec("image", "uint8", shape, "image")], (), graph(IMAGES))
    assert spec.shape == told
    assert bool(spec.guessed) == (shape != told)


def test_a_picture_without_a_batch_is_known_by_being_resized() -> None:
    text = IMAGES.replace("Conv2D", "ResizeBilinear")
    (spec,) = guessing.told([InputSpec("image", "uint8", (None, None, 3), "image")], (), graph(text))
    assert spec.shape == (224, 224, 3)


def test_what_is_no_image_or_was_given_is_not_guessed() -> None:
    spec = InputSpec("image", "float32", (1, None, None, 3), "image")
    assert guessing.told([spec], (), graph(IMAGES.replace("Conv2D", "MatMul"))) == (spec,)
    assert guessing.told([spec], {"image"}, graph(IMAGES)) == (spec,)


# The lengths of rows, as TensorFlow computes them of where rows begin.
ROWS = """
node { name: "ids" op: "Placeholder" }
node { name: "ids_1" op: "Placeholder" }
node { name: "ids_2" op: "Placeholder" }
node { name: "begins" op: "StridedSlice" input: "ids_1" input: "zero" input: "minus_one" input: "one" }
node { name: "ends" op: "StridedSlice" input: "ids_1" input: "one" input: "zero" input: "one" }
node { name: "lengths" op: "Sub" input: "ends" input: "begins" }
node { name: "dense" op: "RaggedTensorToTensor"
       input: "shape" input: "ids" input: "zero" input: "ids_1" input: "ids_2" }
"""


def rows(*names: str, batch: int | None = None, **shapes: tuple[int, ...]) -> dict[str, list[int]]:
    specs = [InputSpec(name, "int64", (None,), name) for name in names]
    told = guessing.told(specs, shapes, graph(ROWS))
    resolved = inputs.resolve(told, shapes, batch, {})
    made = inputs.make(resolved, {}, graph(ROWS))
    return {one.spec.name: one.value.tolist() for one in made if one.spec.splits_of}


def test_row_splits_hold_all_values_of_a_ragged_tensor() -> None:
    assert rows("ids", "ids_1") == {"ids_1": [0, 1]}
    assert rows("ids", "ids_1", ids=(128,)) == {"ids_1": [0, 128]}
    assert rows("ids", "ids_1", ids=(128,), batch=4) == {"ids_1": [0, 32, 64, 96, 128]}
    assert rows("ids", "ids_1", ids=(128,), ids_1=(3,)) == {"ids_1": [0, 64, 128]}


def test_outer_row_splits_hold_all_inner_rows() -> None:
    assert rows("ids", "ids_1", "ids_2", ids=(12,), ids_2=(4,)) == {"ids_1": [0, 3], "ids_2": [0, 4, 8, 12]}


def test_numbers_that_split_nothing_are_no_row_splits() -> None:
    specs = [InputSpec(name, "int64", (None,), name) for name in ("ids", "ids_1")]
    assert guessing.told(specs, (), graph(ROWS.replace('"Sub"', '"Mul"').replace("Ragged", "Dense"))) == tuple(specs)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([[3, -1]], "int32"), (-1, 3)),
        (np.array([True, False]), (0, 1)),
        (np.array([1 + 2j]), None),
        (np.array([b"text"], object), None),
        (np.zeros((0, 3)), None),
        (np.array([np.inf, 1.0]), None),
    ],
)
def test_a_range_is_told_of_numbers_that_have_an_order(value: np.ndarray, found: tuple | None) -> None:
    assert inputs.range_of(value) == found
