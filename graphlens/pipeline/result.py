"""The analysis as a Python object: the document, and the annotated graphs behind it."""

from __future__ import annotations

import html
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graphlens.errors import UsageError
from graphlens.facts import costs
from graphlens.facts.attribution import timings
from graphlens.facts.core import Facts
from graphlens.facts.graphs import (
    executed_by,
    executed_graph,
    judged_stage,
    layer_of_op,
    optimized_graph,
    origins,
    traced_graph,
)
from graphlens.ir.analysis import SEVERITIES, Document, Finding, Quality, StepTime
from graphlens.ir.graph import Op
from graphlens.ir.run import LedgerRow
from graphlens.ir.table import Table

if TYPE_CHECKING:
    import networkx as nx

GraphStage = Literal["traced", "optimized", "executed"]


@dataclass(frozen=True)
class Analysis:
    """The result of judging one target.

    ``document`` is the whole result as data; everything that a report shows is in it.  ``facts`` holds the graphs and
    is ``None`` for an analysis that was read from its JSON.
    """

    document: Document
    facts: Facts | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules found, by falling saving."""
        return self.document.findings

    @property
    def quality(self) -> Quality:
        """How far the measurement can be trusted."""
        return self.document.quality

    @property
    def step(self) -> StepTime | None:
        """The step's wall time, ``None`` when nothing was executed."""
        return self.document.step

    @property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """Where the step's time went."""
        return self.document.ledger

    @property
    def execution_error(self) -> str | None:
        """Why the model was to be executed and was not; ``None`` when it was, or was not to be."""
        return next((error.message for error in self.document.errors if error.stage == "execute"), None)

    def findings_at_or_above(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings whose severity is at least ``severity`` (``high``, ``medium``, ``low`` or ``info``)."""
        if severity not in SEVERITIES:
            raise UsageError(f"'{severity}' is no severity; there are {', '.join(SEVERITIES)}")
        bound = SEVERITIES.index(severity)
        return tuple(item for item in self.findings if SEVERITIES.index(item.severity) <= bound)

    def to_json(self) -> str:
        """Return the analysis document as JSON."""
        from graphlens.ir.document import to_json

        return to_json(self.document)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a report; the suffix picks the format (``.html``, ``.json``, ``.txt``).

        Raises
        ------
        UsageError
            For a suffix that no report has, or a path that cannot be written.
        """
        from graphlens import report

        report.write(self.document, os.fspath(path))

    def to_networkx(self, stage: GraphStage = "executed") -> nx.MultiDiGraph:
        """Return the annotated DAG of ``stage`` as a plain graph of your own.

        Nodes are flat op names with the attributes ``op``, ``device``, ``self_ns``, ``calls_per_step``, ``timing``,
        ``shapes``, ``dtypes``, ``flops``, ``bytes``, ``origin``, ``layer``, ``source`` and ``findings`` (codes);
        what is not known is ``None``.  In the traced graph ``self_ns`` is given for ops that run on their own;
        ``executed_as`` names the executed op otherwise, whose time is never divided.  Edges carry ``kind``,
        ``src_port`` and ``dst_port``.

        Raises
        ------
        UsageError
            When this analysis has no graph of that stage.
        """
        graph = self._stage(stage)
        annotate = _Annotator(self.facts, stage, graph, self.findings) if self.facts else None
        import networkx as nx

        plain = nx.MultiDiGraph()
        for name, op in graph.items():
            plain.add_node(name, **(annotate.node(name, op) if annotate else {}))
        for src, dst, edge in graph.edges():
            plain.add_edge(src, dst, kind=edge.kind, src_port=edge.src_port, dst_port=edge.dst_port)
        return plain

    def _stage(self, stage: GraphStage) -> Table:
        if self.facts is None:
            raise UsageError("an analysis read from JSON has no graphs; analyze the target or its capture again")
        evidence = self.facts.evidence
        graphs = {"traced": traced_graph, "executed": executed_graph, "optimized": optimized_graph}
        graph = self.facts(graphs[stage])
        if graph is None:
            raise UsageError(f"this analysis has no {stage} graph ({evidence.static_reason or 'it was not recorded'})")
        return graph

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame of its own."""
        from graphlens.report.html import render

        page = html.escape(render(self.document), quote=True)
        # The sandbox keeps the page, whose names come from a model, apart from the notebook and its kernel.
        allowed = "allow-scripts allow-downloads"
        return f'<iframe sandbox="{allowed}" srcdoc="{page}" width="100%" height="800" frameborder="0"></iframe>'


class _Annotator:
    """What the attributes of a node are made of; built once per graph."""

    def __init__(self, facts: Facts, stage: GraphStage, graph: Table, findings: tuple[Finding, ...]) -> None:
        self.facts = facts
        self.judged = stage == facts(judged_stage)
        self.traced = stage == "traced"
        self.graph = graph
        self.codes: Mapping[str, list[str]] = _codes_by_op(findings, stage)

    def node(self, name: str, op: Op) -> dict[str, Any]:
        facts = self.facts
        executed = facts(executed_by).get(name) if self.traced else name
        alone = executed is not None and (not self.traced or len(facts(origins)[executed]) == 1)
        timing = facts(timings).get(executed) if executed and alone and facts(judged_stage) == "executed" else None
        cost = costs.cost_of(self.graph, name)
        return {
            "op": op.type,
            "device": op.device or None,
            "self_ns": timing.self_ns if timing else None,
            "calls_per_step": timing.calls_per_step if timing else None,
            "timing": timing.source if timing else None,
            "shapes": [spec.shape for spec in op.outputs] or None,
            "dtypes": [spec.dtype for spec in op.outputs] or None,
            "flops": cost.flops,
            "bytes": cost.bytes,
            "origin": list(facts(origins).get(name, ())) if self.judged and not self.traced else [name],
            "executed_as": executed if self.traced else None,
            "layer": layer_of_op(facts, name) if self.judged else None,
            "source": op.source,
            "findings": sorted(self.codes.get(name, ())),
        }


def _codes_by_op(findings: tuple[Finding, ...], stage: GraphStage) -> Mapping[str, list[str]]:
    codes: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.stage == stage:
            for name in finding.nodes:
                codes[name].append(finding.code)
    return codes
