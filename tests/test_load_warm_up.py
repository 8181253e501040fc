"""Requests for warming up are read from the file that TensorFlow Serving's own messages wrote, whole or damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tensorboard.compat.proto import tensor_pb2

from graphlens.loaders.warm_up import FILE, MOST_REQUESTS, WarmUp, warm_up_of

RECORDED = Path(__file__).parents[1] / "fixtures" / "warm_up" / "requests"
FLOAT, INT = 1, 3  # DataType


def read(tmp_path: Path, content: bytes) -> WarmUp:
    file = tmp_path / FILE
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return warm_up_of(tmp_path)


def record(content: bytes) -> bytes:
    """One record of a TFRecord; its checksums are wrong."""
    return struct.pack("<QI", len(content), 0) + content + struct.pack("<I", 0)


def tensor(serialized: bytes) -> tuple[int, list[int], list[float]]:
    found = tensor_pb2.TensorProto.FromString(serialized)
    return found.dtype, [dim.size for dim in found.tensor_shape.dim], [*found.int_val, *found.float_val]


def example(key: bytes, number: float) -> bytes:
    """The bytes of a tf.train.Example with one feature of one number, by hand."""

    def field(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content)]) + content

    feature = field(0x12, field(0x0A, struct.pack("<f", number)))  # Feature.float_list, FloatList.value
    entry = field(0x0A, key) + field(0x12, feature)  # key and value of a map
    return field(0x0A, field(0x0A, entry))  # Example.features, Features.feature


def test_every_kind_of_request_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, RECORDED.read_bytes())
    assert (found.count, found.notes) == (7, ())
    assert [(one.number, one.signature) for one in found.requests] == [
        (1, "serving_default"),  # none was named
        (2, "serving_default"),
        (3, "classify"),
        (4, "regress"),
        (5, "session"),
        (6, "classify"),
        (6, "regress"),
        (7, "stream"),
    ]


def test_tensors_stand_under_the_names_of_inputs(tmp_path: Path) -> None:
    first, second, *_, stream = read(tmp_path, RECORDED.read_bytes()).requests
    assert {name: tensor(value) for name, value in first.tensors.items()} == {
        "n": (INT, [], [200]),
        "x": (FLOAT, [2], []),  # written as bytes
    }
    assert (tensor(second.tensors["n"]), tensor(stream.tensors["n"])) == ((INT, [], [50]), (INT, [], [7]))


def test_examples_stand_for_the_one_input_of_a_parser_with_what_they_have_in_common(tmp_path: Path) -> None:
    by_kind = {(one.number, one.signature): one for one in read(tmp_path, RECORDED.read_bytes()).requests}
    assert by_kind[3, "classify"].examples == (example(b"a", 1), example(b"a", 2))
    shared = example(b"b", 3)  # messages are merged by putting one behind the other
    assert by_kind[4, "regress"].examples == (example(b"a", 1) + shared, example(b"a", 2) + shared)
    assert by_kind[6, "classify"].examples == by_kind[6, "regress"].examples == (example(b"a", 4),)


def test_a_model_without_the_file_has_no_requests(tmp_path: Path) -> None:
    assert warm_up_of(tmp_path) == WarmUp()


@pytest.mark.parametrize("cut", [1, 3, 5, 20])
def test_requests_before_a_cut_are_read_and_the_cut_is_told(tmp_path: Path, cut: int) -> None:
    found = read(tmp_path, RECORDED.read_bytes()[:-cut])
    assert [one.number for one in found.requests] == [1, 2, 3, 4, 5, 6, 6]
    assert found.notes == (f"'{FILE}' is damaged from request 7 on: the requests before it were read.",)


def test_bytes_that_are_no_request_are_left_out_and_told(tmp_path: Path) -> None:
    found = read(tmp_path, record(b"\xff\xff\xff") + RECORDED.read_bytes())
    assert found.count == 8
    assert [one.number for one in found.requests][:2] == [2, 3]
    assert found.notes == (f"Request 1 of '{FILE}' is damaged and was left out.",)


@pytest.mark.parametrize("content", [b"\x1f\x8b" + bytes(40), b"version https://git-lfs.github.com/spec/v1\nsize 9\n"])
def test_a_file_of_something_else_is_told(tmp_path: Path, content: bytes) -> None:
    found = read(tmp_path, content)
    assert found.requests == ()
    assert len(found.notes) == 1


def test_no_more_are_read_than_a_server_takes(tmp_path: Path) -> None:
    first = RECORDED.read_bytes()
    length = 16 + struct.unpack_from("<Q", first)[0]
    found = read(tmp_path, first[:length] * (MOST_REQUESTS + 5))
    assert len(found.requests) == MOST_REQUESTS
