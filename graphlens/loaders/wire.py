"""Walk the protobuf wire format, for messages that have no generated class and for telling file formats apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10  # 64 bits in groups of seven


class WireError(ValueError):
    """The bytes are no protobuf message."""


class Field(NamedTuple):
    """One field of a message; ``value`` is an integer for numbers and the raw bytes otherwise."""

    number: int
    kind: int
    value: int | bytes


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the varint at ``position`` and where it ends."""
    result = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(data):
            raise WireError("a number is cut off")
        byte = data[position + index]
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return result, position + index + 1
    raise WireError("a number has more than 64 bits")


def fields(data: bytes) -> Iterator[Field]:
    """Iterate over the fields of the message ``data``.

    Raises
    ------
    WireError
        Where the bytes stop being a message.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise WireError("a field has number 0")
        value, position = _value(data, position, kind)
        yield Field(number, kind, value)


def _value(data: bytes, position: int, kind: int) -> tuple[int | bytes, int]:
    if kind == VARINT:
        return read_varint(data, position)
    if kind == BYTES:
        size, position = read_varint(data, position)
    elif kind in (FIXED64, FIXED32):
        size = 8 if kind == FIXED64 else 4
    else:
        raise WireError(f"a field has the unknown wire type {kind}")
    end = position + size
    if end > len(data):
        raise WireError("a field is cut off")
    content = data[position:end]
    return (content if kind == BYTES else int.from_bytes(content, "little")), end
