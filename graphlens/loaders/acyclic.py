"""Find the edges that make a graph cyclic, so that every function is a DAG."""

from __future__ import annotations

import networkx as nx

from graphlens.ir.graph import Edge, topological_order

# The back edge of a TF1 loop: the only legal cycle of a TensorFlow graph.
NEXT_ITERATION = frozenset({"NextIteration", "RefNextIteration"})
MERGE = frozenset({"Merge", "RefMerge"})


def break_cycles(graph: nx.MultiDiGraph) -> list[tuple[str, str, Edge]]:
    """Remove the edges that close a cycle, in a depth-first walk from the first op on, and return them."""
    if len(topological_order(graph)) == len(graph):
        return []
    closing = [(src, dst, key) for src, dst in _closing_pairs(graph) for key in graph[src][dst]]
    removed = [(src, dst, graph.edges[src, dst, key]["edge"]) for src, dst, key in closing]
    graph.remove_edges_from(closing)
    return removed


def _closing_pairs(graph: nx.MultiDiGraph) -> list[tuple[str, str]]:
    """Pairs ``(src, dst)`` where ``dst`` is an ancestor of ``src`` on the walk; without recursion, graphs are deep."""
    done: set[str] = set()
    on_path: set[str] = set()
    closing = []
    for start in graph:
        if start in done:
            continue
        on_path.add(start)
        stack = [(start, iter(list(graph.adj[start])))]
        while stack:
            node, successors = stack[-1]
            following = next(successors, None)
            if following is None:
                stack.pop()
                on_path.discard(node)
                done.add(node)
            elif following in on_path:
                closing.append((node, following))
            elif following not in done:
                on_path.add(following)
                stack.append((following, iter(list(graph.adj[following]))))
    return closing
