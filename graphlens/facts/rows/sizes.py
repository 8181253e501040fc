"""How large the graphs are: ops and edges with functions inlined, and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.inlining import inline
from graphlens.facts.graphs import executed_graph, optimized_graph, traced_graph
from graphlens.ir.dag import Stage
from graphlens.ir.graph import Graph
from graphlens.ir.measured import GraphSize
from graphlens.ir.program import Program
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
def graphs_of_others(facts: Facts) -> Mapping[str, Mapping[Stage, Table]]:
    """Id of a program that is not the judged one -> its graphs by stage."""
    others = [program for program in facts.evidence.programs if program.id != facts.evidence.judged]
    return {program.id: {stage: inline(graph) for stage, graph in _stages(program).items()} for program in others}


@fact
def sizes_of_others(facts: Facts) -> Mapping[str, Mapping[str, GraphSize]]:
    """Id of a program that is not the judged one -> the sizes of its graphs by stage."""
    parts = {program.id: _stages(program) for program in facts.evidence.programs}
    return {
        identity: {stage: _size(flat, [parts[identity][stage]]) for stage, flat in stages.items()}
        for identity, stages in facts(graphs_of_others).items()
    }


def _stages(program: Program) -> Mapping[Stage, Graph]:
    stages: list[tuple[Stage, Graph | None]] = [
        ("traced", program.traced),
        ("optimized", program.optimized),
        ("executed", program.executed),
    ]
    return {stage: graph for stage, graph in stages if graph is not None}


def _size(flat: Table, parts: Sequence[Graph]) -> GraphSize:
    functions = sum(len(graph.functions) - 1 for graph in parts)
    return GraphSize(len(flat), flat.number_of_edges, functions)
