"""Turn a program back into a function that TensorFlow runs, with variables for its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from graphlens.errors import RewriteError, first_line
from graphlens.tf import private
from graphlens.tf.open.opened import LOAD_FAILURES, Traced
from graphlens.tf.rewrite import flatten, nodes
from graphlens.tf.rewrite.program import Binding, Program, repacked


def build(program: Program) -> Traced:
    """Return the program as a function; it takes the inputs' tensors, flat, as the original's ``Traced`` does.

    Raises
    ------
    RewriteError
        If TensorFlow refuses the graph, which an edit must have broken.
    """
    ready = with_variables(program)

    def rewritten(*tensors: Any) -> Any:
        return repacked(ready, imported(ready, tensors))

    function = tf.function(rewritten, autograph=False, jit_compile=ready.compiled or None)
    concrete = concrete_of(function, list(ready.signature), {})
    return Traced(concrete, _Call(concrete, ready))


@dataclass(frozen=True, eq=False)
class _Call:
    """Calls a function, and keeps alive the variables that it refers to only weakly."""

    concrete: Any
    program: Program

    def __call__(self, tensors: Sequence[Any]) -> Any:
        return self.concrete(*tensors)


def concrete_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Trace ``function``; what TensorFlow refuses becomes one line."""
    try:
        return function.get_concrete_function(*args, **kwargs)
    except LOAD_FAILURES as error:
        raise RewriteError(f"TensorFlow refuses the rewritten graph: {first_line(error)}") from error


def with_variables(program: Program) -> Program:
    """Return the program with a variable for each weight that an edit made."""
    bindings = {name: _made(binding) for name, binding in program.bindings.items()}
    return replace(program, bindings=bindings)


def _made(binding: Binding) -> Binding:
    return Binding("variable", variable(binding), binding.name) if binding.kind == "weight" else binding


def variable(binding: Binding) -> Any:
    """Make the variable of a new weight: not trained, because it stands for several weights of the original."""
    return tf.Variable(binding.value, trainable=False, name=binding.name)


def imported(program: Program, tensors: Sequence[Any]) -> list[Any]:
    """Import the program's graph into the function being traced, fed by ``tensors``; returns its outputs."""
    bound = {**dict(zip(program.arguments, tensors, strict=True)), **_captured(program)}
    graph_def = _importable(program.graph, frozenset(bound))
    private.register_functions(graph_def.library)
    read = {nodes.source(ref) for node in graph_def.node for ref in nodes.data_inputs(node)}
    results = tf.graph_util.import_graph_def(
        graph_def,
        input_map={nodes.tensor(name): value for name, value in bound.items() if name in read},
        return_elements=[ref for ref in program.outputs if nodes.source(ref) not in bound],
        name="",
    )
    made = iter(results)
    outputs = [bound[nodes.source(ref)] if nodes.source(ref) in bound else next(made) for ref in program.outputs]
    for output, shape in zip(outputs, program.output_shapes, strict=True):
        if output.dtype not in (tf.resource, tf.variant):
            output.set_shape(shape)
    return outputs


def _captured(program: Program) -> dict[str, Any]:
    read = {nodes.source(ref) for node in program.graph.node for ref in node.input}
    read |= {nodes.source(ref) for ref in program.outputs}
    graph = tf.compat.v1.get_default_graph()
    return {
        name: private.capture(graph, binding.value, name) for name, binding in program.bindings.items() if name in read
    }


def _importable(graph_def: Any, bound: frozenset[str]) -> Any:
    """Return the graph without bound placeholders, its functions renamed so that none meets one of the same name."""
    kept = [node for node in graph_def.node if node.name not in bound]
    copy = flatten.graph_of(kept, graph_def.library.function, graph_def.versions)
    present = {node.name for node in kept}
    for node in copy.node:
        waits = [ref for ref in node.input if not (nodes.is_control(ref) and ref[1:] in bound)]
        del node.input[:]
        node.input.extend(waits)
        _keep_company(node, present)
    _rename_functions(copy)
    return copy


def _keep_company(node: Any, present: Set[str]) -> None:
    """Drop colocation with what is no longer there (ops that use one resource stay together without it)."""
    if "_class" in node.attr:
        places = [place for place in node.attr["_class"].list.s if place.decode().removeprefix("loc:@") in present]
        node.attr["_class"].list.s[:] = places


def _rename_functions(graph_def: Any) -> None:
    if not graph_def.library.function:
        return
    content = b"".join(function.SerializeToString(deterministic=True) for function in graph_def.library.function)
    suffix = hashlib.sha256(content).hexdigest()[:12]
    names = {
        function.signature.name: _renamed(function.signature.name, suffix) for function in graph_def.library.function
    }
    bodies = [function.node_def for function in graph_def.library.function]
    for function in graph_def.library.function:
        function.signature.name = names[function.signature.name]
    for node in (node for body in (graph_def.node, *bodies) for node in body):
        _point_to(node, names.get)


def _renamed(name: str, suffix: str) -> str:
    return f"{name.partition('__graphlens_')[0]}__graphlens_{suffix}"


def _point_to(node: Any, renamed: Callable[[str], str | None]) -> None:
    for value in node.attr.values():
        functions = [value.func] if value.WhichOneof("value") == "func" else list(value.list.func)
        for function in functions:
            function.name = renamed(function.name) or function.name
