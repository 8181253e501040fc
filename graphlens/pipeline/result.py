"""The analysis as a Python object: the document, and what it was made of."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from graphlens.errors import UsageError
from graphlens.facts.core import Facts
from graphlens.ir.analysis import SEVERITIES, Document, Finding, Quality
from graphlens.ir.dag import Stage
from graphlens.ir.measured import StepTime
from graphlens.ir.run import LedgerRow

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Analysis:
    """The result of judging one target.

    ``document`` is the whole result as data; everything that a report shows is in it.  ``facts`` holds what it was
    derived from, and is ``None`` for an analysis that was read from its JSON.
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

    def save(self, path: str | os.PathLike[str], stage: Stage | None = None) -> None:
        """Write a report, or a graph; the suffix picks the format.

        A report is ``.html``, ``.json`` or ``.txt``; the annotated DAG of ``to_networkx``, for Gephi, yEd and Graphviz,
        is ``.graphml``, ``.gexf`` or ``.dot``.

        Parameters
        ----------
        stage
            Which graph is written: ``traced``, ``optimized`` or ``executed``; by default the judged one.

        Raises
        ------
        UsageError
            For another suffix, a path that cannot be written, or a stage of which there is no graph.
        """
        from graphlens import report

        report.write(self.document, os.fspath(path), stage)

    def to_networkx(self, stage: Stage | Literal["input"] | None = None, program: str | None = None) -> nx.MultiDiGraph:
        """Return the annotated DAG of ``stage`` as a plain graph of your own; also of an analysis read from its JSON.

        Nodes are flat op names with the attributes ``op``, ``device``, ``self_ns``, ``calls_per_step``, ``timing``,
        ``shapes``, ``dtypes``, ``flops``, ``bytes``, ``origin``, ``layer``, ``source`` and ``findings`` (codes);
        what is not known is ``None``.  In the traced graph ``self_ns`` is given for ops that run on their own;
        ``executed_as`` names the executed op otherwise, whose time is never divided.  Edges carry ``kind``,
        ``src_port`` and ``dst_port``.

        Parameters
        ----------
        stage
            ``traced``, ``optimized`` or ``executed``; by default the judged one: executed where there is one.
            ``input`` is the pipeline that feeds it: its nodes are stages with the fields of ``InputStage`` and
            ``limits``, its edges go the way of the elements.
        program
            The ``id`` of another program than the judged one, whose ops have neither times nor findings; of ``input``
            that of another pipeline.

        Raises
        ------
        UsageError
            When this analysis has no such graph.
        """
        from graphlens.ir.annotated import networkx_of

        return networkx_of(self.document, stage, program)

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame of its own."""
        from graphlens.report.html import render

        page = html.escape(render(self.document), quote=True)
        # The sandbox keeps the page, whose names come from a model, apart from the notebook and its kernel.
        allowed = "allow-scripts allow-downloads"
        return f'<iframe sandbox="{allowed}" srcdoc="{page}" width="100%" height="800" frameborder="0"></iframe>'
