"""Inline the calls of a function into one graph, under the names that the runtime gives when it inlines.

Conditionals and loops stay functional, with their library; so do calls that XLA compiles, that ask not to be inlined,
or that Grappler may replace by another implementation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.ops import PLAIN_CALLS
from graphlens.loaders.functions import called
from graphlens.tf.rewrite.nodes import (
    GraphDef,
    NodeDef,
    canonical,
    data_inputs,
    inputs_first,
    is_control,
    make,
    output_offsets,
    source,
    touches_state,
)

_KEPT_CALLS = ("_XlaMustCompile", "_noinline")
_REPLACEABLE = "api_implements"  # Grappler may put a cuDNN kernel in place of such a function
# What is derived from shapes or names and wrong after an edit.
_DERIVED = (
    "_output_shapes",
    "_input_shapes",
    "_input_hostmem",
    "_forward_func_name",
    "_gradient_op_type",
    "_user_specified_name",
)


@dataclass(frozen=True)
class Flat:
    """One graph without plain calls; ``resolve`` tells where a tensor of the function's own graph went."""

    nodes: Sequence[Any]
    aliases: Mapping[str, str]
    shapes: Mapping[str, Sequence[Any]]  # TensorShapeProtos of the outputs, where the graph says them

    def resolve(self, ref: str) -> str:
        """Return the tensor that stands for ``ref`` once calls are inlined."""
        ref = canonical(ref)
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref


@dataclass(frozen=True)
class _Frame:
    """One call being inlined: its path, what its arguments are, and what its stateful ops have to wait for."""

    prefix: str = ""
    arguments: Mapping[str, str] | None = None
    gates: Sequence[str] = ()
    attributes: Mapping[str, Any] | None = None
    device: str = ""


def flatten(graph_def: Any) -> Flat:
    """Return the nodes of ``graph_def`` with calls inlined.

    Raises
    ------
    RewriteError
        If the graph holds what cannot be read, a custom op for instance, or ops whose names cannot be told apart.
    """
    flattener = _Flattener({function.signature.name: function for function in graph_def.library.function})
    flattener.emit_all(graph_def.node, _Frame())
    _refuse_equal_names(flattener.nodes)
    flat = Flat(flattener.nodes, flattener.aliases, flattener.shapes)
    for node in flat.nodes:
        controls = dict.fromkeys(ref for ref in node.input if is_control(ref))
        _set_inputs(node, [*(flat.resolve(ref) for ref in data_inputs(node)), *controls])
    return flat


def _refuse_equal_names(nodes: Sequence[Any]) -> None:
    twice = [name for name, count in Counter(node.name for node in nodes).items() if count > 1]
    if twice:
        raise RewriteError(f"with its calls inlined, the graph has two ops called '{twice[0]}': rename one of them")


class _Flattener:
    """The state of one inlining: the nodes so far, and which tensors are other names of others."""

    def __init__(self, library: Mapping[str, Any]) -> None:
        self.library = library
        self.nodes: list[Any] = []
        self.aliases: dict[str, str] = {}
        self.shapes: dict[str, Sequence[Any]] = {}

    def emit_all(self, nodes: Sequence[Any], frame: _Frame) -> None:
        offsets = {node.name: output_offsets(node) for node in nodes} if frame.arguments is not None else {}
        for node in nodes:
            if "_output_shapes" in node.attr:
                self.shapes[frame.prefix + node.name] = list(node.attr["_output_shapes"].list.shape)
            self.emit(_placed(node, frame, offsets), frame)

    def emit(self, node: Any, frame: _Frame) -> None:
        if frame.gates and touches_state(node):
            node.input.extend(frame.gates)
        function = self._inlined(node)
        if function is None:
            self.nodes.append(node)
        else:
            self.enter(node, function)

    def _inlined(self, node: Any) -> Any | None:
        if node.op not in PLAIN_CALLS or any(key in node.attr and node.attr[key].b for key in _KEPT_CALLS):
            return None
        function = self.library[node.attr["f"].func.name]
        kept = any(key in function.attr and function.attr[key].b for key in _KEPT_CALLS)
        return None if kept or _REPLACEABLE in function.attr else function

    def enter(self, call: Any, function: Any) -> None:
        names = [argument.name for argument in function.signature.input_arg]
        controls = [ref for ref in call.input if is_control(ref)]
        frame = _Frame(
            f"{call.name}/",
            dict(zip(names, data_inputs(call), strict=True)),
            controls,
            call.attr["f"].func.attr,
            call.device,
        )
        self.emit_all(function.node_def, frame)
        offsets = {node.name: output_offsets(node) for node in function.node_def}
        for index, output in enumerate(function.signature.output_arg):
            self.aliases[f"{call.name}:{index}"] = _ref(function.ret[output.name], frame, offsets)
        # Whoever waited for the call waits for what the call had to do.
        ran = [f"^{frame.prefix}{name}" for name in function.control_ret.values()]
        self.nodes.append(make("NoOp", call.name, [*controls, *ran]))


def _placed(node: Any, frame: _Frame, offsets: Mapping[str, Mapping[str, int]]) -> Any:
    """Return a copy of a body's node as it appears in the flat graph."""
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.name = frame.prefix + node.name
    copy.device = node.device or frame.device
    _set_inputs(copy, [_ref(ref, frame, offsets) for ref in node.input])
    _bind_attributes(copy, frame)
    for key in _DERIVED:
        copy.attr.pop(key, None)
    return copy


def _ref(ref: str, frame: _Frame, offsets: Mapping[str, Mapping[str, int]]) -> str:
    if frame.arguments is None:
        return canonical(ref)
    if is_control(ref):
        name = ref[1:]
        return f"^{source(frame.arguments[name])}" if name in frame.arguments else f"^{frame.prefix}{name}"
    name, _, output = ref.partition(":")
    if not output:
        return frame.arguments[name]
    argument, _, index = output.partition(":")
    return f"{frame.prefix}{name}:{offsets[name][argument] + int(index or 0)}"


def _bind_attributes(node: Any, frame: _Frame) -> None:
    for key, value in node.attr.items():
        if value.WhichOneof("value") == "placeholder":
            bound = (frame.attributes or {}).get(value.placeholder)
            if bound is None:
                raise RewriteError(f"'{node.name}' leaves its attribute '{key}' to a caller that does not give it")
            value.CopyFrom(bound)
    if "_class" in node.attr and frame.prefix:
        places = [place.replace(b"loc:@", b"loc:@" + frame.prefix.encode()) for place in node.attr["_class"].list.s]
        node.attr["_class"].list.s[:] = places


def _set_inputs(node: Any, inputs: Sequence[str]) -> None:
    del node.input[:]
    node.input.extend(inputs)


# -- what order matters ---------------------------------------------------------------------------------------------


def drop_idle_controls(nodes: Sequence[Any], unwritten: frozenset[str]) -> list[Any]:
    """Return ``nodes`` without the control edges that order nothing.

    A function waits for every variable that it reads, so that nobody writes it before; where nobody does, such edges
    only keep reads alive that an edit made superfluous.  ``unwritten`` are the reads of variables never written.
    """
    by_name = {node.name: node for node in nodes}
    idle: dict[str, bool] = {}
    for name in inputs_first(by_name):
        node = by_name[name]
        waits = [ref for ref in node.input if is_control(ref)]
        needed = [ref for ref in waits if not idle.get(ref[1:], False)]
        if len(needed) < len(waits):
            _set_inputs(node, [*data_inputs(node), *needed])
        idle[name] = not needed and (name in unwritten or node.op in {"Const", "NoOp", "Placeholder"})
    return list(nodes)


def library_of(graph_def: Any, nodes: Sequence[Any]) -> list[Any]:
    """Return the functions that ``nodes`` need, directly and through others, without what is derived from shapes."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    todo = [name for node in nodes for name in called(node)]
    kept: dict[str, Any] = {}
    while todo:
        name = todo.pop()
        if name in functions and name not in kept:
            kept[name] = _cleaned(functions[name])
            todo += [inner for node in functions[name].node_def for inner in called(node)]
    return list(kept.values())


def _cleaned(function: Any) -> Any:
    copy = type(function)()
    copy.CopyFrom(function)
    for node in copy.node_def:
        for key in _DERIVED:
            node.attr.pop(key, None)
    for key in _DERIVED:
        copy.attr.pop(key, None)
    for attributes in copy.arg_attr.values():
        attributes.attr.pop("_output_shapes", None)
    return copy


def graph_of(nodes: Sequence[Any], library: Sequence[Any], versions: Any) -> Any:
    """Return a GraphDef of copies of ``nodes``."""
    graph_def = GraphDef(node=nodes, versions=versions)
    graph_def.library.function.extend(library)
    return graph_def
