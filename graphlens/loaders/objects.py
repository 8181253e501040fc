"""The object graph of a TF2 SavedModel: what functions capture, which are called by name, and which while it loads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from graphlens.ir.graph import Variable
from graphlens.ir.nodes import TensorSpec
from graphlens.loaders.attrs import dtype_name, shape_of

SIGNATURES: Final = "signatures"  # child of the root that holds the signatures' functions

# On a plain object, a private name is what TensorFlow's own code calls (`_initialize`, `_restore_from_tensors`); public
# names and this one are what users call.  All other kinds of nodes belong to TensorFlow altogether.
_CALLED_BY_USERS: Final = "__call__"
_PARTS_OF_FUNCTIONS: Final = re.compile(r"^(trace|capture)_\d+$")  # what functions list, and nothing calls by name
_ALWAYS_CALLED: Final = frozenset({"_initialize", "_create_resource", "_destroy_resource"})
# Data, and functions that were never traced: there is nothing in them to call.
_NOT_CALLED: Final = frozenset(
    {"user_object", "variable", "constant", "asset", "resource", "captured_tensor", "function"}
)


def variable_of(saved: Any, otherwise: str) -> Variable:
    """Translate one ``SavedVariable``; ``otherwise`` names it when it has no name."""
    spec = TensorSpec(dtype_name(saved.dtype), shape_of(saved.shape))
    return Variable(saved.name or otherwise, spec, bool(saved.trainable))


def _node(object_graph: Any, number: int) -> Any | None:
    return object_graph.nodes[number] if 0 <= number < len(object_graph.nodes) else None


def bound_variables(object_graph: Any, function: str, inputs: tuple[str, ...]) -> dict[str, Variable]:
    """Return which variable each of the last arguments of ``function`` is bound to; other captures are absent."""
    if function not in object_graph.concrete_functions:
        return {}
    bound = list(object_graph.concrete_functions[function].bound_inputs)
    arguments = inputs[len(inputs) - len(bound) :]
    pairs = zip(arguments, bound, strict=False) if len(bound) <= len(inputs) else ()
    return {argument: variable for argument, number in pairs for variable in _bound(object_graph, number)}


def _bound(object_graph: Any, number: int) -> Iterator[Variable]:
    node = _node(object_graph, number)
    if node is not None and node.WhichOneof("kind") == "variable":
        yield variable_of(node.variable, f"variable_{number}")


def bound_constants(object_graph: Any, function: str, inputs: tuple[str, ...]) -> dict[str, str]:
    """Return for the arguments of ``function`` that are bound to constants the op of the main graph that holds them."""
    behind = {
        name: _constant(object_graph, number)
        for name, number in arguments_by_origin(object_graph, function, inputs).items()
    }
    return {name: operation for name, operation in behind.items() if operation is not None}


def _constant(object_graph: Any, number: int | None) -> str | None:
    node = _node(object_graph, -1 if number is None else number)
    return str(node.constant.operation) if node is not None and node.WhichOneof("kind") == "constant" else None


def called_function(object_graph: Any) -> str | None:
    """Return the function that calling the loaded object runs, ``None`` where it is not callable."""
    return next(_functions(object_graph, _children(object_graph, 0).get(_CALLED_BY_USERS, -1)), None)


def signature_function(object_graph: Any, signature: str) -> str | None:
    """Return the function that TensorFlow 2 runs for ``signature``, whatever the main graph calls under that name."""
    signatures = _children(object_graph, 0).get(SIGNATURES, -1)
    return next(_functions(object_graph, _children(object_graph, signatures).get(signature, -1)), None)


def functions_for_users(object_graph: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(name of the child, function)`` of the functions of the loaded object itself; signatures are none."""
    for name, number in _children(object_graph, 0).items():
        yield from ((name, function) for function in _functions(object_graph, number))


def functions_on_load(object_graph: Any) -> list[tuple[str, str | None]]:
    """Return ``(name of the child, function)`` of all that TensorFlow may run while it loads the model.

    They create tables and other resources, fill them, destroy them, and restore what has a saver of its own.  The
    function is ``None`` where the object graph does not say one.
    """
    children = [
        (child.local_name, child.node_id)
        for node in object_graph.nodes
        for child in node.children
        if _is_called_on_load(node, child.local_name)
    ]
    restored = [
        (name, number)
        for node in object_graph.nodes
        for name, saver in node.saveable_objects.items()
        for number in (saver.save_function, saver.restore_function)
    ]
    return list(dict.fromkeys(_resolved(object_graph, (*children, *restored))))


def _is_called_on_load(node: Any, child: str) -> bool:
    if node.WhichOneof("kind") == "user_object":
        return child.startswith("_") and child != _CALLED_BY_USERS
    return not _PARTS_OF_FUNCTIONS.match(child)


def _resolved(object_graph: Any, children: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str | None]]:
    for name, number in children:
        functions: list[str | None] = list(_functions(object_graph, number))
        node = _node(object_graph, number)
        harmless = node is not None and node.WhichOneof("kind") in _NOT_CALLED and name not in _ALWAYS_CALLED
        if functions or not harmless:
            yield from ((name, function) for function in functions or [None])


def arguments_by_origin(object_graph: Any, function: str, inputs: tuple[str, ...]) -> dict[str, int | None]:
    """Return for each of the last arguments of ``function``, which are bound, the number of the node behind it.

    ``None`` stands for all of them where their numbers do not fit.
    """
    if function not in object_graph.concrete_functions:
        return {}
    bound = list(object_graph.concrete_functions[function].bound_inputs)
    if len(bound) > len(inputs):
        return dict.fromkeys(inputs)
    return dict(zip(inputs[len(inputs) - len(bound) :], bound, strict=True))


def asset_number(object_graph: Any, number: int | None) -> int | None:
    """Return which of the model's assets the node is, ``None`` when it is none."""
    node = _node(object_graph, -1 if number is None else number)
    return int(node.asset.asset_file_def_index) if node is not None and node.WhichOneof("kind") == "asset" else None


def is_handle(object_graph: Any, number: int | None) -> bool:
    """Tell whether the node is a variable or a resource, which is no text."""
    node = _node(object_graph, -1 if number is None else number)
    return node is not None and node.WhichOneof("kind") in {"variable", "resource"}


def _children(object_graph: Any, number: int) -> dict[str, int]:
    node = _node(object_graph, number)
    return {child.local_name: child.node_id for child in node.children} if node is not None else {}


def _functions(object_graph: Any, number: int) -> Iterator[str]:
    node = _node(object_graph, number)
    kind = node.WhichOneof("kind") if node is not None else None
    if node is not None and kind == "function":
        yield from node.function.concrete_functions
    elif node is not None and kind == "bare_concrete_function":
        yield node.bare_concrete_function.concrete_function_name
