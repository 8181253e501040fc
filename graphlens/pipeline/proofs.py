"""Experiments on the target: why its ops are not fused, and what the fixes of its findings give."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from graphlens.children import ask_fusion
from graphlens.command import command_of
from graphlens.config import DEFAULT_PROOF_BUDGET_S, Progress, Request
from graphlens.facts.core import Facts
from graphlens.facts.experiments import chains_to_probe
from graphlens.ir.analysis import Proof
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, TrialRunner, prove

NOT_ASKED: Final = "--no-prove was given"
NO_MODEL: Final = "a capture holds no weights; analyze the model itself to have its fixes proven"
OTHER_RUN: Final = "the profile is of another run; analyze the model without it to have its fixes proven"
NOT_EXECUTED: Final = "the model was not executed"
OTHER_PROGRAM: Final = "fixes are applied to the target itself, and another program was judged"


def with_proofs(request: Request, gathered: Gathered, analysis: Analysis, progress: Progress) -> Analysis:
    """Return ``analysis`` with the proofs of its findings, ranked by what was proven."""
    reason = _reason_not_to(request, gathered)
    if reason is not None:
        return _without(analysis, reason)
    if not any(finding.fix.edits for finding in analysis.findings):
        return analysis
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    outcome = prove(
        analysis.findings,
        TrialRunner(gathered.opened_as, gathered.directory / "trials"),
        Plan(budget_s=request.recording.time_budget_s or DEFAULT_PROOF_BUDGET_S),
        step_ns=analysis.step.median_ns if analysis.step else None,
        command=command_of(request.but(select=())),  # each proof selects the rules that are its own
        asked=request.judging.select,
        progress=progress,
    )
    document = replace(analysis.document, findings=outcome.findings, joint_proof=outcome.joint_proof)
    return replace(analysis, document=document)


def explained(request: Request, gathered: Gathered, progress: Progress) -> Facts:
    """Return the facts of what was gathered with the reasons why ops are not fused, by running Grappler on them.

    Like the proofs these are experiments on the model, in child processes; without them the rules say that the reason
    was not asked for.
    """
    facts = Facts(gathered.evidence)
    if _reason_not_to(request, gathered) is not None:
        return facts
    assert gathered.directory is not None
    chains = facts.known(chains_to_probe, ())
    if not chains:
        return facts
    progress(f"asking Grappler about {len(chains)} chains of ops", 0, 0)
    answers = ask_fusion.probe(chains, gathered.directory / "probes")
    return facts.with_(replace(facts.evidence, fusion_answers=answers))


def _reason_not_to(request: Request, gathered: Gathered) -> str | None:
    if not request.judging.prove:
        return NOT_ASKED
    if gathered.evidence.profile_path is not None:
        return OTHER_RUN
    if gathered.evidence.profile is None:
        return NOT_EXECUTED
    if not gathered.evidence.is_about_main:
        return OTHER_PROGRAM
    return NO_MODEL if gathered.opened_as is None else None


def _without(analysis: Analysis, why: str) -> Analysis:
    findings = tuple(replace(finding, proof=Proof("not-run", why)) for finding in analysis.findings)
    return replace(analysis, document=replace(analysis.document, findings=findings))
