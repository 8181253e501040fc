"""What a function holds on to between steps, read while executing eagerly and made again inside a v1 graph.

Values are fed into the graph, never stored in it: Grappler would fold them as constants, and they may be gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from graphlens.errors import first_line
from graphlens.ir.ops import LOOKUPS, REFERENCE_VARIABLES
from graphlens.tf import private

v1 = tf.compat.v1

OWN = "graphlens_state"  # scope of the ops that stand in for what is held
_VARIABLE_OPS = REFERENCE_VARIABLES | {"VarHandleOp"}
_TABLE_OPS = frozenset({"HashTableV2"})

Kind = Literal["variable", "table", "constant"]


class NotReplayable(Exception):
    """The function holds on to something whose value cannot be read; the message says what."""


@dataclass(frozen=True)
class Held:
    """One thing held; ``tensor`` is the placeholder of a capture, or the output of the op that holds it."""

    tensor: str
    kind: Kind
    value: Any
    captured: bool


@dataclass
class Rebuilt:
    """How to fill what was made again, and what every run has to feed."""

    setup: list[Any] = field(default_factory=list)
    setup_feeds: dict[Any, Any] = field(default_factory=dict)
    feeds: dict[str, Any] = field(default_factory=dict)


# -- reading, eagerly ----------------------------------------------------------------------------------------------


def read(concrete: Any, graph_def: Any) -> list[Held]:
    """Return everything that a function captures or that ops of its graph hold.

    Raises
    ------
    NotReplayable
        If one of them cannot be read.
    """
    variables = private.variables_by_handle(concrete)
    types = _table_types(graph_def)
    captured = [
        Held(inner.name, *_captured_value(outer, variables.get(id(outer)), types), captured=True)
        for outer, inner in private.captures(concrete)
    ]
    ops = [node for node in graph_def.node if node.op in _VARIABLE_OPS | _TABLE_OPS]
    return captured + [Held(f"{node.name}:0", *_value_of_op(node, types), captured=False) for node in ops]


def _captured_value(outer: Any, variable: Any, types: Sequence[tuple[Any, Any]]) -> tuple[Kind, Any]:
    if variable is not None:
        return "variable", _array(variable)
    if outer.dtype == tf.resource:
        return "table", _table_content(outer, types)
    if outer.dtype == tf.variant:
        raise NotReplayable("it captures a variant tensor (a dataset or a tensor list)")
    return "constant", _array(outer)


def _array(held: Any) -> np.ndarray:
    # A scalar string comes as bare bytes.
    return np.asarray(held.numpy(), dtype=object if held.dtype == tf.string else None)


def value_of_op(node: Any, graph_def: Any) -> Any:
    """Return the value of a variable's op, or keys and values of a table's.

    Raises
    ------
    NotReplayable
        If it cannot be read.
    """
    return _value_of_op(node, _table_types(graph_def))[1]


def _value_of_op(node: Any, types: Sequence[tuple[Any, Any]]) -> tuple[Kind, Any]:
    """Read a resource that an op of the graph makes: the same name finds the one that the loader filled."""
    place = {
        "container": node.attr["container"].s.decode(),
        "shared_name": node.attr["shared_name"].s.decode() or node.name,
    }
    try:
        if node.op in _TABLE_OPS:
            keys, values = (tf.as_dtype(node.attr[key].type) for key in ("key_dtype", "value_dtype"))
            table = tf.raw_ops.HashTableV2(key_dtype=keys, value_dtype=values, **place)
            return "table", _table_content(table, [(keys, values), *types])
        return "variable", _variable_of_op(node, place)
    except tf.errors.OpError as error:
        raise NotReplayable(f"the value of '{node.name}' cannot be read ({first_line(error)})") from error


def _variable_of_op(node: Any, place: Mapping[str, str]) -> Any:
    dtype, shape = tf.as_dtype(node.attr["dtype"].type), tf.TensorShape(node.attr["shape"].shape)
    if node.op == "VarHandleOp":
        handle = tf.raw_ops.VarHandleOp(dtype=dtype, shape=shape, **place)
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).numpy()
    # A reference variable exists inside graphs only.
    return tf.function(lambda: tf.identity(tf.raw_ops.VariableV2(dtype=dtype, shape=shape, **place)))().numpy()


def _table_types(graph_def: Any) -> list[tuple[Any, Any]]:
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    return sorted({(node.attr["Tin"].type, node.attr["Tout"].type) for node in nodes if node.op in LOOKUPS})


def _table_content(handle: Any, types: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    for keys, values in types:
        try:
            exported = tf.raw_ops.LookupTableExportV2(
                table_handle=handle, Tkeys=tf.as_dtype(keys), Tvalues=tf.as_dtype(values)
            )
        except tf.errors.OpError:  # another kind of resource, or other types: the next pair may fit
            continue
        return exported.keys.numpy(), exported.values.numpy()
    raise NotReplayable("it holds a resource that is neither a variable nor a table with a readable content")


# -- making again, in a graph --------------------------------------------------------------------------------------


def rebuild(held: Sequence[Held], graph_def: Any) -> Rebuilt:
    """Import ``graph_def`` into the current graph, with everything held made again."""
    rebuilt = Rebuilt()
    with tf.name_scope(OWN):  # so that no name of ours is one of the function's
        replaced = {one.tensor: _stand_in(one, rebuilt) for one in held if one.captured}
    v1.import_graph_def(graph_def, input_map=replaced, name="")
    with tf.name_scope(f"{OWN}_ops"):
        for one in held:
            if not one.captured:
                _fill(v1.get_default_graph().get_tensor_by_name(one.tensor), one, rebuilt)
    return rebuilt


def _stand_in(one: Held, rebuilt: Rebuilt) -> Any:
    if one.kind == "constant":
        fed = _placeholder(one.value)
        rebuilt.feeds[fed.name] = one.value
        return fed
    name = one.tensor.replace(":", "_")
    if one.kind == "variable":
        handle = tf.raw_ops.VarHandleOp(dtype=one.value.dtype, shape=one.value.shape, shared_name=f"{OWN}/{name}")
    else:
        keys, values = (_dtype(part) for part in one.value)
        handle = tf.raw_ops.HashTableV2(key_dtype=keys, value_dtype=values, shared_name=f"{OWN}/{name}")
    _fill(handle, one, rebuilt)
    return handle


def _fill(handle: Any, one: Held, rebuilt: Rebuilt) -> None:
    parts = one.value if one.kind == "table" else (one.value,)
    fed = [_placeholder(part) for part in parts]
    rebuilt.setup_feeds.update(zip(fed, parts, strict=True))
    rebuilt.setup.append(_filler(handle, one.kind)(*fed))


def _filler(handle: Any, kind: Kind) -> Callable[..., Any]:
    if kind == "table":
        return lambda keys, values: tf.raw_ops.InitializeTableV2(table_handle=handle, keys=keys, values=values)
    if handle.dtype == tf.resource:
        return lambda value: tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return lambda value: tf.raw_ops.Assign(ref=handle, value=value)


def _placeholder(value: np.ndarray) -> Any:
    return v1.placeholder(_dtype(value), value.shape)


def _dtype(value: np.ndarray) -> Any:
    return tf.string if value.dtype == object else tf.as_dtype(value.dtype)
