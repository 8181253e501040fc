"""Experiments on the target: why its ops are not fused, and what the fixes of its findings give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphlens.children import ask_fusion
from graphlens.command import command_of
from graphlens.config import DEFAULT_PROOF_BUDGET_S, Progress, Request
from graphlens.facts.core import Facts
from graphlens.facts.patterns.experiments import chains_to_probe
from graphlens.ir.analysis import Proof
from graphlens.ir.inputs import InputRow
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, TrialRunner, prove


def with_proofs(request: Request, gathered: Gathered, analysis: Analysis, progress: Progress) -> Analysis:
    """Return ``analysis`` with the proofs of its findings, ranked by what was proven."""
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    outcome = prove(
        analysis.findings,
        TrialRunner(gathered.opened_as, gathered.directory / "trials", rtol=request.judging.rtol),
        Plan(budget_s=request.recording.time_budget_s or DEFAULT_PROOF_BUDGET_S),
        step_ns=analysis.step.median_ns if analysis.step else None,
        command=command_of(request.but(select=())),  # each proof selects the rules that are its own
        asked=request.judging.select,
        progress=progress,
    )
    fed = analysis.document.inputs
    findings = tuple(replace(finding, proof=made_up_told(finding.proof, fed)) for finding in outcome.findings)
    joint = made_up_told(outcome.joint_proof, fed) if outcome.joint_proof is not None else None
    return replace(analysis, document=replace(analysis.document, findings=findings, joint_proof=joint))


def made_up_told(proof: Proof, fed: Sequence[InputRow]) -> Proof:
    """Return a proof that says for which made-up values alone it holds: with others a step is another one."""
    deciding = [row for row in fed if row.decides]
    if proof.speedup is None or not deciding:
        return proof
    values = " and ".join(f"{row.name} = {_value(row)}, made up, which decides {row.decides}" for row in deciding)
    return replace(proof, why=f"{proof.why}; this holds for {values}", made_up=tuple(row.name for row in deciding))


def _value(row: InputRow) -> str:
    """Return the one value that a made-up input holds that decides something, or from where to where they lie."""
    if row.range is None:
        return "nothing"
    low, high = row.range
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def explained(gathered: Gathered, facts: Facts, progress: Progress) -> Facts:
    """Return the facts with the reasons why ops are not fused, found out by running Grappler on what surrounds them.

    Like the proofs these are experiments on the model, in child processes; without them the rules say that the reason
    was not asked for.
    """
    assert gathered.directory is not None
    chains = facts.known(chains_to_probe, ())
    if not chains:
        return facts
    progress(f"asking Grappler about {len(chains)} chains of ops", 0, 0)
    answers = ask_fusion.probe(chains, gathered.directory / "probes")
    return facts.with_(replace(facts.evidence, fusion_answers=answers))
