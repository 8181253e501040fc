"""TensorFlow 1's branches and loops: what of them a copy can keep, and what is refused.

Who reads a variable in a branch takes its handle directly, and waits for the branch.  TensorFlow 1 leads the handle
itself through a ``Switch``.  A graph that is imported into a function cannot have that: tracing looks for the
conditional that the ``Switch`` belongs to, which only exists where it was made.  Tracing also adds control edges, after
every ``Merge`` and between ops that share state; across the frames of a loop these are errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.ops import ENTERS
from graphlens.tf.rewrite import nodes

_ADVICE = "save the model with TensorFlow 2's control flow (tf.compat.v1.enable_control_flow_v2)"


def with_handles_outside(graph_nodes: Sequence[Any]) -> tuple[list[Any], frozenset[str]]:
    """Return the nodes without switches of handles, and the placeholders of the handles that went through one.

    Inputs of the nodes are changed in place.
    """
    switches = {node.name: node for node in graph_nodes if node.op == "Switch" and nodes.dtype_of(node) == tf.resource}
    branches: dict[tuple[str, int], Any] = {}
    kept = [node for node in graph_nodes if node.name not in switches]
    handles: set[str] = set()
    for node in kept if switches else ():
        inputs = [_past(ref, switches, branches) for ref in node.input]
        handles.update(nodes.source(ref) for ref, found in inputs if found)
        waits = dict.fromkeys(wait for _, found in inputs for wait in found)
        refs = dict.fromkeys(ref for ref, _ in inputs if nodes.is_control(ref))
        data = [ref for ref, _ in inputs if not nodes.is_control(ref)]
        del node.input[:]
        node.input.extend([*data, *dict.fromkeys([*refs, *waits])])
    return [*kept, *_entries(switches, branches), *branches.values()], frozenset(handles)


def refuse_disorder(graph_nodes: Sequence[Any], in_branches: Set[str], written: Set[str]) -> None:
    """Refuse what tracing would put in a wrong order.

    Raises
    ------
    RewriteError
        If the graph has a loop of TensorFlow 1, or writes a variable that one of its branches uses.
    """
    if loops := [node.name for node in graph_nodes if node.op in ENTERS]:
        raise RewriteError(f"'{loops[0]}' enters a loop as TensorFlow 1 wrote them, which cannot be copied: {_ADVICE}")
    if both := sorted(in_branches & written):
        raise RewriteError(f"'{both[0]}' is written, and used in a branch as TensorFlow 1 wrote them: {_ADVICE}")


def _past(ref: str, switches: Mapping[str, Any], branches: dict[tuple[str, int], Any]) -> tuple[str, list[str]]:
    """Return what a ref leads to before all switches, and the control edges to wait for in their place."""
    waits: list[str] = []
    while (switch := switches.get(nodes.source(ref))) is not None:
        handle, taken = nodes.data_inputs(switch)
        if nodes.is_control(ref):
            return f"^{nodes.source(taken)}", waits
        waits.append(f"^{_branch(switch, nodes.port(ref), branches)}")
        ref = handle
    return ref, waits


def _branch(switch: Any, port: int, branches: dict[tuple[str, int], Any]) -> str:
    """Return an op that runs in one of the two branches only."""
    key = (switch.name, port)
    if key not in branches:
        entry = nodes.tensor(f"{switch.name}/taken", port)
        branches[key] = nodes.make("Identity", f"{switch.name}/branch_{port}", [entry], switch, T=tf.bool)
    return str(branches[key].name)


def _entries(switches: Mapping[str, Any], branches: Mapping[tuple[str, int], Any]) -> list[Any]:
    """Return, for each switch that somebody read, one of its predicate."""
    made = []
    for name in dict.fromkeys(name for name, _ in branches):
        taken = nodes.data_inputs(switches[name])[1]
        waits = nodes.control_inputs(switches[name])
        made.append(nodes.make("Switch", f"{name}/taken", [taken, taken, *waits], switches[name], T=tf.bool))
    return made
