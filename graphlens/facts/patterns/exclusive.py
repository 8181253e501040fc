"""What only feeds given ops, and what is computed from values that never change."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from graphlens.facts.core import Facts
from graphlens.facts.graphs import frozen_ops, judged_graph, op_order
from graphlens.ir.effects import stays
from graphlens.ir.graph import data_consumers, data_inputs
from graphlens.ir.ops import CONSTANTS, FED, REFERENCE_VARIABLES, VARIABLE_READS
from graphlens.ir.table import Table


def exclusive_inputs(graph: Table, nodes: Iterable[str], among: Collection[str] | None = None) -> list[str]:
    """Return the ops that compute something only for ``nodes``, nearest first: neither ``nodes`` nor constants.

    Parameters
    ----------
    among
        Where given, only these ops are considered.
    """
    gone = dict.fromkeys(nodes)
    pending = deque(gone)
    result: list[str] = []
    while pending:
        for src in data_inputs(graph, pending.popleft()):
            op_type = graph.op(src).type
            if src in gone or (among is not None and src not in among) or op_type in CONSTANTS or stays(op_type):
                continue
            if all(dst in gone for dst in data_consumers(graph, src)):
                gone[src] = None
                result.append(src)
                pending.append(src)
    return result


def computed_frozen_groups(facts: Facts, leave_out: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Yield the maximal connected groups of ops that compute something from frozen values only.

    Constants, captured tensors and variable reads themselves are not part of a group; nor are the ops of ``leave_out``.
    """
    graph = facts(judged_graph)
    computed = {
        name
        for name in facts(frozen_ops)
        if name not in leave_out and graph.op(name).type not in CONSTANTS | VARIABLE_READS | FED
    }
    yield from _connected(graph, [name for name in facts(op_order) if name in computed])


def depends_on_variables(facts: Facts, names: Iterable[str]) -> bool:
    """Tell whether the values of ops are made from a variable; only frozen ones are followed."""
    graph, frozen = facts(judged_graph), facts(frozen_ops)
    pending = list(names)
    seen = set(pending)
    while pending:
        name = pending.pop()
        if graph.op(name).type in VARIABLE_READS | REFERENCE_VARIABLES:
            return True
        fresh = [src for src in data_inputs(graph, name) if src in frozen and src not in seen]
        seen.update(fresh)
        pending += fresh
    return False


def _connected(graph: Table, names: list[str]) -> list[tuple[str, ...]]:
    """Return the groups of ``names`` that are joined by tensors, each as ordered, by their first in the file."""
    group_of: dict[str, list[str]] = {}
    for name in names:
        groups = [[name], *(group_of[src] for src in data_inputs(graph, name) if src in group_of)]
        largest = max(groups, key=len)
        for group in {id(group): group for group in groups if group is not largest}.values():
            largest.extend(group)
            group_of.update(dict.fromkeys(group, largest))
        group_of[name] = largest
    rank = {name: index for index, name in enumerate(names)}
    found = {id(group): group for group in group_of.values()}.values()
    by_file = sorted(found, key=lambda group: min(map(graph.position, group)))
    return [tuple(sorted(group, key=rank.__getitem__)) for group in by_file]
