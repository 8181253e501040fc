"""From evidence to an analysis: facts, rules, document.  Needs neither TensorFlow nor the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphlens import rules
from graphlens._version import __version__
from graphlens.facts.copies.device_facts import device_rows, distribution
from graphlens.facts.copies.transfers import copies
from graphlens.facts.core import Facts
from graphlens.facts.input.pipelines import input_pipelines
from graphlens.facts.replicas.replicas import replicas
from graphlens.facts.rows.dags import dags
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.rows.program_rows import program_rows
from graphlens.facts.rows.sizes import graph_sizes
from graphlens.facts.rows.timeline import timeline
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.paths import critical_path
from graphlens.facts.time.period import period
from graphlens.facts.time.quality import quality
from graphlens.facts.training.shares import training
from graphlens.facts.work.impossible import why_impossible
from graphlens.facts.work.memory import peak_memory
from graphlens.facts.work.roofline import roofline
from graphlens.ir.analysis import CONTRADICTION, JUDGE, UNKNOWN_QUALITY, Document
from graphlens.ir.dag import Deferred
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.ir.op_rows import OpRows
from graphlens.pipeline.result import Analysis


def judge(evidence: Evidence, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> Analysis:
    """Judge ``evidence`` by the selected rules.

    Raises
    ------
    UsageError
        When a selector names no rule.
    """
    return judge_facts(Facts(evidence), select, ignore)


def judge_facts(asked: Facts, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> Analysis:
    """Judge the evidence that ``asked`` is about, with what was derived from it already; see ``judge``.

    A fact that fails is an error in the document, and what it would tell is not in it.
    """
    chosen = rules.select(rules.all_rules(), select, ignore)
    facts = trusted(asked)
    findings, statuses = rules.judge(facts, chosen)
    evidence, known = facts.evidence, facts.known
    document = Document(
        target=evidence.target,
        environment=dict(evidence.environment),
        quality=known(quality, UNKNOWN_QUALITY),
        graphs=known(graph_sizes, {}),
        graphlens_version=__version__,
        step=known(step_time, None),
        ledger=known(ledger, ()),
        ops=known(op_rows, OpRows.of(())),
        critical_path=known(critical_path, None),
        copies=known(copies, ()),
        findings=tuple(findings),
        rules=tuple(statuses),
        devices=known(device_rows, ()),
        distribution=known(distribution, None),
        placement=evidence.placement,
        roofline=known(roofline, None),
        memory=known(peak_memory, None),
        programs=known(program_rows, ()),
        inputs=evidence.fed,
        training=known(training, None),
        dags=Deferred(lambda: facts(dags)),
        period=known(period, None),
        timeline=known(timeline, None),
        replicas=known(replicas, None),
        input=known(input_pipelines, ()),
    )
    failed = (AnalysisError(JUDGE, str(error)) for error in facts.errors)
    return Analysis(replace(document, errors=(*evidence.errors, *failed)), facts)


def trusted(facts: Facts) -> Facts:
    """Return the facts; of a measurement that cannot be, only what does not rest on it."""
    why = facts.known(why_impossible, None)
    if why is None:
        return facts
    errors = (*facts.evidence.errors, AnalysisError(CONTRADICTION, why))
    return facts.with_(
        replace(facts.evidence, profile=None, unprofiled_ns=(), replay={}, static_reason=why, errors=errors)
    )
