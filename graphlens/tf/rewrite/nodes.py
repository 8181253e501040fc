"""Read NodeDefs: what their inputs name, how many outputs they have and of which types, which functions they call.

A *ref* is an input as a graph writes it, always with its port here: ``conv:0`` is a tensor, ``^conv`` a control edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.ops import CONTROL_FLOW, HANDLE_READS
from graphlens.loaders.functions import called

NodeDef = tf.compat.v1.NodeDef
GraphDef = tf.compat.v1.GraphDef
READS = HANDLE_READS  # ops that read a resource and never change it
# TensorFlow 1's control flow, where a tensor may be dead or one of many iterations'.
# Fed from outside; or declared as stateless although they read files, stop the program, or order others.
_NOT_PURE = CONTROL_FLOW | frozenset(
    "Placeholder PlaceholderWithDefault PlaceholderV2 ReadFile MatchingFiles Abort ControlTrigger".split()
)
_TENSOR_ARRAY = "TensorArray"  # the handles of its first two versions are plain strings
# Give something and do something.
_SPEAKING = frozenset({"Print", "PyFunc", "EagerPyFunc"})
_OPAQUE_TYPES = (tf.resource.as_datatype_enum, tf.variant.as_datatype_enum)


def is_control(ref: str) -> bool:
    """Whether ``ref`` is a control edge."""
    return ref.startswith("^")


def source(ref: str) -> str:
    """Return the name of the node that a ref comes from."""
    return ref[1:] if is_control(ref) else ref.partition(":")[0]


def port(ref: str) -> int:
    """Return the output number of a tensor's ref."""
    return int(ref.partition(":")[2] or 0)


def tensor(name: str, index: int = 0) -> str:
    """Return the ref of an output."""
    return f"{name}:{index}"


def canonical(ref: str) -> str:
    """Return ``ref`` with its port."""
    return ref if is_control(ref) or ":" in ref else f"{ref}:0"


def data_inputs(node: Any) -> list[str]:
    """Return the refs of a node's tensors, in order."""
    return [ref for ref in node.input if not is_control(ref)]


def control_inputs(node: Any) -> list[str]:
    """Return a node's control edges."""
    return [ref for ref in node.input if is_control(ref)]


@cache
def op_def(op: str) -> Any:
    """Return the definition of an op type.

    Raises
    ------
    RewriteError
        If TensorFlow does not know it: a custom op, or a call written in the old style.
    """
    try:
        return tf.Graph().op_def_for_type(op)
    except (KeyError, RuntimeError, tf.errors.OpError) as error:
        raise RewriteError(f"this TensorFlow does not know the op type '{op}': import the library that holds it") from (
            error
        )


def _types_of(argument: Any, node: Any) -> Sequence[int]:
    """Return the types of the tensors of one argument of an op's definition."""
    if argument.type_list_attr:
        return list(node.attr[argument.type_list_attr].list.type)
    dtype = node.attr[argument.type_attr].type if argument.type_attr else argument.type
    return [dtype] * (node.attr[argument.number_attr].i if argument.number_attr else 1)


def output_types(node: Any) -> list[int]:
    """Return the types of a node's outputs, as numbers of the protocol."""
    return [dtype for argument in op_def(node.op).output_arg for dtype in _types_of(argument, node)]


def input_types(node: Any) -> list[int]:
    """Return the types of a node's inputs, as numbers of the protocol."""
    return [dtype for argument in op_def(node.op).input_arg for dtype in _types_of(argument, node)]


def output_offsets(node: Any) -> dict[str, int]:
    """Return output argument -> number of its first tensor; a function's body names tensors by argument."""
    offsets, first = {}, 0
    for argument in op_def(node.op).output_arg:
        offsets[argument.name] = first
        first += len(_types_of(argument, node))
    return offsets


def inputs_first(by_name: Mapping[str, Any]) -> list[str]:
    """Return the names in an order in which inputs come before their readers; within cycles, as far as there is one."""
    done: dict[str, None] = {}
    for root in by_name:
        stack = [root]
        entered: set[str] = set()
        while stack:
            name = stack[-1]
            if name in done or name not in by_name:
                stack.pop()
            elif name in entered:
                done[name] = None
                stack.pop()
            else:
                entered.add(name)
                stack.extend(source(ref) for ref in by_name[name].input if source(ref) not in done)
    return list(done)


def touches_state(node: Any) -> bool:
    """Whether the order in which a node runs can matter: it is stateful, calls functions, or takes a resource.

    A reference variable is a resource as well.
    """
    definition = op_def(node.op)
    return bool(
        definition.is_stateful
        or any(called(node))
        or any(argument.is_ref for argument in [*definition.input_arg, *definition.output_arg])
        or node.op.startswith(_TENSOR_ARRAY)
        or any(dtype in _OPAQUE_TYPES for dtype in input_types(node) + output_types(node))
    )


def is_pure(node: Any) -> bool:
    """Whether equal inputs always give equal outputs, and nothing else happens."""
    return node.op not in _NOT_PURE and not touches_state(node)


def has_effect(node: Any) -> bool:
    """Whether a node that runs changes or says something, whoever reads what it gives."""
    definition = op_def(node.op)
    writes = any(argument.is_ref for argument in definition.input_arg) or (
        touches_state(node) and not definition.output_arg
    )
    return bool(writes or node.op in _SPEAKING or (definition.is_stateful and any(called(node))))


def is_dataflow(node: Any) -> bool:
    """Whether a node is of TensorFlow 1's control flow, in which what waits for a branch may never run."""
    return node.op in CONTROL_FLOW


def make(op: str, name: str, inputs: Sequence[str], like: Any = None, **attributes: Any) -> Any:
    """Make a node; ``like`` gives the device; attributes are numbers, strings, bools, dtypes, or AttrValues."""
    node = NodeDef(op=op, name=name, input=inputs, device="" if like is None else like.device)
    for key, value in attributes.items():
        set_attribute(node, key, value)
    return node


def set_attribute(node: Any, key: str, value: Any) -> None:
    """Set one attribute of a node."""
    attribute = node.attr[key]
    if isinstance(value, tf.compat.v1.AttrValue):
        attribute.CopyFrom(value)
    elif isinstance(value, tf.DType):
        attribute.type = value.as_datatype_enum
    elif isinstance(value, bool):
        attribute.b = value
    elif isinstance(value, int):
        attribute.i = value
    elif isinstance(value, str):
        attribute.s = value.encode()
    else:
        raise TypeError(f"attribute {key}: {type(value).__name__}")


def text(node: Any, key: str, default: str = "") -> str:
    """Return a text attribute; reading an absent one off the protobuf would create it."""
    return str(node.attr[key].s.decode()) if key in node.attr else default


def flag(node: Any, key: str) -> bool:
    """Return a boolean attribute, false where it is absent."""
    return bool(node.attr[key].b) if key in node.attr else False


def dtype_of(node: Any, key: str = "T") -> Any:
    """Return a type attribute as a ``tf.DType``."""
    return tf.as_dtype(node.attr[key].type)
