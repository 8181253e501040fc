"""``jit-compile`` and ``place-ops``: who computes a part of the graph: XLA instead of op by op, another device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from graphlens.errors import RewriteError
from graphlens.ir.edits import JitCompile, PlaceOps
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named

COMPILES_ANEW: Final = (
    "XLA compiles in the first call with every new shape of the inputs; only the shapes given were measured"
)


@rewrite
def jit_compile(draft: Draft, edit: JitCompile) -> None:
    """Let XLA compile the ops named as one cluster, or the whole function."""
    wanted = named(edit)
    if not wanted:
        draft.compiled = True
        draft.notes.append(COMPILES_ANEW)
        return
    cluster = _convex(draft, [draft.node(name).name for name in wanted])
    _refuse_outsiders(draft, cluster)
    _enclose(draft, cluster)


@rewrite
def place_ops(draft: Draft, edit: PlaceOps) -> None:
    """Ask for another device for the ops named."""
    device = edit.device
    for name in named(edit):
        draft.node(name).device = device
        draft.node(name).attr.pop("_class", None)


def _convex(draft: Draft, wanted: Sequence[str]) -> list[str]:
    """Return the cluster in the draft's order; no path may leave it and come back."""
    inside = set(wanted)
    todo = [reader for name in inside for reader in draft.readers(name) if reader not in inside]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        for reader in draft.readers(name):
            if reader in inside:
                raise RewriteError(f"'{name}' lies between the ops to compile together, and is not one of them")
            todo.append(reader)
    return [name for name in draft if name in inside]


def _refuse_outsiders(draft: Draft, cluster: Sequence[str]) -> None:
    for name in cluster:
        node = draft.node(name)
        if nodes.touches_state(node) and node.op not in nodes.READS:
            raise RewriteError(f"'{name}' ({node.op}) has an effect or a state, and stays outside of a compiled part")
        if node.op == "Placeholder":
            raise RewriteError(f"'{name}' is an input of the function")


def _enclose(draft: Draft, cluster: Sequence[str]) -> None:
    """Replace the cluster by the call of a function that XLA must compile."""
    inside = set(cluster)
    inputs = [ref for name in cluster for ref in nodes.data_inputs(draft.node(name))]
    entering = list(dict.fromkeys(ref for ref in inputs if nodes.source(ref) not in inside))
    leaving = [ref for name in cluster for ref in _read_outside(draft, name, inside)]
    if not leaving:
        raise RewriteError("nobody reads what the ops to compile compute")
    call = _call(draft, cluster, entering, leaving)
    draft.add(call)
    for index, ref in enumerate(leaving):
        result = nodes.tensor(call.name, index)
        draft.redirect(ref, result, only=[reader for reader in draft.reads(ref) if reader not in inside])
        draft.outputs = [result if output == ref else output for output in draft.outputs]
    for member in cluster:
        _forward_waits(draft, member, call.name, inside)


def _call(draft: Draft, cluster: Sequence[str], entering: Sequence[str], leaving: Sequence[str]) -> Any:
    name = draft.unused(f"{cluster[-1]}/compiled")
    function = _function(draft, f"compiled_{name.replace('/', '_')}", cluster, entering)
    for index, ref in enumerate(leaving):
        function.signature.output_arg.add(name=f"result_{index}", type=draft.dtype(ref).as_datatype_enum)
        function.ret[f"result_{index}"] = in_function(draft.producer(ref), ref)
    draft.library[function.signature.name] = function
    waits = {ref for member in cluster for ref in nodes.control_inputs(draft.node(member)) if ref[1:] not in cluster}
    call = nodes.make("StatefulPartitionedCall", name, [*entering, *sorted(waits)], draft.node(cluster[-1]))
    call.attr["f"].func.name = function.signature.name
    for key, refs in (("Tin", entering), ("Tout", leaving)):
        call.attr[key].list.SetInParent()
        call.attr[key].list.type.extend(draft.dtype(ref).as_datatype_enum for ref in refs)
    nodes.set_attribute(call, "_XlaMustCompile", True)
    return call


def _forward_waits(draft: Draft, member: str, call: str, inside: set[str]) -> None:
    for reader in draft.readers(member):
        if reader not in inside and f"^{member}" in draft.node(reader).input:
            kept = [ref for ref in draft.node(reader).input if ref not in (f"^{member}", f"^{call}")]
            draft.set_inputs(reader, [*kept, f"^{call}"])


def _read_outside(draft: Draft, name: str, inside: set[str]) -> list[str]:
    refs = [nodes.tensor(name, index) for index in range(len(nodes.output_types(draft.node(name))))]
    return [ref for ref in refs if ref in draft.outputs or any(one not in inside for one in draft.reads(ref))]


def _function(draft: Draft, name: str, cluster: Sequence[str], entering: Sequence[str]) -> Any:
    """Return the cluster as a FunctionDef that has no results yet."""
    function = nodes.GraphDef().library.function.add()
    function.signature.name = name
    function.signature.is_stateful = any(draft.node(member).op in nodes.READS for member in cluster)
    arguments = {ref: f"argument_{index}" for index, ref in enumerate(entering)}
    for ref, argument in arguments.items():
        function.signature.input_arg.add(name=argument, type=draft.dtype(ref).as_datatype_enum)
    for member in cluster:
        _add_to_body(draft, function, member, arguments, set(cluster))
    return function


def _add_to_body(draft: Draft, function: Any, member: str, arguments: Mapping[str, str], inside: set[str]) -> None:
    node = function.node_def.add()
    node.CopyFrom(draft.node(member))
    node.attr.pop("_class", None)
    refs = [arguments.get(ref) or in_function(draft.producer(ref), ref) for ref in nodes.data_inputs(node)]
    waits = [ref for ref in nodes.control_inputs(node) if ref[1:] in inside]
    del node.input[:]
    node.input.extend([*refs, *waits])


def in_function(producer: Any, ref: str) -> str:
    """Return a tensor's ref as a function's body writes it: ``op:argument:index``."""
    index = nodes.port(ref)
    offsets = nodes.output_offsets(producer)
    argument = max((name for name in offsets if offsets[name] <= index), key=offsets.__getitem__)
    return f"{producer.name}:{argument}:{index - offsets[argument]}"
