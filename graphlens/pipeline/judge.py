"""From evidence to an analysis: facts, rules, document.  Needs neither TensorFlow nor the model."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from graphlens import rules
from graphlens._version import __version__
from graphlens.facts.core import Facts
from graphlens.facts.flat import inline
from graphlens.ir.analysis import Document, GraphSize
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.pipeline.result import Analysis


def judge(evidence: Evidence, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> Analysis:
    """Judge ``evidence`` by the selected rules.

    Raises
    ------
    UsageError
        When a selector names no rule.
    """
    chosen = rules.select(rules.all_rules(), select, ignore)
    facts = Facts(evidence)
    findings, statuses = rules.judge(facts, chosen)
    document = Document(
        target=evidence.target,
        environment=dict(evidence.environment),
        quality=facts.quality,
        graphs=_sizes(facts),
        graphlens_version=__version__,
        step=facts.step,
        ledger=facts.ledger,
        ops=facts.op_rows,
        critical_path=facts.critical_path,
        copies=facts.copies,
        findings=tuple(findings),
        rules=tuple(statuses),
        errors=evidence.errors,
        devices=facts.devices,
        distribution=facts.distribution,
        placement=evidence.placement,
        roofline=facts.roofline,
        memory=facts.memory,
    )
    return Analysis(document, facts)


def _sizes(facts: Facts) -> dict[str, GraphSize]:
    """Count each stage; what XLA ran counts as executed although it is in no TensorFlow graph."""
    evidence = facts.evidence
    optimized = inline(evidence.optimized) if evidence.optimized else None
    stages: list[tuple[str, nx.MultiDiGraph | None, Sequence[Graph]]] = [
        ("traced", facts.traced, [evidence.traced] if evidence.traced else []),
        ("optimized", optimized, [evidence.optimized] if evidence.optimized else []),
        ("executed", facts.executed, [*([evidence.executed] if evidence.executed else []), *evidence.hlo.values()]),
    ]
    return {stage: _size(flat, parts) for stage, flat, parts in stages if flat is not None}


def _size(flat: nx.MultiDiGraph, parts: Sequence[Graph]) -> GraphSize:
    functions = sum(len(graph.functions) - 1 for graph in parts)
    return GraphSize(flat.number_of_nodes(), flat.number_of_edges(), functions)
