"""Keep of a constant what is needed to judge it, and strip the weights from graphs that are stored."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from graphlens.ir.nodes import Constant, TensorSpec
from graphlens.loaders.attrs import dtype_name, shape_of, short_float

STRIPPED_BYTES = "_graphlens_stripped_bytes"
STRIPPED_DIGEST = "_graphlens_digest"

# A constant with more is a weight: it tells nothing to a reader and may be somebody's property.
KEPT_ELEMENTS = Constant.LIMIT
KEPT_BYTES = 1 << 10
# A text attribute beyond this embeds a program or data (a serialized XLA module with its constants, for instance).
KEPT_TEXT_BYTES = 64 << 10
_DIGEST_HEX_DIGITS = 16  # 64 bits: no accidental collision among the constants of one graph

# dtype -> (struct format of one element in `tensor_content`, field that holds the elements otherwise).
_LAYOUT = MappingProxyType(
    {
        "float32": ("f", "float_val"),
        "float64": ("d", "double_val"),
        "float16": ("e", "half_val"),
        "bfloat16": ("H", "half_val"),
        "int8": ("b", "int_val"),
        "uint8": ("B", "int_val"),
        "int16": ("h", "int_val"),
        "uint16": ("H", "int_val"),
        "int32": ("i", "int_val"),
        "uint32": ("I", "uint32_val"),
        "int64": ("q", "int64_val"),
        "uint64": ("Q", "uint64_val"),
        "bool": ("?", "bool_val"),
        "qint8": ("b", "int_val"),
        "quint8": ("B", "int_val"),
        "qint16": ("h", "int_val"),
        "quint16": ("H", "int_val"),
        "qint32": ("i", "int_val"),
    }
)
_TYPED_FIELDS = (
    "half_val float_val double_val int_val string_val scomplex_val int64_val "
    "bool_val dcomplex_val uint32_val uint64_val"
).split()

_DESCRIPTION = frozenset({"dtype", "tensor_shape", "version_number"})

Number = float | int | bool


def spec_of(tensor: Any) -> TensorSpec:
    """Return dtype and shape of a ``TensorProto``."""
    return TensorSpec(dtype_name(tensor.dtype), shape_of(tensor.tensor_shape))


def constant_of(tensor: Any, attrs: Any = MappingProxyType({})) -> Constant:
    """Return what is kept of ``tensor``; ``attrs`` is the node's attribute map, which marks stripped constants."""
    spec = spec_of(tensor)
    if STRIPPED_BYTES in attrs:
        digest = attrs[STRIPPED_DIGEST].s.decode("ascii", "replace") if STRIPPED_DIGEST in attrs else None
        return Constant(attrs[STRIPPED_BYTES].i, None, digest)
    return Constant(nbytes_of(tensor, spec), values_of(tensor, spec), digest_of(tensor))


def nbytes_of(tensor: Any, spec: TensorSpec) -> int | None:
    """Return the size of the value in memory; for strings the sum of their lengths, where all are listed."""
    if spec.dtype != "string":
        return spec.nbytes
    return sum(map(len, tensor.string_val)) if spec.elements == len(tensor.string_val) else None


def values_of(tensor: Any, spec: TensorSpec) -> tuple[Number, ...] | None:
    """Return the elements of a small numeric tensor in row-major order, ``None`` for all others."""
    layout = _LAYOUT.get(spec.dtype)
    if layout is None or spec.elements is None or spec.elements > KEPT_ELEMENTS:
        return None
    if tensor.tensor_content:
        return _from_content(bytes(tensor.tensor_content), spec, layout[0])
    return _from_typed(getattr(tensor, layout[1]), spec)


def _from_content(content: bytes, spec: TensorSpec, code: str) -> tuple[Number, ...] | None:
    layout = f"<{spec.elements}{code}"
    if len(content) != struct.calcsize(layout):
        return None  # corrupt: better no value than a wrong one
    raw = struct.unpack(layout, content)
    if spec.dtype == "bfloat16":
        return tuple(short_float(_bfloat16(bits)) for bits in raw)
    return tuple(short_float(number) for number in raw) if spec.dtype == "float32" else raw


def _from_typed(stored: Sequence[Any], spec: TensorSpec) -> tuple[Number, ...] | None:
    assert spec.elements is not None
    if len(stored) > spec.elements:
        return None
    numbers = tuple(_typed_number(value, spec.dtype) for value in stored)
    # The last stored element stands for all that follow; nothing stored means zeros.
    filler = numbers[-1] if numbers else (False if spec.dtype == "bool" else 0 if "int" in spec.dtype else 0.0)
    return numbers + (filler,) * (spec.elements - len(numbers))


def _typed_number(value: Any, dtype: str) -> Number:
    if dtype == "float16":
        return float(struct.unpack("<e", struct.pack("<H", value & 0xFFFF))[0])
    if dtype == "bfloat16":
        return short_float(_bfloat16(value & 0xFFFF))
    return short_float(value) if dtype == "float32" else value


def _bfloat16(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])


def digest_of(tensor: Any) -> str:
    """Return a short hash of dtype, shape and value; small tensors hash alike however their value is encoded."""
    spec = spec_of(tensor)
    values = values_of(tensor, spec)
    content = repr(values).encode() if values is not None else _stored(tensor)
    return hashlib.sha256(str(spec).encode() + b"\0" + content).hexdigest()[:_DIGEST_HEX_DIGITS]


def _stored(tensor: Any) -> bytes:
    if tensor.tensor_content:
        return bytes(tensor.tensor_content)
    stored = ((name, getattr(tensor, name)) for name in _TYPED_FIELDS)
    return repr([(name, list(values)) for name, values in stored if values]).encode()


def is_weight(tensor: Any) -> bool:
    """Tell whether a constant holds a value that is too large to be kept."""
    if {field.name for field, _ in tensor.ListFields()} <= _DESCRIPTION:
        return False  # nothing is stored (or nothing any more)
    elements = spec_of(tensor).elements
    return elements is None or elements > KEPT_ELEMENTS or tensor.ByteSize() > KEPT_BYTES


def _keep_all(_name: str) -> bool:
    return True


def strip_weights(
    graph_def: Any,
    keep_node: Callable[[str], bool] = _keep_all,
    keep_function: Callable[[str], bool] = _keep_all,
) -> Any:
    """Return a copy of ``graph_def`` without the content of large constants, in its functions too.

    The message may be TensorFlow's own or ``tensorboard``'s.  What is removed is never copied.  A stripped constant
    keeps its dtype and shape; ``_graphlens_stripped_bytes`` and ``_graphlens_digest`` keep its size and identity.

    Parameters
    ----------
    keep_node, keep_function
        Which nodes of the main graph and which functions to keep, by name; all by default.
    """
    stripped = type(graph_def)()
    _copy_fields(graph_def, stripped, besides=("node", "library"))
    for node in filter(lambda node: keep_node(node.name), graph_def.node):
        _copy_node(node, stripped.node.add())
    _copy_fields(graph_def.library, stripped.library, besides=("function",))
    for function in filter(lambda function: keep_function(function.signature.name), graph_def.library.function):
        copied = stripped.library.function.add()
        _copy_fields(function, copied, besides=("node_def",))
        for node in function.node_def:
            _copy_node(node, copied.node_def.add())
    return stripped


def _copy_fields(source: Any, target: Any, besides: tuple[str, ...]) -> None:
    for field, value in source.ListFields():
        if field.name in besides:
            continue
        if hasattr(value, "MergeFrom"):  # messages, maps and repeated fields
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)


def _copy_node(source: Any, target: Any) -> None:
    heavy = [key for key, value in source.attr.items() if _is_heavy(value)]
    if not heavy:
        target.CopyFrom(source)
        return
    target.name, target.op, target.device = source.name, source.op, source.device
    target.input.extend(source.input)
    if source.HasField("experimental_debug_info"):
        target.experimental_debug_info.CopyFrom(source.experimental_debug_info)
    for key, value in source.attr.items():
        if key in heavy:
            _strip_value(value, target.attr, key)
        else:
            target.attr[key].CopyFrom(value)


def _is_heavy(value: Any) -> bool:
    kind = value.WhichOneof("value")
    if kind == "tensor":
        return is_weight(value.tensor)
    if kind == "list":
        return any(map(is_weight, value.list.tensor))
    if kind == "func":
        return any(map(_is_heavy, value.func.attr.values()))
    return kind == "s" and len(value.s) > KEPT_TEXT_BYTES


def _strip_value(value: Any, attrs: Any, key: str) -> None:
    kind = value.WhichOneof("value")
    if kind == "s":
        attrs[key].s = f"<{len(value.s)} bytes left out>".encode()
    elif kind == "func":
        attrs[key].func.name = value.func.name
    elif kind == "list":
        attrs[key].list.tensor.extend(_hollow(tensor) for tensor in value.list.tensor)
    else:
        attrs[key].tensor.CopyFrom(_hollow(value.tensor))
        attrs[STRIPPED_BYTES].i = _stored_bytes(value.tensor)
        attrs[STRIPPED_DIGEST].s = digest_of(value.tensor).encode()


def _hollow(tensor: Any) -> Any:
    hollow = type(tensor)(dtype=tensor.dtype)
    hollow.tensor_shape.CopyFrom(tensor.tensor_shape)
    return hollow


def _stored_bytes(tensor: Any) -> int:
    """The size in memory where the dtype has one, else what the file holds (strings, variants)."""
    known = nbytes_of(tensor, spec_of(tensor))
    return known if known is not None else int(tensor.ByteSize())
