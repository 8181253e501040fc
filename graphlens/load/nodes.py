"""One ``NodeDef`` to one ``Op``; equal attribute sets are decoded once and shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from graphlens.ir.graph import Call, Constant, Op, TensorSpec
from graphlens.load.attrs import calls, decode, dtype_name
from graphlens.load.optable import OpInfo, OutputArg, output_dtypes, table
from graphlens.load.tensors import STRIPPED_BYTES, STRIPPED_DIGEST, constant_of, spec_of

OUTPUT_SHAPES = "_output_shapes"
ORIGINAL_NODES = "_original_nodes"

# Attributes that say the shape of the only output where `_output_shapes` is absent.
_SHAPE_ATTRS = MappingProxyType(
    {"Placeholder": "shape", "PlaceholderWithDefault": "shape", "VariableV2": "shape", "Variable": "shape"}
)
_BOOKKEEPING = frozenset({OUTPUT_SHAPES, STRIPPED_BYTES, STRIPPED_DIGEST})
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decoded:
    """What all ops of one type with equal attributes share.

    ``offsets`` says at which port each named output starts; ``None`` when the number of outputs is not known.
    """

    attrs: Mapping[str, Any]
    calls: tuple[Call, ...]
    outputs: tuple[TensorSpec, ...]
    offsets: Mapping[str, int] | None


@dataclass(slots=True)
class NodeReader:
    """Reads nodes; remembers what it decoded, so that 150,000 nodes stay cheap.

    ``library`` holds the signatures of the graph's own functions, because old graphs call them as if they were ops.
    """

    library: Mapping[str, OpInfo] = field(default_factory=dict)
    _decoded: dict[Any, Decoded] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], Any] = field(default_factory=dict)

    def read(self, node: Any, name: str, source: str | None = None) -> tuple[Op, Decoded]:
        """Return the op of ``node`` under ``name``, with what is known of its type and attributes."""
        attr = node.attr
        constant = _constant(node, attr)
        decoded = self._decode(node.op, attr, constant is not None)
        attrs, outputs = decoded.attrs, decoded.outputs
        if constant is not None:
            outputs = (spec_of(attr["value"].tensor),)
        if node.HasField("experimental_debug_info"):
            originals = tuple(node.experimental_debug_info.original_node_names)
            attrs = {**attrs, ORIGINAL_NODES: originals} if originals else attrs
        return Op(name, node.op, node.device, outputs, attrs, decoded.calls, constant, source), decoded

    def _decode(self, op_type: str, attr: Any, is_constant: bool) -> Decoded:
        # A constant's content is left out of the key: it may be large, and it is kept apart anyway.
        raw = [
            (name, value.SerializeToString(deterministic=True))
            for name, value in attr.items()
            if not (is_constant and name == "value")
        ]
        key = (op_type, *raw)
        found = self._decoded.get(key)
        if found is None:
            found = self._decoded[key] = self._decode_new(op_type, attr, raw)
        return found

    def _decode_new(self, op_type: str, attr: Any, raw: list[tuple[str, bytes]]) -> Decoded:
        info = table().get(op_type) or self.library.get(op_type)
        attrs = dict(info.defaults) if info else {}
        called: list[Call] = [Call("call", op_type)] if op_type in self.library else []
        shapes = None
        for name, content in raw:
            value = self._value(name, content, attr)
            if name == OUTPUT_SHAPES:
                shapes = value
            elif name not in _BOOKKEEPING and value is not None:
                attrs[name] = value
            called.extend(calls(op_type, name, attr[name]))
        outputs, offsets = outputs_of(op_type, info, attrs, shapes)
        return Decoded(attrs, tuple(called), outputs, offsets)

    def _value(self, name: str, content: bytes, attr: Any) -> Any:
        key = (name, content)
        if key not in self._values:
            self._values[key] = decode(attr[name])
        return self._values[key]


def _constant(node: Any, attr: Any) -> Constant | None:
    if node.op not in ("Const", "HostConst") or "value" not in attr:
        return None
    return constant_of(attr["value"].tensor, attr)


def outputs_of(
    op_type: str, info: OpInfo | None, attrs: Mapping[str, Any], shapes: Any
) -> tuple[tuple[TensorSpec, ...], Mapping[str, int] | None]:
    """Return the output specs and the port at which each named output starts, as far as they can be known."""
    known = output_dtypes(info, attrs) if info else _guess(attrs, shapes)
    if shapes is None and op_type in _SHAPE_ATTRS and _SHAPE_ATTRS[op_type] in attrs:
        shapes = (attrs[_SHAPE_ATTRS[op_type]],)
    if known is None:
        return tuple(TensorSpec("unknown", shape) for shape in _shapes(shapes)), None
    dtypes = [dtype for _, group in known for dtype in group]
    listed = _shapes(shapes)
    if len(listed) != len(dtypes):  # absent, or written for another version of the op
        listed = (None,) * len(dtypes)
    return tuple(map(TensorSpec, dtypes, listed)), _offsets(known)


def _guess(attrs: Mapping[str, Any], shapes: Any) -> list[tuple[str, tuple[str, ...]]] | None:
    """An unknown op whose list attribute fits the number of its outputs: custom call-like ops are written so."""
    for name in ("Tout", "output_types", "out_types"):
        listed = attrs.get(name)
        if isinstance(listed, tuple) and isinstance(shapes, tuple) and len(listed) == len(shapes):
            return [("output", tuple(map(str, listed)))]
    return None


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
    """Describe the outputs of a library function as if it were an op."""
    return OpInfo(tuple(_output_arg(arg) for arg in signature.output_arg), _NOTHING)


def _output_arg(arg: Any) -> OutputArg:
    if arg.type_list_attr:
        return OutputArg(arg.name, f"*{arg.type_list_attr}", None)
    return OutputArg(arg.name, arg.type_attr or f"={dtype_name(arg.type)}", arg.number_attr or None)
