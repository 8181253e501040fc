"""Undo Snappy compression, which some writers of checkpoint indexes use; small inputs only, so plain Python will do."""

from __future__ import annotations

from typing import Final

from graphlens.loaders.wire import WireError, read_varint

_LITERAL, _COPY_1, _COPY_2 = 0, 1, 2
_INLINE_LENGTH: Final = 60  # literal lengths from here on are written in extra bytes


def decompress(data: bytes) -> bytes:
    """Return the content of one raw Snappy block.

    Raises
    ------
    WireError
        When the block is damaged.
    """
    size, position = read_varint(data, 0)
    result = bytearray()
    while position < len(data) and len(result) <= size:
        tag = data[position]
        extend = _literal if tag & 3 == _LITERAL else _copy
        position = extend(data, position, result)
    if len(result) != size:
        raise WireError("a compressed block is damaged")
    return bytes(result)


def _literal(data: bytes, position: int, result: bytearray) -> int:
    length, position = data[position] >> 2, position + 1
    extra = length - _INLINE_LENGTH + 1
    if extra > 0:
        length = int.from_bytes(data[position : position + extra], "little")
        position += extra
    result += data[position : position + length + 1]
    return position + length + 1


def _copy(data: bytes, position: int, result: bytearray) -> int:
    tag, kind = data[position], data[position] & 3
    if kind == _COPY_1:
        length, width, high = (tag >> 2 & 7) + 4, 1, tag >> 5 << 8
    else:
        length, width, high = (tag >> 2) + 1, 2 if kind == _COPY_2 else 4, 0
    offset = high | int.from_bytes(data[position + 1 : position + 1 + width], "little")
    if not 0 < offset <= len(result):
        raise WireError("a compressed block refers to bytes before its start")
    for _ in range(length):  # source and target may overlap: that is how runs are written
        result.append(result[-offset])
    return position + 1 + width
