"""The graph of a function as traced, without weights, and the variables behind its captures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf

from graphlens.ir.capture import CapturedVariable
from graphlens.ir.nodes import Constant
from graphlens.loaders.capture.parts import TRACED
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.loaders.tensors import strip_weights
from graphlens.tf import private
from graphlens.tf.record import layers
from graphlens.tf.record.callbacks import python_functions
from graphlens.tf.record.lines import add_lines


def write_traced(capture: CaptureDirectory, concrete: Any, graph_def: Any) -> None:
    """Write the function as traced; its root is the main graph, whose placeholders are the inputs and captures."""
    capture.write(TRACED, with_lines(concrete, graph_def))
    capture.manifest = replace(
        capture.manifest,
        traced_root="",
        variables=captured_variables(concrete),
        captured=captured_tensors(concrete),
        captured_numbers=captured_numbers(concrete),
        scopes=layers.noted(concrete),
        callbacks={**capture.manifest.callbacks, **python_functions(graph_def)},
    )


def with_lines(concrete: Any, graph_def: Any) -> bytes:
    """Return a function's graph, serialized: without weights, with the line of the user's program on each op."""
    traced = strip_weights(graph_def)
    add_lines(traced, concrete)
    return bytes(traced.SerializeToString())


def captured_tensors(concrete: Any) -> tuple[str, ...]:
    """Return the placeholders of the tensors that a function captures, which are the same in every call."""
    return tuple(
        inner.op.name for outer, inner in private.captures(concrete) if outer is not inner and is_tensor(outer)
    )


def captured_numbers(concrete: Any) -> dict[str, tuple[int, ...]]:
    """Return placeholder name -> what it holds, of captured tensors of few whole numbers."""
    found = {inner.op.name: few_numbers(outer) for outer, inner in private.captures(concrete)}
    return {name: numbers for name, numbers in found.items() if numbers is not None}


def few_numbers(captured: Any) -> tuple[int, ...] | None:
    """Return what a captured tensor holds, flattened, if these are few whole numbers, as axes are and no weights."""
    is_few = (
        is_tensor(captured) and captured.dtype.is_integer and (captured.shape.num_elements() or 0) <= Constant.LIMIT
    )
    value = tf.get_static_value(captured) if is_few else None
    return None if value is None else tuple(int(number) for number in value.reshape(-1))


def captured_variables(concrete: Any) -> dict[str, CapturedVariable]:
    """Return placeholder name -> the variable that a capture is bound to."""
    variables = private.variables_by_handle(concrete)
    return {
        inner.op.name: described(variables[id(outer)])
        for outer, inner in private.captures(concrete)
        if id(outer) in variables
    }


def captured_shapes(concrete: Any) -> dict[str, tuple[int | None, ...]]:
    """Return placeholder name -> shape of what is captured, variable or constant."""
    variables = private.variables_by_handle(concrete)
    pairs = private.captures(concrete)
    shapes = {inner.op.name: variables.get(id(outer), outer).shape for outer, inner in pairs}
    return {name: tuple(shape.as_list()) for name, shape in shapes.items() if shape.rank is not None}


def is_tensor(captured: Any) -> bool:
    """Whether what a function captures is a tensor, the same in every call, and no handle.

    A text may be the path of a file, which is another one wherever the model is loaded.
    """
    return captured.dtype not in (tf.resource, tf.variant, tf.string)


def described(variable: Any) -> CapturedVariable:
    """Return what the capture says about a variable."""
    shape = tuple(variable.shape.as_list()) if variable.shape.rank is not None else None
    name, key = variable.name.removesuffix(":0"), private.unique_id(variable)
    return CapturedVariable(name, variable.dtype.name, shape, variable.trainable, key=key)


def write_renamed(capture: CaptureDirectory, concrete: Any) -> None:
    """Write which ops of the function run under another name than the one in its graph."""
    renamed = renamed_ops(concrete)
    capture.manifest = replace(capture.manifest, renamed=renamed)
    if renamed is None:
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
