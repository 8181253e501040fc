"""The child process that shows graphs to Grappler as a machine with a GPU would: it needs neither the model nor a GPU.

It answers each ``PlacedGraph`` with ``Done`` or ``Failure``; ``children.ask_placement`` is the parent's side.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

from graphlens.children.channel import requests, reserve_stdout
from graphlens.children.messages import Done, Failure, PlacedGraph
from graphlens.errors import ExecutionError, GraphLensError, first_line
from graphlens.loaders.tensors import STRIPPED_BYTES, STRIPPED_DIGEST, strip_weights
from graphlens.tf.importing import import_tensorflow

_SEED: Final = 0
MOST_ELEMENTS: Final = 1 << 29  # of all weights that are made up: 2 GiB as float32, what a GraphDef can hold
_ARGUMENT, _RESULT, _STAND_IN = "_Arg", "_Retval", "FakeParam"
_INDEX: Final = "_graphlens_index"
_RESOURCE: Final = 20  # DT_RESOURCE
SHAPES: Final = "_output_shapes"


def main() -> int:
    """Answer until there are no more requests."""
    emit = reserve_stdout()
    failure = import_tensorflow()
    for request in requests(PlacedGraph):
        if failure is not None:
            emit(Failure(str(failure)))
            continue
        try:
            _serve(request)
        except GraphLensError as error:
            emit(Failure(str(error)))
        except Exception as error:  # whatever TensorFlow throws here, the parent goes on without this answer
            traceback.print_exc()
            emit(Failure(f"{type(error).__name__}: {first_line(error)}"))
        else:
            emit(Done())
    return 0


def _serve(request: PlacedGraph) -> None:
    from graphlens.tf.probe import grappler

    graph = _read(Path(request.graph))
    _cut(graph, request.cut)
    arguments = _with_known_shapes(graph, request.shapes)
    for node in graph.node:
        node.device = grappler.GPU if request.devices.get(node.name) == "GPU" else grappler.CPU
    fetches = _kept(graph)
    result = grappler.optimize_placed(graph, fetches, request.architecture, pin_to_host=request.pin_to_host)
    _restore(result, arguments)
    Path(request.result).write_bytes(strip_weights(result).SerializeToString())


def _read(path: Path) -> Any:
    """Read a graph and give weights that were stripped from it some values: none that folding would see through."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString(path.read_bytes())
    random = np.random.default_rng(_SEED)
    stripped = [node for node in graph.node if STRIPPED_BYTES in node.attr]
    if sum(_elements(node.attr["value"].tensor) for node in stripped) > MOST_ELEMENTS:
        raise ExecutionError("its constants are too large to be made up")
    for node in stripped:
        tensor = node.attr["value"].tensor
        values = _values(tf.as_dtype(tensor.dtype), [dim.size for dim in tensor.tensor_shape.dim], random)
        if values is not None:
            tensor.CopyFrom(tf.make_tensor_proto(values, dtype=tensor.dtype))
        del node.attr[STRIPPED_BYTES], node.attr[STRIPPED_DIGEST]
    return graph


def _elements(tensor: Any) -> int:
    return prod(abs(dim.size) for dim in tensor.tensor_shape.dim)


def _values(dtype: Any, shape: Sequence[int], random: Any) -> Any | None:
    if dtype.is_floating:
        return random.standard_normal(shape, "float32")
    if dtype.is_integer:
        return random.integers(0, 2, shape)  # valid as indices of whatever has two rows
    return random.random(shape) < 0.5 if dtype.is_bool else None


def _cut(graph: Any, names: Sequence[str]) -> None:
    """Turn ops into arguments of the function, as if the caller computed them."""
    wanted = set(names)
    index = sum(node.op == _ARGUMENT for node in graph.node)
    for node in graph.node:
        if node.name in wanted:
            dtype = node.attr["Tout"].type
            node.op = _ARGUMENT
            del node.input[:]
            node.attr.clear()
            node.attr["T"].type = dtype
            node.attr["index"].i = index
            index += 1


def _with_known_shapes(graph: Any, shapes: Mapping[str, Sequence[int | None]]) -> dict[str, Any]:
    """Put ops with a shape in the place of tensor arguments; returns the arguments by name.

    The runtime's Grappler knows an argument's shape by ``_output_shapes``, which Grappler's Python interface erases.
    ``FakeParam`` is the one op that Grappler treats as a placeholder and that has its shape as an attribute.
    """
    arguments = {}
    for node in graph.node:
        if node.op != _ARGUMENT or SHAPES not in node.attr or node.attr["T"].type == _RESOURCE:
            continue
        arguments[node.name] = type(node).FromString(node.SerializeToString())
        if node.name in shapes:
            _set_shape(arguments[node.name].attr[SHAPES].list.shape[0], shapes[node.name])
        node.op = _STAND_IN
        node.attr.clear()
        node.attr["dtype"].type = arguments[node.name].attr["T"].type
        node.attr["shape"].shape.CopyFrom(arguments[node.name].attr[SHAPES].list.shape[0])
        node.attr[_INDEX].CopyFrom(arguments[node.name].attr["index"])  # so that no two of them are alike
    return arguments


def _set_shape(proto: Any, sizes: Sequence[int | None]) -> None:
    proto.Clear()
    for size in sizes:
        proto.dim.add(size=size)


def _restore(graph: Any, arguments: Mapping[str, Any]) -> None:
    for node in graph.node:
        if node.op == _STAND_IN and node.name in arguments:
            device = node.device
            node.CopyFrom(arguments[node.name])
            node.device = device


def _kept(graph: Any) -> list[str]:
    """Return what the runtime would keep: results, and ops with effects that no result waits for."""
    from tensorflow.python.framework import op_def_registry

    results = [node.name for node in graph.node if node.op == _RESULT]
    needed = _ancestors(graph, results)
    effects = []
    for node in graph.node:
        definition = op_def_registry.get(node.op)
        has_effect = definition is not None and definition.is_stateful and node.op not in (_ARGUMENT, _STAND_IN)
        if has_effect and node.name not in needed:
            effects.append(node.name)
    return results + effects


def _ancestors(graph: Any, names: Sequence[str]) -> set[str]:
    inputs = {node.name: [name.lstrip("^").partition(":")[0] for name in node.input] for node in graph.node}
    found, pending = set(names), list(names)
    while pending:
        for name in inputs.get(pending.pop(), ()):
            if name not in found:
                found.add(name)
                pending.append(name)
    return found


if __name__ == "__main__":
    sys.exit(main())
