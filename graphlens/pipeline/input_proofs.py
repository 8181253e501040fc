"""Experiments on the input pipeline itself: what changes of it give, in elements a second of a copy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from graphlens.command import command_of
from graphlens.config import Progress, Request
from graphlens.facts.patterns.input_rewrites import Rewrite, rewrites_of
from graphlens.ir.analysis import Finding, Fix, InputRewrite, Proof, Saving
from graphlens.ir.edits import is_of_input
from graphlens.ir.pipelines import WrittenPipeline
from graphlens.ir.ranking import ranked
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, prove
from graphlens.prove.dataset_runner import BLOCK_MS, DatasetRunner

BUDGET_S: Final = 150.0  # each change is a process of its own, from the import of TensorFlow on
LEAST_PAIRS: Final = 10
OF_A_GRAPH: Final = "a dataset has no graph of ops that could be rewritten"
TOGETHER: Final = "all that is proven, together"
_TRIED: Final = "input-rewrite"  # the rule of what no rule found


def with_proofs(request: Request, gathered: Gathered, analysis: Analysis, progress: Progress) -> Analysis:
    """Return the analysis of a dataset with what changes of it give, those that its findings advise among them."""
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    (pipeline,) = gathered.evidence.pipelines
    own = [one for one in analysis.findings if one.fix.edits and all(map(is_of_input, one.fix.edits))]
    others = [replace(one, proof=Proof("not-run", OF_A_GRAPH)) for one in analysis.findings if one not in own]
    made_up = [_as_finding(one) for one in _not_found(pipeline, own)]
    folder = gathered.directory / "trials"
    folder.mkdir(exist_ok=True)
    outcome = prove(
        [*own, *made_up],
        DatasetRunner(gathered.opened_as, folder, [stage.name for stage in pipeline.stages], request.judging.rtol),
        Plan(budget_s=request.recording.time_budget_s or BUDGET_S, block_ms=BLOCK_MS, min_pairs=LEAST_PAIRS),
        step_ns=analysis.step.median_ns if analysis.step else None,
        command=command_of(request.but(select=())),
        asked=request.judging.select,
        progress=progress,
    )
    findings = ranked([*(one for one in outcome.findings if one.rule != _TRIED), *others])
    told = [_told(pipeline, one) for one in outcome.findings]
    together = _together(pipeline, told, outcome.joint_proof)
    return replace(
        analysis,
        document=replace(analysis.document, findings=tuple(findings), input_rewrites=(*told, *together)),
    )


def _together(pipeline: WrittenPipeline, told: Sequence[InputRewrite], proof: Proof | None) -> Iterator[InputRewrite]:
    """Yield what all proven changes give at once, where there are several."""
    if proof is not None and proof.speedup is not None and len(proof.parts) > 1:
        proven = [one for one in told if one.proof.verdict == "proven"]
        edits = tuple(edit for one in proven for edit in one.edits)
        rates = _per_s(proof.before_ns), _per_s(proof.after_ns)
        yield InputRewrite(pipeline.id, TOGETHER, edits, "", *rates, replace(proof, command=None))


def _not_found(pipeline: WrittenPipeline, findings: Sequence[Finding]) -> Iterable[Rewrite]:
    """Return the changes that no finding advises."""
    advised = [finding.fix.edits for finding in findings]
    return (one for one in rewrites_of(pipeline, os.cpu_count() or 1) if one.edits not in advised)


def _as_finding(rewrite: Rewrite) -> Finding:
    """Return a change as what the prover takes; nobody expects anything of it."""
    fix = Fix(rewrite.change, "tolerance", rewrite.edits, rewrite.source)
    return Finding("", _TRIED, rewrite.change, (), {}, "", Saving(), fix, severity="low")


def _told(pipeline: WrittenPipeline, finding: Finding) -> InputRewrite:
    proof = replace(finding.proof, command=None) if finding.rule == _TRIED else finding.proof
    known = next((one for one in rewrites_of(pipeline, os.cpu_count() or 1) if one.edits == finding.fix.edits), None)
    change = finding.fix.summary if finding.rule == _TRIED or known is None else known.change
    source = (finding.fix.snippet or "") if finding.rule == _TRIED else known.source if known else ""
    return InputRewrite(
        pipeline.id, change, finding.fix.edits, source, _per_s(proof.before_ns), _per_s(proof.after_ns), proof
    )


def _per_s(element_ns: int | None) -> float | None:
    return 1e9 / element_ns if element_ns else None
