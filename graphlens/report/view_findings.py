"""Findings in words: saving, fix, evidence, and links to overlapping findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphlens.ir.analysis import Document, Figure, Finding, Saving
from graphlens.ir.edits import is_of_input
from graphlens.ir.op_rows import OpRows
from graphlens.ir.settings import graph_edits, lines_of
from graphlens.report.evidence import Cell, cells_of
from graphlens.report.view_proofs import ProofView, proof_view
from graphlens.report.words import (
    NOT_SEEN,
    SAFETY,
    SAVING_EXPLAINED,
    SAVING_ORIGINS,
)
from graphlens.units import UNKNOWN, counted, format_ns, format_share

# A finding may be about thousands of ops; a reader needs the first ones, the JSON has all.
OPS_LIMIT = 60


@dataclass(frozen=True, slots=True)
class SavingView:
    """What a fix would save; ``width`` is its bar in per mille of the step."""

    known: bool
    time: str
    share: str
    origin: str
    explained: str
    width: float


@dataclass(frozen=True, slots=True)
class OpRef:
    """An op that a finding is about; ``anchor`` is its row in the op table, if it has one."""

    name: str
    op: str
    time: str
    anchor: str | None


@dataclass(frozen=True, slots=True)
class Overlap:
    """Another finding about some of the same ops; no ``anchor`` where the reference cannot be resolved."""

    label: str
    anchor: str | None


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding as it is shown; ``anchor`` is its deep link without the ``#``.

    ``provable`` says whether a program could apply the fix, so that a proof is worth a word also where none was run.
    """

    anchor: str
    severity: str
    code: str
    rule: str
    title: str
    stage: str
    saving: SavingView
    reason: str
    evidence: tuple[tuple[str, Cell], ...]
    fix: str
    safety: str
    safety_words: str
    snippet: str | None
    proof: ProofView
    ops: tuple[OpRef, ...]
    ops_total: int
    ops_note: str
    overlaps: tuple[Overlap, ...]
    figure: Figure | None
    figure_after: Figure | None
    figure_notes: tuple[str, ...]
    fingerprint: str
    provable: bool
    general: bool


def finding_views(document: Document) -> tuple[FindingView, ...]:
    """Return the findings in the document's order."""
    anchors = _anchors(document.findings)
    ops = OpRows.of(document.ops)
    return tuple(
        _finding(finding, anchor, anchors, document.findings, ops)
        for finding, anchor in zip(document.findings, anchors, strict=True)
    )


def _anchors(findings: Sequence[Finding]) -> list[str]:
    """Return ``finding-GL203-1``, ``finding-GL203-2``, …: the number counts the findings of one rule."""
    seen: Counter[str] = Counter()
    anchors = []
    for finding in findings:
        seen[finding.code] += 1
        code = re.sub(r"[^A-Za-z0-9]+", "-", finding.code).strip("-") or "rule"
        anchors.append(f"finding-{code}-{seen[finding.code]}")
    return anchors


def _finding(
    finding: Finding,
    anchor: str,
    anchors: Sequence[str],
    findings: Sequence[Finding],
    ops: OpRows,
) -> FindingView:
    hidden = len(finding.nodes) - OPS_LIMIT
    return FindingView(
        anchor=anchor,
        severity=finding.severity,
        code=finding.code,
        rule=finding.rule,
        title=finding.title,
        stage=finding.stage,
        saving=_saving(finding.saving),
        reason=finding.reason,
        evidence=cells_of(finding.evidence),
        fix=finding.fix.summary,
        safety=finding.fix.safety,
        safety_words=SAFETY[finding.fix.safety],
        snippet=finding.fix.snippet,
        proof=_proof(finding),
        ops=tuple(_op(name, ops) for name in finding.nodes[:OPS_LIMIT]),
        ops_total=len(finding.nodes),
        ops_note=f"and {counted(hidden, 'more op')}, listed in the JSON report" if hidden > 0 else "",
        overlaps=tuple(_overlap(reference, anchors, findings) for reference in finding.shares_ops_with),
        figure=finding.figure,
        figure_after=finding.figure_after,
        figure_notes=_figure_notes(finding.figure),
        fingerprint=finding.fingerprint,
        provable=bool(finding.fix.edits),
        general=finding.general,
    )


def _proof(finding: Finding) -> ProofView:
    """Return the proof in words; no model can hold a setting, so it is set where the model is run."""
    shown = proof_view(finding.proof)
    if any(map(is_of_input, finding.fix.edits)):
        shown = replace(shown, apply=None)  # the line of the program is the user's to change
    if shown.apply is None or graph_edits(finding.fix.edits):
        return shown
    return replace(shown, apply="; ".join(lines_of(finding.fix.edits)) or shown.apply)


def _saving(saving: Saving) -> SavingView:
    known = saving.ns is not None or saving.share is not None
    share = saving.share or 0.0
    nothing = saving.ns == 0
    amount = format_ns(saving.ns) if saving.ns is not None or not known else format_share(saving.share)
    return SavingView(
        known=known,
        time="nothing" if nothing else amount,
        share=f"{format_share(saving.share)} of the step" if saving.share is not None and not nothing else "",
        origin=SAVING_ORIGINS[saving.origin],
        explained=SAVING_EXPLAINED[saving.origin],
        width=round(1000 * min(max(share, 0.0), 1.0), 1),
    )


def _op(name: str, ops: OpRows) -> OpRef:
    row = ops.find(name)
    if row is None:
        return OpRef(name, "", UNKNOWN, None)
    time = NOT_SEEN if row.self_ns is None else format_ns(row.self_ns)
    return OpRef(name, row.executed_as or row.op, time, f"op-{ops.positions[name] + 1}")


def _figure_notes(figure: Figure | None) -> tuple[str, ...]:
    if figure is None:
        return ()
    unseen = all(node.self_ns is None for node in figure.nodes)
    return (
        *(("No time was measured for any of these ops.",) if unseen else ()),
        *((f"{counted(figure.omitted, 'more op')} of this finding not drawn.",) if figure.omitted else ()),
    )


def _overlap(reference: str, anchors: Sequence[str], findings: Sequence[Finding]) -> Overlap:
    """Resolve ``CODE#rank`` (the document's first finding has rank 1), or a title that only one finding has."""
    meant = [
        index for index, finding in enumerate(findings) if reference in (f"{finding.code}#{index + 1}", finding.title)
    ]
    if len(meant) != 1:
        return Overlap(reference, None)
    return Overlap(f"{findings[meant[0]].code} {findings[meant[0]].title}", anchors[meant[0]])
