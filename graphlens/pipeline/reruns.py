"""A script is run again to have fixes measured on its own steps, where a second run does no harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from graphlens.children.gate_messages import Watched
from graphlens.command import script_command_of
from graphlens.config import DEFAULT_RERUN_BUDGET_S, Progress, Request
from graphlens.ir.analysis import Finding, Proof
from graphlens.ir.edits import is_of_input
from graphlens.ir.evidence import Evidence
from graphlens.ir.ranking import ranked
from graphlens.ir.run import SESSION
from graphlens.pipeline import input_reruns, tries
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, prove
from graphlens.prove.schedule import reason_not_to_try
from graphlens.prove.script_runner import BLOCK_MS, ScriptRun, ScriptRunner, edits_for

OF_A_GRAPH: Final = (
    "the graphs of a script are its own and are not rewritten; analyze its step (module:callable) or its model"
)
NOT_FOUND: Final = "the calls of the program that is judged were not counted, so a second run could not stop at them"
EAGER: Final = (
    "its steps run op by op, so there is no call that holds a step, before which a second run could stand still; what "
    "can be changed about them is measured once the step is a tf.function"
)
# A loop over all the data, which a script calls once for each epoch, is called again by the trial.
FEW_CALLS: Final = 16
# Whoever waits has run the script for another reason: a gain that is known to a tenth is known well enough.
HALF_WIDTH: Final = 0.1


def with_proofs(request: Request, gathered: Gathered, analysis: Analysis, progress: Progress) -> Analysis:
    """Return ``analysis`` with the proofs of what can be changed about its script, ranked by what was proven."""
    run = _run_of(gathered)
    if run is None:
        why = why_not_found(gathered.evidence)
        return _with(analysis, [replace(one, proof=Proof("not-run", why)) for one in analysis.findings])
    assert gathered.directory is not None
    analysis = input_reruns.with_proofs(request, gathered, analysis, run, progress)
    of_input, findings = _of_input(analysis.findings)
    changed = [one for one in findings if one.fix.edits and edits_for(one.fix.edits, run.watched) is not None]
    asked = (*request.judging.select, tries.CODE)
    command, script = script_command_of(request.but(select=(), tries=()), run.words, reruns=run.does_again)
    others = [*of_input, *(_of_a_graph(one) for one in findings if one not in changed)]
    if not any(reason_not_to_try(one, asked) is None for one in changed):
        changed, others = [], [*others, *(replace(one, proof=Proof("not-run", _reason(one))) for one in changed)]
    folder = gathered.directory / "trials"
    folder.mkdir(exist_ok=True)
    outcome = prove(
        changed,
        ScriptRunner(run, folder, rtol=request.judging.rtol),
        Plan(
            budget_s=request.recording.time_budget_s or DEFAULT_RERUN_BUDGET_S,
            block_ms=BLOCK_MS,
            half_width=HALF_WIDTH,
        ),
        step_ns=analysis.step.median_ns if analysis.step else None,
        command=command,
        script=script,
        asked=asked,
        progress=progress,
    )
    proved = _with(analysis, ranked([*(tries.answered(one, command, script) for one in outcome.findings), *others]))
    return replace(proved, document=replace(proved.document, joint_proof=outcome.joint_proof))


def _of_input(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Return the findings whose fixes change an input pipeline, which have their proofs, and the others."""
    of_input = [one for one in findings if one.fix.edits and all(map(is_of_input, one.fix.edits))]
    return of_input, [one for one in findings if one not in of_input]


def _with(analysis: Analysis, findings: Sequence[Finding]) -> Analysis:
    return replace(analysis, document=replace(analysis.document, findings=tuple(findings)))


def _of_a_graph(finding: Finding) -> Finding:
    return replace(finding, proof=Proof("not-run", OF_A_GRAPH if finding.fix.edits else _reason(finding)))


def _reason(finding: Finding) -> str:
    return reason_not_to_try(finding) or OF_A_GRAPH


def _run_of(gathered: Gathered) -> ScriptRun | None:
    """Return what a second run is to be, ``None`` where it is not known where to stop it."""
    assert gathered.rerun is not None
    found = watched_of(gathered.evidence)
    if found is None:
        return None
    watched, calls = found
    return ScriptRun(gathered.rerun.words, watched, gathered.rerun.took_s, calls, gathered.rerun.does_again)


def why_not_found(evidence: Evidence) -> str:
    """Return why a second run could not stand still before the steps of the judged program."""
    return EAGER if evidence.script is not None and evidence.script.eager_steps else NOT_FOUND


def watched_of(evidence: Evidence) -> tuple[Watched, int] | None:
    """Return the judged program as a second run finds it, and how often it was called."""
    name = next((one.name for one in evidence.programs if one.id == evidence.judged), "")
    functions = evidence.script.functions if evidence.script is not None else ()
    if name == SESSION:
        calls = max((one.calls for one in functions if one.name == SESSION), default=0)
        return (Watched(""), calls) if calls else None
    function = next((one for one in functions if name in one.concretes), None)
    if function is None:
        return None
    alike = [one.id for one in functions if one.name == function.name]
    number = alike.index(function.id)
    return Watched(function.name, number, called_again=function.calls < FEW_CALLS), function.calls
