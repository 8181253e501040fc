"""What the last arguments of a model's functions are bound to: variables, and tensors that a function captured.

A captured tensor is an argument that has the same value in every call.  Its value is a ``Const`` of the file's main
graph, which the object graph or the call in the main graph leads to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from graphlens.ir.graph import Function, Graph, Variable
from graphlens.ir.nodes import Constant, Op, TensorSpec
from graphlens.ir.ops import CONSTANTS, VARIABLE_HANDLES
from graphlens.loaders import objects
from graphlens.loaders.attrs import dtype_name, shape_of
from graphlens.loaders.signatures import op_name
from graphlens.loaders.stale import corrected_where_bound
from graphlens.loaders.tensors import constant_of, spec_of

_TEXT: Final = "string"  # a text may be the path of an asset, which is another one wherever the model is loaded


def by_objects(graph: Graph, meta_graph: Any) -> Graph:
    """Bind the functions of ``graph`` to what the object graph says, which TensorFlow 2 goes by."""
    object_graph = meta_graph.object_graph_def

    def bound(function: Function) -> Function:
        captures = objects.bound_variables(object_graph, function.name, function.inputs)
        return replace(function, captures=captures) if captures else function

    functions = {name: bound(function) for name, function in graph.functions.items()}
    named = objects.bound_constants(object_graph, graph.root, graph.main.inputs)
    bound_graph = replace(graph, functions=functions)
    return corrected_where_bound(with_constants(bound_graph, _constants(named, meta_graph.graph_def)))


def at_call(graph: Graph, graph_def: Any, call: Any) -> Graph:
    """Bind the root of ``graph`` to what ``call``, a node of the main graph, hands it: for files without objects."""
    nodes = {node.name: node for node in graph_def.node}
    given = [name for name in map(op_name, call.input) if name in nodes]
    named = dict(zip(graph.main.inputs, given, strict=False))
    variables = {
        argument: _variable(nodes[name]) for argument, name in named.items() if nodes[name].op in VARIABLE_HANDLES
    }
    main = replace(graph.main, captures={**variables, **graph.main.captures})
    bound = replace(graph, functions={**graph.functions, graph.root: main})
    return corrected_where_bound(with_constants(bound, _constants(named, graph_def)))


def _variable(node: Any) -> Variable:
    name = node.attr["shared_name"].s.decode("utf-8", "replace") or node.name
    return Variable(name, TensorSpec(dtype_name(node.attr["dtype"].type), shape_of(node.attr["shape"].shape)))


def _constants(named: Mapping[str, str], graph_def: Any) -> Mapping[str, tuple[TensorSpec, Constant]]:
    """Return for each argument what is known of the constant behind it; ``named`` are ops of the main graph."""
    wanted = set(named.values())
    found = {node.name: node for node in graph_def.node if node.name in wanted and node.op in CONSTANTS}
    tensors = {
        argument: (found[name].attr["value"].tensor, found[name].attr)
        for argument, name in named.items()
        if name in found
    }
    return {argument: (spec_of(tensor), constant_of(tensor, attrs)) for argument, (tensor, attrs) in tensors.items()}


def with_constants(graph: Graph, values: Mapping[str, tuple[TensorSpec, Constant]]) -> Graph:
    """Say in the root's arguments what is known of the tensors that they always hold."""
    held = {op.name: op for op in _holding(graph, values)}
    if not held:
        return graph
    main = replace(graph.main, graph=graph.main.graph.with_ops(held))
    return replace(graph, functions={**graph.functions, graph.root: main})


def _holding(graph: Graph, values: Mapping[str, tuple[TensorSpec, Constant]]) -> Iterator[Op]:
    for name, (spec, constant) in values.items():
        op = graph.main.graph.get(name)
        if op is not None and spec.dtype != _TEXT:
            yield replace(op, outputs=(spec,), constant=constant)  # what the file annotates may be another shape
