"""The object graph of a TF2 SavedModel: variables, what functions capture, which library wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from graphlens.ir.graph import TensorSpec, Variable
from graphlens.loaders.attrs import dtype_name, shape_of

# Keras 3 exports list every variable a second time under this child of the root.
_SECOND_LIST: Final = "_all_variables"
_FIRST_LIST: Final = "variables"


def variables_of(object_graph: Any) -> dict[int, Variable]:
    """Return the variables by their number in the object graph."""
    skipped = _listed_twice(object_graph)
    return {
        number: variable_of(node.variable, f"variable_{number}")
        for number, node in enumerate(object_graph.nodes)
        if node.WhichOneof("kind") == "variable" and number not in skipped
    }


def variable_of(saved: Any, otherwise: str) -> Variable:
    """Translate one ``SavedVariable``; ``otherwise`` names it when it has no name."""
    spec = TensorSpec(dtype_name(saved.dtype), shape_of(saved.shape))
    return Variable(saved.name or otherwise, spec, bool(saved.trainable))


def _listed_twice(object_graph: Any) -> frozenset[int]:
    if not object_graph.nodes:
        return frozenset()
    children = {child.local_name: child.node_id for child in object_graph.nodes[0].children}
    if _SECOND_LIST not in children or _FIRST_LIST not in children:
        return frozenset()
    return _members(object_graph, children[_SECOND_LIST]) - _members(object_graph, children[_FIRST_LIST])


def _members(object_graph: Any, number: int) -> frozenset[int]:
    node = _node(object_graph, number)
    return frozenset(child.node_id for child in node.children) if node is not None else frozenset()


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


# Names under which a trackable resource holds the functions that the loader calls.
_ON_LOAD = frozenset({"_initialize", "_create_resource", "_destroy_resource"})


def _bound(object_graph: Any, number: int) -> Iterator[Variable]:
    node = _node(object_graph, number)
    if node is not None and node.WhichOneof("kind") == "variable":
        yield variable_of(node.variable, f"variable_{number}")


def called_function(object_graph: Any) -> str | None:
    """Return the function that calling the loaded object runs, ``None`` where it is not callable."""
    if not object_graph.nodes:
        return None
    children = {child.local_name: child.node_id for child in object_graph.nodes[0].children}
    return next(_functions(object_graph, children.get("__call__", -1)), None)


def keras_version(object_graph: Any, has_metadata_file: bool) -> str | None:
    """Return ``keras 2`` or ``keras 3`` where the object graph shows its marks."""
    identifiers = {
        node.user_object.identifier for node in object_graph.nodes if node.WhichOneof("kind") == "user_object"
    }
    if has_metadata_file or any(name.startswith("_tf_keras") for name in identifiers):
        return "keras 2"
    children = {child.local_name for child in object_graph.nodes[0].children} if object_graph.nodes else set()
    # The first are the marks of `model.export`, the second of `tf.saved_model.save(model)`.
    return "keras 3" if {_SECOND_LIST, "_misc_assets"} <= children or {"_tracked", "_losses"} <= children else None


def has_optimizer_slots(object_graph: Any) -> bool:
    """Tell whether an optimizer's slot variables were saved, which need Keras 2 to be loaded."""
    return any(node.slot_variables for node in object_graph.nodes)


def initializers_of(object_graph: Any) -> tuple[str, ...]:
    """Return the functions that TensorFlow runs while it loads the model, in the object graph's order.

    They create tables and other resources, fill them, destroy them, and restore what has a saver of its own.
    """
    named = [child.node_id for node in object_graph.nodes for child in node.children if child.local_name in _ON_LOAD]
    restored = [saver.restore_function for node in object_graph.nodes for saver in node.saveable_objects.values()]
    found = [name for number in (*named, *restored) for name in _functions(object_graph, number)]
    return tuple(dict.fromkeys(found))


def _functions(object_graph: Any, number: int) -> Iterator[str]:
    node = _node(object_graph, number)
    if node is not None and node.WhichOneof("kind") == "function":
        yield from node.function.concrete_functions
