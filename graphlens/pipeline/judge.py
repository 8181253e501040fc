"""From evidence to an analysis: facts, rules, document.  Needs neither TensorFlow nor the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphlens import rules
from graphlens._version import __version__
from graphlens.facts.core import Facts
from graphlens.facts.device_facts import device_rows, distribution
from graphlens.facts.graphs import executed_graph, traced_graph
from graphlens.facts.impossible import why_impossible
from graphlens.facts.inlining import inline
from graphlens.facts.ledger import ledger, step_time
from graphlens.facts.memory import peak_memory
from graphlens.facts.paths import critical_path
from graphlens.facts.program_rows import program_rows
from graphlens.facts.quality import quality
from graphlens.facts.roofline import roofline
from graphlens.facts.rows import op_rows
from graphlens.facts.transfers import copies
from graphlens.ir.analysis import CONTRADICTION, AnalysisError, Document, GraphSize
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.table import Table
from graphlens.pipeline.result import Analysis


def judge(evidence: Evidence, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> Analysis:
    """Judge ``evidence`` by the selected rules.

    Raises
    ------
    UsageError
        When a selector names no rule.
    """
    chosen = rules.select(rules.all_rules(), select, ignore)
    facts = trusted(evidence)
    findings, statuses = rules.judge(facts, chosen)
    sizes = _sizes(facts)
    document = Document(
        target=evidence.target,
        environment=dict(evidence.environment),
        quality=facts(quality),
        graphs=sizes,
        graphlens_version=__version__,
        step=facts(step_time),
        ledger=facts(ledger),
        ops=facts(op_rows),
        critical_path=facts(critical_path),
        copies=facts(copies),
        findings=tuple(findings),
        rules=tuple(statuses),
        errors=facts.evidence.errors,
        devices=facts(device_rows),
        distribution=facts(distribution),
        placement=evidence.placement,
        roofline=facts(roofline),
        memory=facts(peak_memory),
        programs=program_rows(facts, sizes, _sizes_of_others(evidence)),
    )
    return Analysis(document, facts)


def trusted(evidence: Evidence) -> Facts:
    """Return the facts of ``evidence``; of a measurement that cannot be, only what does not rest on it."""
    facts = Facts(evidence)
    why = facts(why_impossible)
    if why is None:
        return facts
    error = AnalysisError(CONTRADICTION, why)
    graphs_alone = replace(
        evidence, profile=None, unprofiled_ns=(), replay={}, static_reason=why, errors=(*evidence.errors, error)
    )
    return Facts(graphs_alone)


def _sizes_of_others(evidence: Evidence) -> dict[str, dict[str, GraphSize]]:
    """Return the sizes of the graphs of every other program than the judged one, by its id."""
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
        for program in evidence.programs
        if program.id != evidence.judged
    }


def _sizes(facts: Facts) -> dict[str, GraphSize]:
    """Count each stage; what XLA ran counts as executed although it is in no TensorFlow graph."""
    evidence = facts.evidence
    optimized = inline(evidence.optimized) if evidence.optimized else None
    stages: list[tuple[str, Table | None, Sequence[Graph]]] = [
        ("traced", facts(traced_graph), [evidence.traced] if evidence.traced else []),
        ("optimized", optimized, [evidence.optimized] if evidence.optimized else []),
        (
            "executed",
            facts(executed_graph),
            [*([evidence.executed] if evidence.executed else []), *evidence.hlo.values()],
        ),
    ]
    return {stage: _size(flat, parts) for stage, flat, parts in stages if flat is not None}


def _size(flat: Table, parts: Sequence[Graph]) -> GraphSize:
    functions = sum(len(graph.functions) - 1 for graph in parts)
    return GraphSize(len(flat), flat.number_of_edges, functions)
