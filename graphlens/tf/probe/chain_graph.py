"""Turn a chain of ops (``ir.fusion``) into a GraphDef of its own, and tell whether TensorFlow has one kernel for it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from graphlens.errors import ExecutionError
from graphlens.ir.fusion import VARIABLE_READ, Chain, ChainOp, Surrounding, is_grouped
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.ops import SHAPE_READERS
from graphlens.tf import private
from graphlens.tf.probe import grappler

RESULT: Final = "result_of_the_chain"
_SEED: Final = 7
# What Grappler leaves beside the kernel: not computation, or computed once.
_TRIVIAL: Final = frozenset({"Placeholder", "Const", "Identity", "NoOp", "VarHandleOp", VARIABLE_READ})
# Readers that look at a tensor's shape alone; Grappler treats them in a way of its own, so they are kept as they are.
_EXTRA: Final = "beside_the_chain"
# Grappler of TensorFlow 2.21 puts these into a convolution, and no kernel computes them: the call fails.
_NOT_IMPLEMENTED: Final = frozenset({("FusedBatchNorm", "Tanh"), ("FusedBatchNorm", "Mish")})


@dataclass(frozen=True, slots=True)
class Optimized:
    """A chain as Grappler left it: whether one kernel can do it all, and the op types of what is left."""

    fused: bool
    types: tuple[str, ...]


def run(chain: Chain, surroundings: Sequence[Surrounding] = ()) -> Optimized:
    """Optimize ``chain`` as a graph of its own, with ``surroundings`` acted out around it.

    Raises
    ------
    ExecutionError
        When Grappler refuses the graph, or an op is unknown to this TensorFlow.
    """
    if _ends_the_process(chain):
        return Optimized(False, tuple(op.type for op in chain.core))
    graph_def, fetches = graph_of(chain, surroundings)
    beside = {op.name for op in chain.ops if op.role == "bridge"}
    left = [
        node
        for node in grappler.optimize(graph_def, fetches).node
        if node.op not in _TRIVIAL and node.name not in beside and not node.name.startswith(_EXTRA)
    ]
    fused = len(left) <= 1 and all(_has_a_kernel(chain, node) for node in left)
    return Optimized(fused, tuple(_described(node) for node in left))


def _ends_the_process(chain: Chain) -> bool:
    """Whether TensorFlow 2.21 with oneDNN aborts as soon as Grappler puts a bias into the convolution of ``chain``."""
    return any(op.type == "DepthwiseConv2dNative" and op.attrs.get("padding") == "EXPLICIT" for op in chain.core)


def _has_a_kernel(chain: Chain, node: Any) -> bool:
    """Whether TensorFlow 2.21 can run, on a processor, what Grappler made of ``chain``: Grappler does not ask."""
    if node.op != "_FusedConv2D" or "GPU" in node.device:
        return True
    # Without oneDNN: "Fused conv implementation does not support grouped convolutions for now".
    takes_groups = private.onednn_enabled() is not False
    return _fused_ops(node) not in _NOT_IMPLEMENTED and (takes_groups or not is_grouped(chain))


def _fused_ops(node: Any) -> tuple[str, ...]:
    return tuple(name.decode() for name in node.attr["fused_ops"].list.s) if "fused_ops" in node.attr else ()


def _described(node: Any) -> str:
    fused = _fused_ops(node)
    return f"{node.op}[{'+'.join(fused)}]" if fused else str(node.op)


# -- the graph -----------------------------------------------------------------------------------------------------


def graph_of(chain: Chain, surroundings: Sequence[Surrounding] = ()) -> tuple[Any, list[str]]:
    """Return the GraphDef of ``chain`` and what to fetch from it."""
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.versions.producer = 1987  # a producer of this age has all attributes that are written here
    for op in chain.ops:
        graph.node.extend(_variable(op) if op.type == VARIABLE_READ else [node_of(op)])
    graph.node.add(name=RESULT, op="Identity", input=[chain.result]).attr["T"].type = _dtype_of_result(chain)
    fetches = [RESULT]
    for index, item in enumerate(surroundings):
        fetches += _act_out(graph, chain, item, f"{_EXTRA}_{index}")
    return graph, fetches


def node_of(op: ChainOp) -> Any:
    """Return the NodeDef of one op of a chain."""
    from tensorflow.core.framework import node_def_pb2

    if op.role == "boundary" or (op.role == "constant" and not _is_known(op.spec)):
        return _placeholder(op)
    if op.role == "constant":
        return _constant(op)
    inputs = [src if port == 0 else f"{src}:{port}" for src, port in op.inputs]
    node = node_def_pb2.NodeDef(name=op.name, op=op.type, input=inputs, device=_device(op))
    for name, kind in _attr_kinds(op.type).items():
        if name in op.attrs:
            _set_attr(node.attr[name], kind, op.attrs[name])
    return node


def _device(op: ChainOp) -> str:
    return "" if op.device is None else op.device or "none"


def _is_known(spec: TensorSpec | None) -> bool:
    return spec is not None and spec.elements is not None


def _placeholder(op: ChainOp) -> Any:
    from tensorflow.core.framework import node_def_pb2

    spec = op.spec or TensorSpec("float32")
    node = node_def_pb2.NodeDef(name=op.name, op="Placeholder")
    node.attr["dtype"].type = _enum(spec.dtype)
    _set_shape(node.attr["shape"].shape, spec.shape)
    return node


def _variable(op: ChainOp) -> Sequence[Any]:
    """Return a variable and the op that reads it."""
    from tensorflow.core.framework import node_def_pb2

    assert op.spec is not None
    handle = node_def_pb2.NodeDef(name=f"{op.name}/handle", op="VarHandleOp")
    read = node_def_pb2.NodeDef(name=op.name, op=VARIABLE_READ, input=[handle.name])
    for node in (handle, read):
        node.attr["dtype"].type = _enum(op.spec.dtype)
    handle.attr["shared_name"].s = handle.name.encode()
    _set_shape(handle.attr["shape"].shape, op.spec.shape)
    return handle, read


def _constant(op: ChainOp) -> Any:
    import tensorflow as tf
    from tensorflow.core.framework import node_def_pb2

    assert op.spec is not None
    node = node_def_pb2.NodeDef(name=op.name, op="Const")
    node.attr["dtype"].type = _enum(op.spec.dtype)
    dtype = tf.dtypes.as_dtype(op.spec.dtype)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(_numbers(op, dtype), dtype, op.spec.shape))
    return node


def _numbers(op: ChainOp, dtype: Any) -> Any:
    """Return the constant's own numbers, or some that Grappler can neither fold away nor simplify."""
    import numpy as np

    assert op.spec is not None
    assert op.spec.shape is not None
    sizes = [size or 0 for size in op.spec.shape]
    if dtype.name == "string":
        return np.full(sizes, b"text")
    if op.values is not None:
        return np.array(op.values).astype(dtype.as_numpy_dtype).reshape(sizes)
    return np.random.default_rng(_SEED).uniform(0.5, 1.5, sizes).astype(dtype.as_numpy_dtype)


def _dtype_of_result(chain: Chain) -> int:
    last = chain.ops[-1]
    dtype = last.attrs.get("DstT") or last.attrs.get("T") or (last.spec.dtype if last.spec else "float32")
    return _enum(str(dtype))


# -- surroundings --------------------------------------------------------------------------------------------------


def _act_out(graph: Any, chain: Chain, item: Surrounding, name: str) -> list[str]:
    """Add what ``item`` says to the graph; return what has to be fetched for it."""
    if item.kind == "fetched":
        return [item.at]
    if item.kind == "control-out":
        graph.node.add(name=name, op="NoOp", input=[f"^{item.at}"])
        return [name]
    if item.kind == "control-in":
        _wait_for_an_assertion(graph, item.at, name)
        return [name]
    dtype = _output_dtype(chain, item.at)
    if item.type in SHAPE_READERS:
        node = graph.node.add(name=name, op="Shape", input=[item.at])
        node.attr["out_type"].type = _enum("int32")
    else:
        node = graph.node.add(name=name, op="Abs", input=[item.at])  # any op that Grappler does not know how to fuse
    node.attr["T"].type = dtype
    return [name]


def _wait_for_an_assertion(graph: Any, at: str, name: str) -> None:
    """Let ``at`` run after an op that Grappler may not remove."""
    condition = graph.node.add(name=f"{name}_condition", op="Placeholder")
    condition.attr["dtype"].type = _enum("bool")
    _set_shape(condition.attr["shape"].shape, ())
    assertion = graph.node.add(name=name, op="Assert", input=[condition.name, condition.name])
    assertion.attr["T"].list.type.append(_enum("bool"))
    next(node for node in graph.node if node.name == at).input.append(f"^{name}")


def _output_dtype(chain: Chain, name: str) -> int:
    op = next(op for op in chain.ops if op.name == name)
    return _enum(str(op.attrs.get("DstT") or op.attrs.get("T") or (op.spec.dtype if op.spec else "float32")))


# -- attributes ----------------------------------------------------------------------------------------------------


@cache
def _attr_kinds(op_type: str) -> Mapping[str, str]:
    """Return the attributes that ops of a type have, with their kinds (``type``, ``list(int)``, …)."""
    try:
        registry = importlib.import_module("tensorflow.python.framework.op_def_registry")
        definition = registry.get(op_type)
    except (ImportError, AttributeError) as error:
        raise ExecutionError(f"this TensorFlow does not describe its ops ({error})") from error
    if definition is None:
        raise ExecutionError(f"this TensorFlow has no op of type {op_type}")
    return {attr.name: attr.type for attr in definition.attr}


def _set_attr(attr: Any, kind: str, value: Any) -> None:
    """Write one decoded attribute back; what was not kept in decoding (functions, tensors) stays at its default."""
    if kind.startswith("list("):
        items = value if isinstance(value, (tuple, list)) else (value,)
        attr.list.SetInParent()
        _extend(attr.list, kind[5:-1], items)
    elif kind == "shape":
        _set_shape(attr.shape, value)
    elif kind in _FIELDS:
        field, convert = _FIELDS[kind]
        setattr(attr, field, convert(value))


def _extend(items: Any, kind: str, values: Iterable[Any]) -> None:
    if kind == "shape":
        for value in values:
            _set_shape(items.shape.add(), value)
    elif kind in _FIELDS:
        field, convert = _FIELDS[kind]
        getattr(items, field).extend(convert(value) for value in values)


def _set_shape(shape: Any, sizes: Sequence[int | None] | None) -> None:
    shape.SetInParent()
    shape.unknown_rank = sizes is None
    for size in sizes or ():
        shape.dim.add(size=-1 if size is None else size)


def _enum(dtype: str) -> int:
    import tensorflow as tf

    return int(tf.dtypes.as_dtype(dtype).as_datatype_enum)


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "type": ("type", lambda value: _enum(str(value))),
    "string": ("s", lambda value: str(value).encode()),
    "int": ("i", int),
    "float": ("f", float),
    "bool": ("b", bool),
}
