"""A checkpoint's index tells names, dtypes and shapes without TensorFlow."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_helpers import REAL, needs_real, run_tensorflow

from graphlens.errors import TargetError
from graphlens.ir.graph import TensorSpec
from graphlens.loaders.checkpoint import read_index
from graphlens.loaders.snappy import decompress
from graphlens.loaders.wire import WireError

LIST_VARIABLES = """
import json, sys, tensorflow as tf
from pathlib import Path
found = {}
for index in Path(sys.argv[2]).rglob("variables.index"):
    prefix = str(index)[: -len(".index")]
    reader = tf.train.load_checkpoint(prefix)
    dtypes = reader.get_variable_to_dtype_map()
    found[prefix] = {name: [dtypes[name].name, shape] for name, shape in tf.train.list_variables(prefix)}
Path(sys.argv[1], 'variables.json').write_text(json.dumps(found))
"""


@pytest.mark.tf
@needs_real
def test_the_reader_agrees_with_tensorflow_on_every_real_checkpoint(tmp_path):
    run_tensorflow(LIST_VARIABLES, tmp_path, REAL)
    expected = json.loads((tmp_path / "variables.json").read_text())
    assert len(expected) >= 5
    for prefix, variables in expected.items():
        read = read_index((REAL / prefix).with_suffix(".index"))
        assert read == {name: TensorSpec(dtype, tuple(shape)) for name, (dtype, shape) in variables.items()}


@needs_real
def test_a_compressed_index_is_read():
    read = read_index(REAL / "tfx_taxi_savedmodel/variables/variables.index")
    assert read["global_step"] == TensorSpec("int64", ())


@needs_real
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_a_damaged_index_is_refused_in_one_line(tmp_path, keep):
    whole = (REAL / "basic_pitch_savedmodel/variables/variables.index").read_bytes()
    damaged = tmp_path / "variables.index"
    damaged.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(TargetError, match="no readable checkpoint index"):
        read_index(damaged)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        (bytes([5, 4 << 2]) + b"hello", b"hello"),
        # a literal "ab", then a copy of ten bytes from two bytes back: source and target overlap
        (bytes([12, 1 << 2]) + b"ab" + bytes([(10 - 4) << 2 | 1, 2]), b"ab" * 6),
        (bytes([8, 3 << 2]) + b"wxyz" + bytes([3 << 2 | 2, 4, 0]), b"wxyzwxyz"),
    ],
)
def test_snappy_blocks_of_the_format_description(compressed, plain):
    assert decompress(compressed) == plain


@given(st.binary(max_size=40))
def test_random_bytes_are_no_snappy_block_or_decompress(data):
    with contextlib.suppress(WireError, IndexError):
        decompress(data)
