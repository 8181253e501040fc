"""From evidence to an analysis: facts, rules, document.  Needs neither TensorFlow nor the model."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens import rules
from graphlens._version import __version__
from graphlens.facts.core import Facts
from graphlens.facts.flat import inline
from graphlens.ir.analysis import AnalysisError, Document, GraphSize
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
    )
    return Analysis(document, facts)


def with_error(evidence: Evidence, stage: str, message: str) -> Evidence:
    """Return ``evidence`` with one more thing that could not be done."""
    from dataclasses import replace

    return replace(evidence, errors=(*evidence.errors, AnalysisError(stage, message)))


def _sizes(facts: Facts) -> dict[str, GraphSize]:
    evidence = facts.evidence
    stages: list[tuple[str, Graph | None]] = [
        ("traced", evidence.traced),
        ("optimized", evidence.optimized),
        ("executed", evidence.executed),
    ]
    flat = {"traced": facts.traced, "executed": facts.executed}
    return {stage: _size(graph, flat.get(stage) or inline(graph)) for stage, graph in stages if graph is not None}


def _size(graph: Graph, inlined: object) -> GraphSize:
    return GraphSize(inlined.number_of_nodes(), inlined.number_of_edges(), len(graph.functions) - 1)  # type: ignore[attr-defined]  # networkx has no types
