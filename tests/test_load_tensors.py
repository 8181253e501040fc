"""Constants keep their small values, and no weight survives stripping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from load_helpers import add_function, graph_def
from oracles import tensor_bytes
from tensorboard.compat.proto import graph_pb2, tensor_pb2

from graphlens.loaders.attrs import short_float
from graphlens.loaders.graphdef import build_graph, strip_weights
from graphlens.loaders.tensors import constant_of, digest_of

DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "float16": 19,
}


def tensor(values, dtype: str):
    """Encode ``values`` the way TensorFlow does for most constants."""
    array = np.asarray(values, dtype)
    message = tensor_pb2.TensorProto(dtype=DTYPES[dtype], tensor_content=array.tobytes())
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    return message


def const(value, name="c"):
    message = graph_def((name, "Const", ()))
    message.node[0].attr["value"].tensor.CopyFrom(value)
    message.node[0].attr["dtype"].type = value.dtype
    return message


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_small_values_are_what_numpy_says(dtype):
    array = np.array([[0, 1, 0.5], [3, 100, 1]]).astype(dtype)
    constant = constant_of(tensor(array, dtype))
    assert constant.values == tuple(array.ravel().tolist())
    assert constant.nbytes == array.nbytes


@given(arrays(np.float32, st.integers(0, 64)))
def test_floats_survive_as_the_same_float32(array):
    values = constant_of(tensor(array, "float32")).values
    np.testing.assert_array_equal(np.array(values, np.float32), array)


@given(st.floats(width=32, allow_nan=False))
def test_short_floats_are_the_same_float32(value):
    assert np.float32(short_float(value)) == np.float32(value)


def test_bfloat16_and_half_fields():
    half = tensor_pb2.TensorProto(dtype=19, half_val=[0x3C00])
    brain = tensor_pb2.TensorProto(dtype=14, half_val=[0x3FC0])
    assert constant_of(half).values == (1.0,)
    assert constant_of(brain).values == (1.5,)


def test_the_last_stored_element_stands_for_the_rest():
    message = tensor_pb2.TensorProto(dtype=1, float_val=[2.0, 5.0])
    message.tensor_shape.dim.add(size=4)
    assert constant_of(message).values == (2.0, 5.0, 5.0, 5.0)


@pytest.mark.parametrize(("number", "zero"), [(1, 0.0), (3, 0), (10, False)])
def test_nothing_stored_means_zeros(number, zero):
    message = tensor_pb2.TensorProto(dtype=number)
    message.tensor_shape.dim.add(size=2)
    values = constant_of(message).values
    assert values == (zero, zero)
    assert type(values[0]) is type(zero)


def test_equal_values_have_equal_digests_however_encoded():
    packed = tensor([7, 7, 7], "int32")
    splat = tensor_pb2.TensorProto(dtype=3, int_val=[7])
    splat.tensor_shape.dim.add(size=3)
    assert digest_of(packed) == digest_of(splat)
    assert digest_of(packed) != digest_of(tensor([7, 7, 8], "int32"))
    assert digest_of(packed) != digest_of(tensor([[7, 7, 7]], "int32")), "the shape is part of a value"


def test_corrupt_content_gives_no_value():
    message = tensor([1, 2, 3], "float32")
    message.tensor_content = message.tensor_content[:-1]
    assert constant_of(message).values is None


def test_strings_have_a_size_and_no_values():
    message = tensor_pb2.TensorProto(dtype=7, string_val=[b"ab", b"cde"])
    message.tensor_shape.dim.add(size=2)
    constant = constant_of(message)
    assert (constant.nbytes, constant.values) == (5, None)


@given(st.lists(st.integers(0, 3000), max_size=4), st.lists(st.integers(0, 3000), max_size=4))
def test_stripping_keeps_no_large_content_and_every_identity(main, body):
    message = graph_def()
    function = add_function(message, "f", [])
    for nodes, sizes in ((message.node, main), (function.node_def, body)):
        for index, size in enumerate(sizes):
            node = nodes.add(name=f"c{index}", op="Const")
            node.attr["value"].tensor.CopyFrom(tensor(np.arange(size), "float32"))
    stripped = strip_weights(message)
    assert max(tensor_bytes(stripped.SerializeToString()), default=0) <= 64 * 4
    for name in ("", "f"):
        before, after = (build_graph(graph).functions[name].graph for graph in (message, stripped))
        for node in before:
            old, new = before.op(node), after.op(node)
            assert (new.outputs, new.constant.nbytes, new.constant.digest) == (
                old.outputs,
                old.constant.nbytes,
                old.constant.digest,
            )


def test_stripping_keeps_all_else():
    message = const(tensor(np.arange(3), "int32"))
    message.node.add(name="op", op="Op", input=["c", "^c"], device="/cpu:0").attr["x"].i = 3
    message.versions.producer = 1882
    add_function(message, "f", [("n", "Neg", ("a",))], args=("a",), results={"r": "n:y:0"})
    message.library.function[0].arg_attr[0].attr["_output_shapes"].list.shape.add()
    assert strip_weights(message) == message


def test_stripping_twice_changes_nothing():
    once = strip_weights(const(tensor(np.arange(1000), "float32")))
    assert strip_weights(once) == once


def test_weights_in_other_places_are_stripped_too():
    message = graph_def(("m", "XlaCallModule", ()))
    message.node[0].attr["module"].s = b"\x01" * 100_000
    message.node[0].attr["tables"].list.tensor.append(tensor(np.arange(500), "float32"))
    message.node[0].attr["f"].func.attr["w"].tensor.CopyFrom(tensor(np.arange(500), "float32"))
    message.node[0].attr["f"].func.name = "g"
    data = strip_weights(message).SerializeToString()
    assert len(data) < 400
    assert graph_pb2.GraphDef.FromString(data).node[0].attr["f"].func.name == "g"
