"""Experiments on the input of a script: what an input that took no time would give, and what changes of it do give."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from graphlens.children.gate_messages import Watched
from graphlens.command import script_command_of
from graphlens.config import Progress, Request
from graphlens.facts.patterns.input_rewrites import Rewrite, rewrites_of
from graphlens.facts.time.around import INPUT as WAITING
from graphlens.ir.analysis import Document, Finding, Fix, InputRewrite, Proof, Saving
from graphlens.ir.edits import Edit, ScriptSetting, is_of_input
from graphlens.ir.evidence import Evidence
from graphlens.ir.pipelines import WrittenPipeline
from graphlens.ir.run import LedgerRow
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, prove
from graphlens.prove.alone import PipelineAlone
from graphlens.prove.script_runner import INPUT_BLOCK_MS, KERAS, ScriptRun, ScriptRunner
from graphlens.units import format_ns

BUDGET_S: Final = 180.0  # in addition: each change is a run of the script, from the import of TensorFlow on
ALONE: Final = 1 / 3  # of that, for pipelines alone
LEAST_PAIRS: Final = 8
HALF_WIDTH: Final = 0.1
WAITS: Final = 0.1  # of the step for its input; where it is less there is little that a faster one could give
INPUT: Final = "input"  # as the ledger of a step has it
SHOWN: Final = "measured faster"  # how a proof begins that time alone would prove
_BOUND_RULE, _REWRITE_RULE = "input-bound-measured", "input-rewrite"
_FREE: Final = "if its input took no time (batches from memory, a bound)"


def is_tried(analysis: Analysis) -> bool:
    """Whether the step waits for its input long enough for an experiment."""
    period = analysis.document.period
    return _waits(analysis.ledger, INPUT) or (period is not None and _waits(period.rows, WAITING))


def _waits(rows: Sequence[LedgerRow], category: str) -> bool:
    total_ns = sum(row.ns for row in rows)
    return total_ns > 0 and sum(row.ns for row in rows if row.category == category) >= WAITS * total_ns


def with_proofs(
    request: Request, gathered: Gathered, analysis: Analysis, run: ScriptRun, progress: Progress
) -> Analysis:
    """Return the analysis of a script with what its input costs it, and what changes of its pipelines give its step."""
    if not is_tried(analysis):
        return analysis
    own = [one for one in analysis.findings if one.fix.edits and all(map(is_of_input, one.fix.edits))]
    others = [one for one in analysis.findings if one not in own]
    pipelines = _that_ran(gathered.evidence)
    made_up = (
        []
        if request.judging.select
        else [_bound(run.watched, analysis.document), *map(_as_finding, _not_found(pipelines, own))]
    )
    assert gathered.directory is not None
    folder = gathered.directory / "inputs"
    folder.mkdir(exist_ok=True)
    budget_s = request.recording.time_budget_s or BUDGET_S
    runner = ScriptRunner(run, folder, request.judging.rtol, of_input=True)
    changes = [one.fix.edits for one in (*own, *made_up) if one.rule != _BOUND_RULE]
    alone = PipelineAlone(runner, next(iter(changes), ()), ALONE * budget_s, progress)
    command, script = script_command_of(request.but(select=(), tries=()), run.words, reruns=run.does_again)
    outcome = prove(
        [*own, *made_up],
        alone,
        Plan(
            budget_s=(1 - ALONE) * budget_s,
            block_ms=INPUT_BLOCK_MS,
            min_pairs=LEAST_PAIRS,
            half_width=HALF_WIDTH,
        ),
        step_ns=analysis.step.median_ns if analysis.step else None,
        command=command,
        script=script,
        asked=request.judging.select,
        progress=progress,
        clock=alone.time_without,
    )
    found = [one for one in outcome.findings if one.rule not in {_BOUND_RULE, _REWRITE_RULE}]
    steps = steps_of_a_call(analysis.document) if runner.times_calls else 1.0
    told = tuple(_told(one, pipelines, steps, alone.proofs) for one in outcome.findings)
    return replace(analysis, document=replace(analysis.document, findings=(*found, *others), input_rewrites=told))


def steps_of_a_call(document: Document) -> float:
    """Return how many steps a call of the judged program makes, the first one: several where it is a loop over them."""
    judged = next((one for one in document.programs[:1] if one.step == document.step), None)
    return max(1.0, judged.steps / judged.runs) if judged is not None and judged.steps and judged.runs else 1.0


def _that_ran(evidence: Evidence) -> list[WrittenPipeline]:
    """Return the pipelines of which stages ran while it was recorded; all where that is not known."""
    iterators = evidence.profile.iterators if evidence.profile is not None else ()
    seen = {stage for one in iterators for stage in one.stages}
    ran = [one for one in evidence.pipelines if seen & {stage.name for stage in one.stages}]
    return ran or list(evidence.pipelines)


def _bound(watched: Watched, document: Document) -> Finding:
    """Return the question what an input that took no time would give; it is asked first.

    A loop of Keras is made to go through its data again and again, and one within a function has to come to an end.
    """
    in_python = not (watched.called_again or watched.name in KERAS) and steps_of_a_call(document) == 1
    fix = Fix("", "manual", (ScriptSetting("served_input", "endless" if in_python else ""),))
    return Finding("", _BOUND_RULE, _FREE, (), {}, "", Saving(share=1.0), fix, severity="high")


def _not_found(pipelines: Sequence[WrittenPipeline], findings: Sequence[Finding]) -> Iterator[Rewrite]:
    """Yield the changes that no finding advises."""
    advised = [finding.fix.edits for finding in findings]
    for pipeline in pipelines:
        yield from (one for one in _fitting(pipeline) if one.edits not in advised)


def _fitting(pipeline: WrittenPipeline) -> tuple[Rewrite, ...]:
    return rewrites_of(pipeline, os.cpu_count() or 1)


def _as_finding(rewrite: Rewrite) -> Finding:
    fix = Fix(rewrite.change, "manual", rewrite.edits, rewrite.source)
    return Finding("", _REWRITE_RULE, rewrite.change, (), {}, "", Saving(), fix, severity="low")


def _told(
    finding: Finding,
    pipelines: Sequence[WrittenPipeline],
    steps: float,
    alone: Mapping[tuple[Edit, ...], Proof],
) -> InputRewrite:
    proof = _of_time_alone(finding.proof) if finding.rule == _BOUND_RULE else finding.proof
    known = {one.edits: (pipeline.id, one) for pipeline in pipelines for one in _fitting(pipeline)}
    pipeline, rewrite = known.get(finding.fix.edits, ("", None))
    change = rewrite.change if rewrite is not None else finding.fix.summary
    if finding.rule == _BOUND_RULE:
        change = f"{_FREE}: {_step_words(proof, steps)}"
    return InputRewrite(
        pipeline,
        change,
        finding.fix.edits,
        rewrite.source if rewrite is not None else "",
        _per_s(proof.before_ns, steps),
        _per_s(proof.after_ns, steps),
        proof if finding.rule not in {_BOUND_RULE, _REWRITE_RULE} else replace(proof, command=None),
        alone.get(finding.fix.edits),
    )


def _of_time_alone(proof: Proof) -> Proof:
    """Return a proof of the bound, whose steps are others as it is meant: nothing was to be compared.

    >>> _of_time_alone(Proof("inconclusive", f"{SHOWN}: wall time 2.1x; but the numbers were not compared: …")).why
    'measured faster: wall time 2.1x'
    """
    why, _, _ = proof.why.partition("; but the numbers were not compared")
    why, _, _ = why.partition("; the numbers were not compared")
    return replace(proof, verdict="proven" if why.startswith(SHOWN) else proof.verdict, why=why)


def _step_words(proof: Proof, steps: float) -> str:
    """Return what a step takes, and would take, where so many of them were timed together.

    >>> proof = Proof("proven", "", before_ns=48_000_000, after_ns=17_000_000)
    >>> _step_words(proof, 1.0), _step_words(proof, 10.0)
    ('48.0 ms to 17.0 ms a step', '4.80 ms to 1.70 ms a step')
    """
    if proof.before_ns is None or proof.after_ns is None:
        return "not measured"
    before, after = (format_ns(round(ns / steps)) for ns in (proof.before_ns, proof.after_ns))
    return f"{before} to {after} a step"


def _per_s(ns: int | None, steps: float) -> float | None:
    return steps * 1e9 / ns if ns else None
