"""An editable copy of one function: its flat graph, what a caller feeds and gets, and what it holds on to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from graphlens.tf import private
from graphlens.tf.open.inputs import InputSpec
from graphlens.tf.open.opened import Opened
from graphlens.tf.rewrite import branches, flatten, handles, nodes

# Behind these, errors are squeezed: what goes into one is compared, not what comes out.
_SQUASHING = frozenset({"Softmax", "Sigmoid", "LogSoftmax"})
_HANDS_ON = frozenset({"Identity", "StopGradient", "Reshape", "Squeeze"})

_OWN_GRADIENT = "_gradient_op_type"
_GRADIENTS_LOST = (
    "Gradients that the model defines itself (tf.custom_gradient) are not kept: train the original, not the result."
)


@dataclass(frozen=True, eq=False)
class Binding:
    """What a placeholder of the graph stands for, other than an argument.

    ``variable``: a ``tf.Variable``; ``weight``: a variable that an edit made, still an array; ``constant``: a captured
    tensor; ``resource``: a table or another resource's handle.
    """

    kind: Literal["variable", "weight", "constant", "resource"]
    value: Any
    name: str


@dataclass(frozen=True, eq=False)
class Program:
    """One function, flat.  Never changed: edits make another.

    Attributes
    ----------
    graph
        GraphDef; conditionals and loops keep their functions in its library.
    arguments, names, signature
        The placeholders that a caller feeds, in order, the names that callers know them by, and their specs.
    outputs, structure
        The tensors returned, and the nest that they are packed into (as the function described it).
    effects
        Ops that run although nobody reads them.
    bindings
        Placeholder -> what it stands for.
    shapes
        Op -> shapes of its outputs, as far as tracing knew them.
    written
        Placeholders of variables that are, or may be, written: by this function or one that shares them.
    compiled
        Whether XLA compiles the whole function.
    vanished
        Ops that edits made superfluous.
    owner
        Keeps alive what the function captures only weakly.
    """

    graph: Any
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    signature: tuple[Any, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[Any, ...]
    structure: Any
    effects: tuple[str, ...]
    bindings: Mapping[str, Binding]
    shapes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    compiled: bool = False
    vanished: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    owner: Any = None


def extract(opened: Opened, specs: Sequence[InputSpec] | None = None) -> Program:
    """Copy an opened target's function, traced for ``specs`` (default: the shapes that the target itself says)."""
    traced = opened.trace(opened.specs if specs is None else specs)
    return replace(of_function(traced.concrete), owner=(opened.owner, traced.concrete))


def of_function(concrete: Any) -> Program:
    """Copy a ``ConcreteFunction``.

    Raises
    ------
    RewriteError
        If its graph holds what cannot be copied, such as a custom op that is not loaded, or a loop of TensorFlow 1.
    """
    graph_def = concrete.graph.as_graph_def(add_shapes=True)
    flat = flatten.flatten(graph_def)
    inlined, in_branches = branches.with_handles_outside(flat.nodes)
    library = flatten.library_of(graph_def, inlined)
    bindings = _bindings(concrete)
    written = _written_variables(inlined, library, bindings)
    branches.refuse_disorder(inlined, in_branches, written)
    for node in inlined:
        node.attr.pop("_output_shapes", None)
    kept = flatten.drop_idle_controls(inlined, frozenset(_unwritten_reads(inlined, bindings, written)))
    outputs = [output for output in concrete.outputs if output is not None]
    program = Program(
        graph=flatten.graph_of(kept, library, graph_def.versions),
        arguments=tuple(argument.op.name for argument in private.arguments(concrete)),
        names=tuple(private.argument_names(concrete)),
        signature=tuple(_spec(argument) for argument in private.arguments(concrete)),
        outputs=tuple(flat.resolve(output.name) for output in outputs),
        output_shapes=tuple(output.shape for output in outputs),
        structure=concrete.graph.structured_outputs,
        effects=tuple(operation.name for operation in concrete.graph.control_outputs),
        bindings=bindings,
        shapes=flat.shapes,
        written=written,
        compiled=private.is_jit_compiled(concrete),
        notes=_gradients_lost(graph_def),
        owner=concrete,
    )
    return replace(program, graph=pruned(program))


def _gradients_lost(graph_def: Any) -> tuple[str, ...]:
    """Return a note if the function defines gradients of its own, which a copy does not have."""
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    own = any(node.op == "IdentityN" and _OWN_GRADIENT in node.attr for body in bodies for node in body)
    return (_GRADIENTS_LOST,) if own else ()


def _spec(argument: Any) -> Any:
    return tf.TensorSpec(argument.shape, argument.dtype, name=argument.op.name)


def _bindings(concrete: Any) -> dict[str, Binding]:
    variables = private.variables_by_handle(concrete)
    return {
        inner.op.name: _binding(outer, variables.get(id(outer)), inner) for outer, inner in private.captures(concrete)
    }


def _binding(outer: Any, variable: Any, inner: Any) -> Binding:
    if variable is not None:
        return Binding("variable", variable, variable.name.removesuffix(":0"))
    is_handle = outer.dtype in (tf.resource, tf.variant)
    return Binding("resource" if is_handle else "constant", outer, inner.op.name)


# -- writes ---------------------------------------------------------------------------------------------------------


def _written_variables(
    graph_nodes: Sequence[Any], library: Sequence[Any], bindings: Mapping[str, Binding]
) -> frozenset[str]:
    """Return the placeholders of variables that may be written."""
    variables = [name for name, binding in bindings.items() if binding.kind == "variable"]
    return handles.written(graph_nodes, library, variables)


def _unwritten_reads(graph_nodes: Iterable[Any], bindings: Mapping[str, Binding], written: frozenset[str]) -> set[str]:
    readable = {name for name, binding in bindings.items() if binding.kind == "variable"} - written
    return {
        node.name
        for node in graph_nodes
        if node.op in nodes.READS and nodes.source(nodes.data_inputs(node)[0]) in readable
    }


# -- what is needed -------------------------------------------------------------------------------------------------


def pruned(program: Program) -> Any:
    """Return the program's graph without ops that neither its outputs nor its effects need."""
    by_name = {node.name: node for node in program.graph.node}
    idle = {name for name in program.effects if _is_idle(by_name.get(name), program)}
    todo = [nodes.source(ref) for ref in program.outputs] + [name for name in program.effects if name not in idle]
    needed = set(program.arguments)
    while todo:
        name = todo.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            todo += [nodes.source(ref) for ref in by_name[name].input]
    kept = [node for node in program.graph.node if node.name in needed]
    return flatten.graph_of(kept, flatten.library_of(program.graph, kept), program.graph.versions)


def _is_idle(node: Any | None, program: Program) -> bool:
    """Whether an effect does nothing by itself: a read of an unwritten variable, or a group of nothing."""
    if node is None:
        return True
    if node.op in nodes.READS:
        return nodes.source(nodes.data_inputs(node)[0]) not in program.written
    return node.op == "NoOp" and not node.input


# -- outputs to compare ---------------------------------------------------------------------------------------------


def probing(program: Program) -> Program:
    """Return a program that gives, by the name of each output, the tensor to compare.

    That is what goes into a final softmax or sigmoid, where there is one, and the output itself otherwise.
    """
    by_name = {node.name: node for node in program.graph.node}
    probes = [_probe(ref, by_name) for ref in program.outputs]
    names = output_names(program)
    shapes = tuple(
        shape if probe == ref else tf.TensorShape(None)
        for probe, ref, shape in zip(probes, program.outputs, program.output_shapes, strict=True)
    )
    structure = {name: tf.TensorSpec(shape) for name, shape in zip(names, shapes, strict=True)}
    order = sorted(range(len(names)), key=names.__getitem__)  # nests flatten in the order of their keys
    return replace(
        program,
        outputs=tuple(probes[index] for index in order),
        output_shapes=tuple(shapes[index] for index in order),
        structure=structure,
    )


def _probe(ref: str, by_name: Mapping[str, Any]) -> str:
    inner = ref
    while (node := by_name.get(nodes.source(inner))) is not None and node.op in _HANDS_ON:
        inner = nodes.data_inputs(node)[0]
    return nodes.data_inputs(node)[0] if node is not None and node.op in _SQUASHING else ref


def output_names(program: Program) -> list[str]:
    """Return a name for every output: its path in the structure that the function returns."""
    if program.structure is None:
        return [f"output_{index}" for index in range(len(program.outputs))]
    paths = tf.nest.flatten(_paths(program.structure, ""), expand_composites=True)
    leaves = tf.nest.flatten(program.structure, expand_composites=True)
    named = (
        [path for path, leaf in zip(paths, leaves, strict=True) if is_tensor(leaf)] if len(paths) == len(leaves) else []
    )
    return named if len(named) == len(program.outputs) else [f"output_{i}" for i in range(len(program.outputs))]


def _paths(structure: Any, path: str) -> Any:
    if isinstance(structure, Mapping):
        return {key: _paths(value, f"{path}/{key}" if path else str(key)) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [
            _paths(value, f"{path}/{index}" if path else f"output_{index}") for index, value in enumerate(structure)
        ]
    return path or "output_0"


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf of an output structure is a tensor (or describes one)."""
    return isinstance(leaf, (tf.Tensor, tf.TensorSpec)) or (hasattr(leaf, "dtype") and not isinstance(leaf, np.generic))


def repacked(program: Program, tensors: Sequence[Any]) -> Any:
    """Return ``tensors`` in the structure that the function returns."""
    if program.structure is None:
        return list(tensors)
    values = iter(tensors)
    leaves = tf.nest.flatten(program.structure, expand_composites=True)
    filled = [next(values) if is_tensor(leaf) else leaf for leaf in leaves]
    return tf.nest.pack_sequence_as(program.structure, filled, expand_composites=True)
