"""Find the edges that make a graph cyclic, so that every function is a DAG."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens.ir.nodes import Edge
from graphlens.ir.table import TableBuilder, topological_positions


def break_cycles(graph: TableBuilder) -> list[tuple[str, str, Edge]]:
    """Remove the edges that close a cycle, in a depth-first walk from the first op on, and return them."""
    following = graph.following()
    if len(topological_positions(following)) == len(graph):
        return []
    removed = graph.remove_edges(_closing_pairs(following))
    return [(graph.op_at(src).name, graph.op_at(dst).name, edge) for src, dst, edge in removed]


def _closing_pairs(following: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Pairs ``(src, dst)`` where ``dst`` is an ancestor of ``src`` on the walk; without recursion, graphs are deep."""
    done: set[int] = set()
    on_path: set[int] = set()
    closing = []
    for start in range(len(following)):
        if start in done:
            continue
        on_path.add(start)
        stack = [(start, iter(following[start]))]
        while stack:
            node, successors = stack[-1]
            reader = next(successors, None)
            if reader is None:
                stack.pop()
                on_path.discard(node)
                done.add(node)
            elif reader in on_path:
                closing.append((node, reader))
            elif reader not in done:
                on_path.add(reader)
                stack.append((reader, iter(following[reader])))
    return closing
