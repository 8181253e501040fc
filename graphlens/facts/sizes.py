"""How large the graphs are: ops and edges with functions inlined, and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_graph, optimized_graph, traced_graph
from graphlens.facts.inlining import inline
from graphlens.ir.analysis import GraphSize
from graphlens.ir.graph import Graph
from graphlens.ir.table import Table


@fact
def graph_sizes(facts: Facts) -> Mapping[str, GraphSize]:
    """Stage -> its size; what XLA ran counts as executed although it is in no TensorFlow graph."""
    evidence = facts.evidence
    stages: list[tuple[str, Table | None, Sequence[Graph | None]]] = [
        ("traced", facts.known(traced_graph, None), [evidence.traced]),
        ("optimized", facts.known(optimized_graph, None), [evidence.optimized]),
        ("executed", facts.known(executed_graph, None), [evidence.executed, *evidence.hlo.values()]),
    ]
    return {stage: _size(flat, [part for part in parts if part]) for stage, flat, parts in stages if flat is not None}


@fact
def sizes_of_others(facts: Facts) -> Mapping[str, Mapping[str, GraphSize]]:
    """Id of a program that is not the judged one -> the sizes of its graphs by stage."""
    return {
        program.id: {
            stage: _size(inline(graph), [graph])
            for stage, graph in (
                ("traced", program.traced),
                ("optimized", program.optimized),
                ("executed", program.executed),
            )
            if graph is not None
        }
        for program in facts.evidence.programs
        if program.id != facts.evidence.judged
    }


def _size(flat: Table, parts: Sequence[Graph]) -> GraphSize:
    functions = sum(len(graph.functions) - 1 for graph in parts)
    return GraphSize(len(flat), flat.number_of_edges, functions)
