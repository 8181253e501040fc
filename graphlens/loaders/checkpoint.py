"""Names, dtypes and shapes of a checkpoint's tensors, from its index file: a LevelDB table of protobuf entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graphlens.errors import TargetError
from graphlens.ir.graph import TensorSpec
from graphlens.loaders.attrs import dtype_name, shape_of
from graphlens.loaders.files import read_bytes
from graphlens.loaders.snappy import decompress
from graphlens.loaders.wire import VARINT, WireError, fields, read_varint

MAGIC: Final = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES: Final = 48
_UNCOMPRESSED: Final = 0
_SNAPPY: Final = 1
_RESTART_BYTES: Final = 4
_BLOCK_LIMIT: Final = 1 << 28  # an index block beyond 256 MiB is corrupt, TensorFlow writes 256 KiB

# Fields of BundleEntryProto.
_DTYPE, _SHAPE = 1, 2


def read_index(path: Path) -> dict[str, TensorSpec]:
    """Return the tensors that the checkpoint index ``path`` lists, in its (sorted) order.

    Raises
    ------
    TargetError
        When the file is damaged.
    """
    data = read_bytes(path)
    try:
        return {key.decode("utf-8", "replace"): _spec(value) for key, value in _entries(data) if key}
    except (WireError, ValueError, IndexError) as error:
        raise TargetError(f"'{path}' is no readable checkpoint index ({error}); copy it again") from error


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of every entry: the footer points to the index block, which points to the data blocks."""
    if len(data) < _FOOTER_BYTES or not data.endswith(MAGIC):
        raise WireError("the table's footer is missing")
    footer = data[-_FOOTER_BYTES:]
    _, position = _handle(footer, 0)  # the meta index, which TensorFlow leaves empty
    index, _ = _handle(footer, position)
    for _, pointer in _block(data, index):
        yield from _block(data, _handle(pointer, 0)[0])


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    offset, size = handle
    if size > _BLOCK_LIMIT or offset + size >= len(data):
        raise WireError("a block lies outside of the file")
    block = _plain(data[offset : offset + size], data[offset + size])
    restarts = int.from_bytes(block[-_RESTART_BYTES:], "little")
    end = len(block) - _RESTART_BYTES * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        fresh, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if shared > len(key) or position + fresh + length > end:
            raise WireError("an entry is cut off")
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + length]
        position += length


def _plain(block: bytes, compression: int) -> bytes:
    if compression == _SNAPPY:
        return decompress(block)
    if compression != _UNCOMPRESSED:
        raise WireError(f"a block is compressed in the unknown way {compression}")
    return block


def _spec(entry: bytes) -> TensorSpec:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import tensor_shape_pb2

    dtype, shape = "unknown", tensor_shape_pb2.TensorShapeProto()
    for field in fields(entry):
        if field.number == _DTYPE and field.kind == VARINT:
            dtype = dtype_name(int(field.value))
        elif field.number == _SHAPE and isinstance(field.value, bytes):
            try:
                shape.MergeFromString(field.value)
            except DecodeError as error:
                raise WireError("a shape is damaged") from error
    return TensorSpec(dtype, shape_of(shape))
