"""One ``NodeDef`` to one ``Op``; equal attribute sets are decoded once and shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from graphlens.ir.nodes import Call, Constant, Op, TensorSpec
from graphlens.ir.ops import CONSTANTS
from graphlens.ir.optable import Argument, OpInfo, dtypes_of, table
from graphlens.ir.stablehlo import MODULE, MODULE_OP, summary
from graphlens.loaders.attrs import calls, decode, dtype_name
from graphlens.loaders.tensors import KEPT_BYTES, STRIPPED_BYTES, STRIPPED_DIGEST, constant_of, spec_of

OUTPUT_SHAPES = "_output_shapes"
ORIGINAL_NODES = "_original_nodes"

# Attributes that say the shape of the only output where `_output_shapes` is absent.
_SHAPE_ATTRS = MappingProxyType(
    {"Placeholder": "shape", "PlaceholderWithDefault": "shape", "VariableV2": "shape", "Variable": "shape"}
)
# A larger node holds a constant: to compare it with others would copy it once more.
COMPARED_BYTES = 4096
_BOOKKEEPING = frozenset({OUTPUT_SHAPES, STRIPPED_BYTES, STRIPPED_DIGEST})
_BEFORE_ATTRIBUTES = frozenset(b"\x0a\x12\x1a\x22")  # tags of the fields 1 to 4, each with a length
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decoded:
    """What all ops of one type with equal attributes share (``_output_shapes`` aside).

    ``dtypes`` are those of the outputs and ``offsets`` says at which port each named output starts; both ``None`` when
    the number of outputs is not known.  ``shapes`` stands in for an absent ``_output_shapes``.
    """

    attrs: Mapping[str, Any]
    calls: tuple[Call, ...]
    dtypes: tuple[str, ...] | None
    offsets: Mapping[str, int] | None
    shapes: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What nodes share that are written alike but for their name, inputs and device."""

    decoded: Decoded
    attrs: Mapping[str, Any]
    outputs: tuple[TensorSpec, ...]
    constant: Constant | None


@dataclass(slots=True)
class NodeReader:
    """Reads nodes; remembers what it decoded, so that 150,000 nodes stay cheap.

    ``library`` holds the signatures of the graph's own functions, because old graphs call them as if they were ops.
    """

    library: Mapping[str, OpInfo] = field(default_factory=dict)
    _kinds: dict[tuple[str, bytes], _Kind] = field(default_factory=dict)
    _decoded: dict[Any, Decoded] = field(default_factory=dict)
    _outputs: dict[Any, tuple[TensorSpec, ...]] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], Any] = field(default_factory=dict)
    _constants: dict[bytes, Constant] = field(default_factory=dict)

    def read(self, node: Any, name: str, source: str | None = None) -> tuple[Op, Decoded]:
        """Return the op of ``node`` under ``name``, with what is known of its type and attributes."""
        kind = self._kind(node)
        op = Op(name, node.op, node.device, kind.outputs, kind.attrs, kind.decoded.calls, kind.constant, source)
        return op, kind.decoded

    def _kind(self, node: Any) -> _Kind:
        """Return what all nodes share that are written alike but for their name, inputs and device."""
        if node.ByteSize() > COMPARED_BYTES:
            return self._new_kind(node)
        key = (node.op, _attributes_of(node.SerializeToString()))
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = self._new_kind(node)
        return found

    def _new_kind(self, node: Any) -> _Kind:
        op_type, attr = node.op, node.attr
        constant = self._constant(attr) if op_type in CONSTANTS else None
        decoded, shapes = self._decode(op_type, attr, constant is not None)
        outputs = self._specs(decoded, shapes, attr) if constant is None else (spec_of(attr["value"].tensor),)
        attrs = decoded.attrs
        if node.HasField("experimental_debug_info"):
            originals = tuple(node.experimental_debug_info.original_node_names)
            attrs = {**attrs, ORIGINAL_NODES: originals} if originals else attrs
        return _Kind(decoded, attrs, outputs, constant)

    def _decode(self, op_type: str, attr: Any, is_constant: bool) -> tuple[Decoded, bytes]:
        """Return the shared part, and the shapes apart: they differ most, and would make every op its own kind."""
        raw, shapes = [op_type], b""
        for name in attr:
            if name == OUTPUT_SHAPES:
                shapes = attr[name].SerializeToString()
            elif not (is_constant and name == "value"):  # a constant's content is large, and kept apart anyway
                raw += (name, attr[name].SerializeToString())
        key = tuple(raw)
        found = self._decoded.get(key)
        if found is None:
            found = self._decoded[key] = self._decode_new(op_type, attr, key)
        return found, shapes

    def _decode_new(self, op_type: str, attr: Any, raw: tuple[Any, ...]) -> Decoded:
        info = table().get(op_type) or self.library.get(op_type)
        attrs = dict(info.defaults) if info else {}
        called: list[Call] = [Call("call", op_type)] if op_type in self.library else []
        # By name: a protobuf hands out its map in another order in every process.
        for name, content in sorted(zip(raw[1::2], raw[2::2], strict=True)):
            value = self._value(name, content, attr) if name != MODULE else _module(op_type, attr)
            if name not in _BOOKKEEPING and value is not None:
                attrs[name] = value
            called.extend(calls(op_type, name, attr[name]))
        known = dtypes_of(info.outputs, attrs) if info else None
        shape_attr = _SHAPE_ATTRS.get(op_type)
        shapes = (attrs[shape_attr],) if shape_attr in attrs else ()
        if known is None:
            return Decoded(attrs, tuple(called), None, None, shapes)
        dtypes = tuple(dtype for _, group in known for dtype in group)
        return Decoded(attrs, tuple(called), dtypes, _offsets(known), shapes)

    def _specs(self, decoded: Decoded, shapes: bytes, attr: Any) -> tuple[TensorSpec, ...]:
        key = (decoded.dtypes, shapes or decoded.shapes)
        found = self._outputs.get(key)
        if found is None:
            listed = _shapes(decode(attr[OUTPUT_SHAPES])) if shapes else decoded.shapes
            found = self._outputs[key] = _join(decoded.dtypes, listed)
        return found

    def _value(self, name: str, content: bytes, attr: Any) -> Any:
        key = (name, content)
        if key not in self._values:
            self._values[key] = decode(attr[name])
        return self._values[key]

    def _constant(self, attr: Any) -> Constant | None:
        if "value" not in attr:
            return None
        tensor = attr["value"].tensor
        if STRIPPED_BYTES in attr or tensor.ByteSize() > KEPT_BYTES:
            return constant_of(tensor, attr)
        key = tensor.SerializeToString(deterministic=True)
        if key not in self._constants:  # graphs repeat their small constants: axes, shapes, epsilons
            self._constants[key] = constant_of(tensor)
        return self._constants[key]


def _module(op_type: str, attr: Any) -> Any:
    """A program that stands in an attribute may be as large as a graph: what is kept is what its bytes say of it."""
    return summary(attr[MODULE].s) if op_type == MODULE_OP else decode(attr[MODULE])


def _attributes_of(written: bytes) -> bytes:
    """Return what follows name, op type, inputs and device (fields 1 to 4) in a node as it is written.

    >>> _attributes_of(b"\\x0a\\x01x\\x12\\x04Relu\\x1a\\x01y" + b"\\x2a\\x00")
    b'*\\x00'
    """
    at, size = 0, len(written)
    while at < size and written[at] in _BEFORE_ATTRIBUTES:
        length = written[at + 1]
        at += 2
        if length & 0x80:  # more bytes of the length follow, seven bits in each
            length, shift = length & 0x7F, 7
            while True:
                more = written[at]
                at += 1
                length |= (more & 0x7F) << shift
                shift += 7
                if not more & 0x80:
                    break
        at += length
    return written[at:]


def _join(dtypes: tuple[str, ...] | None, shapes: tuple[Any, ...]) -> tuple[TensorSpec, ...]:
    """Pair dtypes with shapes; where their numbers differ, the registry's number of outputs holds if there is one."""
    if dtypes is None:
        return tuple(TensorSpec("unknown", shape) for shape in shapes)
    if len(shapes) != len(dtypes):  # absent, or written for another version of the op
        shapes = (None,) * len(dtypes)
    return tuple(map(TensorSpec, dtypes, shapes))


def _shapes(shapes: Any) -> tuple[tuple[int | None, ...] | None, ...]:
    """Corrupt files hold anything under ``_output_shapes``."""
    if not isinstance(shapes, tuple):
        return ()
    return tuple(shape if isinstance(shape, tuple) else None for shape in shapes)


def _offsets(known: list[tuple[str, tuple[str, ...]]]) -> Mapping[str, int]:
    offsets, position = {}, 0
    for name, dtypes in known:
        offsets[name] = position
        position += len(dtypes)
    return offsets


def function_info(signature: Any) -> OpInfo:
    """Describe the arguments of a library function as if it were an op."""
    outputs, inputs = (tuple(map(_argument, args)) for args in (signature.output_arg, signature.input_arg))
    return OpInfo(outputs, _NOTHING, inputs)


def _argument(arg: Any) -> Argument:
    if arg.type_list_attr:
        return Argument(arg.name, f"*{arg.type_list_attr}", None)
    return Argument(arg.name, arg.type_attr or f"={dtype_name(arg.type)}", arg.number_attr or None)
