"""The graphs of one function: as traced, and as they ran, without weights and with the variables behind captures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphlens.loaders.capture.parts import EXECUTED_FOLDER, OPTIMIZED, TRACED
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.loaders.tensors import strip_weights
from graphlens.tf import private


def write_traced(capture: CaptureDirectory, concrete: Any, graph_def: Any) -> None:
    """Write the function as traced; its root is the main graph, whose placeholders are the inputs and captures."""
    capture.write(TRACED, strip_weights(graph_def).SerializeToString())
    capture.content["traced_root"] = ""
    capture.content["variables"] = captured_variables(concrete)


def captured_variables(concrete: Any) -> dict[str, dict[str, Any]]:
    """Return placeholder name -> the variable that a capture is bound to."""
    variables = private.variables_by_handle(concrete)
    return {
        inner.op.name: _described(variables[id(outer)])
        for outer, inner in private.captures(concrete)
        if id(outer) in variables
    }


def captured_shapes(concrete: Any) -> dict[str, tuple[int | None, ...]]:
    """Return placeholder name -> shape of what is captured, variable or constant."""
    variables = private.variables_by_handle(concrete)
    pairs = private.captures(concrete)
    shapes = {inner.op.name: variables.get(id(outer), outer).shape for outer, inner in pairs}
    return {name: tuple(shape.as_list()) for name, shape in shapes.items() if shape.rank is not None}


def _described(variable: Any) -> dict[str, Any]:
    return {
        "name": variable.name.removesuffix(":0"),
        "dtype": variable.dtype.name,
        "shape": variable.shape.as_list() if variable.shape.rank is not None else None,
        "trainable": variable.trainable,
    }


def write_executed(capture: CaptureDirectory, concrete: Any, call: Callable[[], object]) -> list[Any]:
    """Run one step from cold and write what TensorFlow made of the function: optimized, and one part per device.

    Returns the parts, none when TensorFlow does not hand them out.
    """
    capture.note(*private.forget_warm_kernels())
    collected, notes = private.call_collecting_graphs(call)
    capture.note(*notes)
    ran = _root(collected, concrete)
    if ran is None:
        return []
    capture.write(OPTIMIZED, strip_weights(ran.post_optimization_graph).SerializeToString())
    for index, partition in enumerate(ran.partition_graphs):
        name = f"{EXECUTED_FOLDER}{index}.pb"
        capture.write(name, strip_weights(partition).SerializeToString())
        capture.content["executed"].append(name)
    capture.content["executed_root_arguments"] = _root_arguments(ran, concrete)
    return list(ran.partition_graphs)


def write_renamed(capture: CaptureDirectory, concrete: Any) -> None:
    """Write which ops of the function run under another name than the one in its graph."""
    capture.content["renamed"] = renamed_ops(concrete)
    if capture.content["renamed"] is None:
        capture.note("TensorFlow does not say under which names it runs the ops: some may not be joined.")


def renamed_ops(concrete: Any) -> dict[str, str] | None:
    """Return runtime name -> name in the function's graph of every op for which they differ.

    A function is made from a graph by ``graph_to_functiondef.cc``: its arguments and results come first and take the
    names of their ops, in lower case and with ``_`` for what is no letter or digit; an op whose name is then taken gets
    a number.  So the op that gives a result and is called ``output`` runs as ``output_0``.  ``None`` where the two do
    not list the same ops in the same order, which is how they are paired.
    """
    definition = concrete.function_def
    arguments = [tensor.op for tensor in concrete.inputs]
    others = set(arguments)
    body = [operation for operation in concrete.graph.get_operations() if operation not in others]
    if [node.op for node in definition.node_def] != [operation.type for operation in body]:
        return None
    ran = [*definition.signature.input_arg, *definition.node_def]
    pairs = zip(ran, [*arguments, *body], strict=True)
    return {entry.name: operation.name for entry, operation in pairs if entry.name != operation.name}


def _root(collected: list[Any], concrete: Any) -> Any | None:
    """Pick the function's own graphs among those of small eager ops that ran along with it."""
    wanted = {operation.name for operation in concrete.graph.get_operations()}

    def common(graphs: Any) -> int:
        return sum(node.name in wanted for node in graphs.pre_optimization_graph.node)

    best = max(collected, key=common, default=None)
    return best if best is not None and common(best) > 0 else None


def _root_arguments(ran: Any, concrete: Any) -> Mapping[str, dict[str, Any]]:
    """Return ``_Arg`` name -> variable, matched by the argument's position in the whole function."""
    variables = private.variables_by_handle(concrete)
    pairs = private.captures(concrete)
    first = len(concrete.inputs) - len(pairs)
    described = {}
    for node in ran.pre_optimization_graph.node:
        position = node.attr["index"].i - first
        if node.op == "_Arg" and 0 <= position < len(pairs) and id(pairs[position][0]) in variables:
            described[node.name] = _described(variables[id(pairs[position][0])])
    return described
