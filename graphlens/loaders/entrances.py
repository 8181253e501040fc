"""Where a SavedModel is entered: how much each signature runs, and what there is to judge where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphlens.loaders import objects
from graphlens.loaders.functions import called
from graphlens.loaders.signatures import Signature, called_by, op_name, upstream, wrapping_call

# Ops that hold or hand on what others compute.
_NO_WORK: Final = frozenset(
    "Const Placeholder PlaceholderWithDefault NoOp Identity IdentityN _Arg _Retval StatefulPartitionedCall "
    "PartitionedCall VarHandleOp ReadVariableOp VariableV2".split()
)
# Ops of a main graph that only makes, fills and saves variables.
_OF_STATE: Final = _NO_WORK | frozenset(
    "VarIsInitializedOp AssignVariableOp Assign SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename StringJoin Pack "
    "StaticRegexFullMatch Select".split()
)


@dataclass(frozen=True, slots=True)
class Entrance:
    """A function that a caller may be given: its name in the program, and in the file."""

    name: str
    function: str


def op_counts(meta_graph: Any, signatures: Iterable[Signature], *, has_objects: bool) -> dict[str, int]:
    """Return signature -> how many ops it can reach that do some work, each function counted once."""
    library = _library(meta_graph)
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    return {
        signature.name: _work(_begin(meta_graph, signature, nodes, library, has_objects), library)
        for signature in signatures
    }


def _library(meta_graph: Any) -> dict[str, Any]:
    return {function.signature.name: function for function in meta_graph.graph_def.library.function}


def _begin(
    meta_graph: Any, signature: Signature, nodes: Mapping[str, Any], library: Mapping[str, Any], has_objects: bool
) -> Iterable[Any]:
    known = objects.signature_function(meta_graph.object_graph_def, signature.name) if has_objects else None
    call = wrapping_call(signature, nodes.values())
    function = known or (None if call is None else called_by(call))
    if function in library:
        return list(library[str(function)].node_def)
    tensors = [tensor for output in signature.outputs for tensor in output.tensors]
    return [nodes[name] for name in upstream(tensors, nodes)]


def _work(nodes: Iterable[Any], library: Mapping[str, Any]) -> int:
    pending, seen, count = [nodes], set(), 0
    for body in pending:  # grows while it is walked
        for node in body:
            count += node.op not in _NO_WORK
            for name in called(node):
                if name in library and name not in seen:
                    seen.add(name)
                    pending.append(library[name].node_def)
    return count


# -- without a signature --------------------------------------------------------------------------------------------


def ops_of_steps(meta_graph: Any) -> set[str]:
    """Return what a main graph computes that nobody reads, and all that this depends on: what a session may run.

    What makes, fills and saves variables is no part of it; the graph of a TF2 model has nothing else.
    """
    saver = meta_graph.saver_def
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    saving = upstream([op_name(saver.save_tensor_name), op_name(saver.restore_op_name)], nodes)
    read = {op_name(source) for node in nodes.values() for source in node.input if not source.startswith("^")}
    results = [name for name in nodes if name not in read and name not in saving and nodes[name].op not in _OF_STATE]
    return upstream(results, nodes)


def entrances(meta_graph: Any) -> list[Entrance]:
    """Return the functions that the object's user may call, those with most work first."""
    library = _library(meta_graph)
    known = objects.functions_for_users(meta_graph.object_graph_def)
    found = [Entrance(name, function) for name, function in known if function in library]
    return sorted(found, key=lambda one: -_work(library[one.function].node_def, library))
