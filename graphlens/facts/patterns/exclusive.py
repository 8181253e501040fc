"""What only feeds given ops."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from graphlens.ir.effects import stays
from graphlens.ir.graph import data_consumers, data_inputs
from graphlens.ir.ops import CONSTANTS
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
