"""Decode a node's attributes to JSON-able values, and its function attributes to calls with roles."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from graphlens.ir.nodes import Call

_IRREGULAR: Mapping[str, str] = MappingProxyType(
    {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_INVALID": "invalid"}
)
_ROLES: Mapping[str, str] = MappingProxyType(
    {"then_branch": "then", "else_branch": "else", "cond": "cond", "body": "body"}
)


@cache
def dtype_name(number: int) -> str:
    """Return TensorFlow's name of a ``DataType`` number; references count as what they refer to.

    >>> dtype_name(1), dtype_name(19), dtype_name(101), dtype_name(9999)
    ('float32', 'float16', 'float32', 'dtype9999')
    """
    from tensorboard.compat.proto import types_pb2

    try:
        enumerator = types_pb2.DataType.Name(number)
    except ValueError:  # a dtype newer than this schema
        return f"dtype{number}"
    enumerator = enumerator.removesuffix("_REF")
    return _IRREGULAR.get(enumerator, enumerator.removeprefix("DT_").lower())


def shape_of(proto: Any) -> tuple[int | None, ...] | None:
    """Return a ``TensorShapeProto`` as a tuple; unknown dimensions (and corrupt negative ones) are ``None``."""
    if proto.unknown_rank:
        return None
    return tuple([size if (size := dim.size) >= 0 else None for dim in proto.dim])


def text_of(raw: bytes) -> str:
    """Return an attribute's bytes as text; bytes that are no UTF-8 are escaped as in ``\\xff``."""
    return raw.decode("utf-8", errors="backslashreplace")


@lru_cache(maxsize=65_536)
def short_float(value: float) -> float:
    """Return the shortest decimal that is the same float32: 0.001, not 0.0010000000474974513."""
    for digits in (6, 7, 8):
        candidate = float(f"{value:.{digits}g}")
        if _same_float32(candidate, value):
            return candidate
    return value


def _same_float32(left: float, right: float) -> bool:
    try:
        return struct.pack("<f", left) == struct.pack("<f", right)
    except OverflowError:
        return False


def decode(value: Any) -> Any:
    """Return the JSON-able value of an ``AttrValue``; function attributes give ``None`` (see :func:`calls`)."""
    kind = value.WhichOneof("value")
    convert = _SCALARS.get(kind)
    return None if convert is None else convert(value)


def _decode_list(value: Any) -> tuple[Any, ...]:
    items = value.list
    for name, convert in _LISTS.items():
        members = getattr(items, name)
        if members:
            return tuple([convert(member) for member in members])
    return ()


def _tensor_summary(proto: Any) -> dict[str, Any]:
    return {"dtype": dtype_name(proto.dtype), "shape": shape_of(proto.tensor_shape)}


_SCALARS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "s": lambda value: text_of(value.s),
        "i": lambda value: value.i,
        "f": lambda value: short_float(value.f),
        "b": lambda value: value.b,
        "type": lambda value: dtype_name(value.type),
        "shape": lambda value: shape_of(value.shape),
        "tensor": lambda value: _tensor_summary(value.tensor),
        "placeholder": lambda value: f"${{{value.placeholder}}}",
        "list": _decode_list,
    }
)
_LISTS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "shape": shape_of,
        "type": dtype_name,
        "s": text_of,
        "i": int,
        "f": short_float,
        "b": bool,
        "tensor": _tensor_summary,
    }
)


def calls(op_type: str, name: str, value: Any) -> tuple[Call, ...]:
    """Return the calls that attribute ``name`` of an op holds, empty for all but function attributes."""
    kind = value.WhichOneof("value")
    if kind == "func":
        return (Call(_role(op_type, name), value.func.name),)
    if kind == "list" and value.list.func:
        stem = "branch" if name == "branches" else name
        return tuple(Call(f"{stem}_{index}", func.name) for index, func in enumerate(value.list.func))
    return ()


def _role(op_type: str, name: str) -> str:
    if name == "f":
        return "dataset" if "Dataset" in op_type else "call" if re.search(r"Call$", op_type) else name
    return _ROLES.get(name, name)
