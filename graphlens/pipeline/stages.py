"""The stages of judging in their order: one list, which every command that judges goes through.

A stage says by what is known whether it is needed, and returns what is known after it.  It imports what it needs when
it runs: a graph that is only read takes less time than what it takes to run one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphlens.collector import collector_paused
from graphlens.config import Progress, Request
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Proof
from graphlens.ir.pipelines import DATASET
from graphlens.pipeline.gather import Gathered, gather
from graphlens.pipeline.judge import judge_facts
from graphlens.pipeline.result import Analysis

NOT_ASKED: Final = "--no-prove was given"
NO_MODEL: Final = "a capture holds no weights; analyze the model itself to have its fixes proven"
LIVE: Final = "a program in this process is not changed; save the model and analyze it to have its fixes proven"
SCRIPT: Final = "a script is run again by `graphlens run` alone, which then has fixes proven on its own steps"
OTHER_RUN: Final = "the profile is of another run; analyze the model without it to have its fixes proven"
NOT_EXECUTED: Final = "the model was not executed"
OTHER_PROGRAM: Final = "fixes are applied to the target itself, and another program was judged"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known between two stages; ``analysis`` once it was judged."""

    request: Request
    gathered: Gathered
    facts: Facts
    progress: Progress
    analysis: Analysis | None = None

    @property
    def judged(self) -> Analysis:
        """The analysis, which the stages after judging work on."""
        assert self.analysis is not None
        return self.analysis


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of judging; ``name`` is that of what it does."""

    name: str
    needed: Callable[[Known], bool]
    run: Callable[[Known], Known]


@contextmanager
def judged(request: Request, progress: Progress) -> Iterator[Known]:
    """Gather what is asked for, take it through all stages, and yield what is known while the recording is there.

    Raises
    ------
    TargetError, UsageError, MissingDependencyError
        When there is nothing to judge.
    """
    _check(request)
    with collector_paused(), gather(request, progress) as gathered:
        yield through(request, gathered, progress)


def through(request: Request, gathered: Gathered, progress: Progress) -> Known:
    """Take what was gathered through every stage that is needed."""
    progress("judging", 0, 0)
    known = Known(request, gathered, Facts(gathered.evidence), progress)
    for stage in STAGES:
        if stage.needed(known):
            known = stage.run(known)
    return known


def _check(request: Request) -> None:
    """Refuse a device that nothing is known of before any work is done."""
    if request.judging.assume_device is not None:
        from graphlens.pipeline import whatif

        whatif.check_device(request)


# -- before judging -----------------------------------------------------------------------------------------------


def _is_kept(known: Known) -> bool:
    return known.request.recording.keep_run is not None


def _keep(known: Known) -> Known:
    keep_run(known.request, known.gathered.profiled)
    return known


def keep_run(request: Request, profiled: Path | None) -> None:
    """Leave the profile in the log folder that was asked for, if one was and there is a profile."""
    if request.recording.keep_run is not None and profiled is not None:
        from graphlens.pipeline import logdir

        logdir.keep(profiled, request.recording.keep_run)


def _is_of_several(known: Known) -> bool:
    return bool(known.gathered.evidence.programs) or known.request.judging.program is not None


def _choose(known: Known) -> Known:
    from graphlens.pipeline.choosing import choose

    evidence = choose(known.gathered.evidence, known.request.judging.program)
    return replace(known, gathered=replace(known.gathered, evidence=evidence), facts=Facts(evidence))


def _may_be_tried(known: Known) -> bool:
    return why_nothing_is_tried(known.request, known.gathered) is None


def _may_be_asked(known: Known) -> bool:
    return _may_be_tried(known) and known.gathered.opened_as is not None


def _explain(known: Known) -> Known:
    from graphlens.pipeline import proofs

    return replace(known, facts=proofs.explained(known.gathered, known.facts, known.progress))


def _is_to_be_placed(known: Known) -> bool:
    return known.request.judging.assume_device is not None


def _place(known: Known) -> Known:
    from graphlens.pipeline import whatif

    return replace(known, facts=whatif.with_placement(known.request, known.gathered, known.facts, known.progress))


# -- judging, and after it ----------------------------------------------------------------------------------------


def _always(_: Known) -> bool:
    return True


def _judge(known: Known) -> Known:
    judging = known.request.judging
    return replace(known, analysis=judge_facts(known.facts, judging.select, judging.ignore))


def _is_to_try_more(known: Known) -> bool:
    return bool(known.request.judging.tries)


def _ask_more(known: Known) -> Known:
    from graphlens.pipeline import tries

    document = known.judged.document
    findings = (*document.findings, *tries.asked_for(known.request.judging.tries))
    return replace(known, analysis=replace(known.judged, document=replace(document, findings=findings)))


def _has_fixes_to_try(known: Known) -> bool:
    of_input = _is_of_dataset(known) or known.gathered.rerun is not None  # which is tried whatever was found
    edited = of_input or any(finding.fix.edits for finding in known.judged.findings)
    return _may_be_tried(known) and edited


def _is_of_dataset(known: Known) -> bool:
    return known.gathered.evidence.target.kind == DATASET


def _prove(known: Known) -> Known:
    from graphlens.pipeline import input_proofs, proofs, reruns

    if _is_of_dataset(known):
        return replace(
            known, analysis=input_proofs.with_proofs(known.request, known.gathered, known.judged, known.progress)
        )
    if known.gathered.rerun is not None:
        return replace(known, analysis=reruns.with_proofs(known.request, known.gathered, known.judged, known.progress))
    return replace(known, analysis=proofs.with_proofs(known.request, known.gathered, known.judged, known.progress))


def _may_not_be_tried(known: Known) -> bool:
    return not _may_be_tried(known)


def _leave_unproven(known: Known) -> Known:
    why = why_nothing_is_tried(known.request, known.gathered)
    assert why is not None
    document = known.judged.document
    findings = tuple(replace(finding, proof=Proof("not-run", why)) for finding in document.findings)
    return replace(known, analysis=replace(known.judged, document=replace(document, findings=findings)))


def why_nothing_is_tried(request: Request, gathered: Gathered) -> str | None:
    """Return why no experiment is made on the target, ``None`` where they are made."""
    evidence = gathered.evidence
    reasons = (
        (NOT_ASKED, not request.judging.prove),
        (OTHER_RUN, evidence.profile_path is not None),
        (NOT_EXECUTED, evidence.profile is None),
        *_reasons_of_a_script(gathered),
        (OTHER_PROGRAM, not evidence.is_about_main and gathered.rerun is None),
        (LIVE, gathered.opened_as is None and gathered.capture is None and gathered.rerun is None),
        (NO_MODEL, gathered.opened_as is None and gathered.rerun is None),
    )
    return next((why for why, holds in reasons if holds), None)


def _reasons_of_a_script(gathered: Gathered) -> tuple[tuple[str, bool], ...]:
    rerun = gathered.rerun
    return (
        (SCRIPT, gathered.evidence.target.kind == "script" and rerun is None),
        (rerun.why_not if rerun is not None else "", rerun is not None and bool(rerun.why_not)),
    )


STAGES: Final = (
    Stage("keep the profile for other tools", _is_kept, _keep),
    Stage("choose the program", _is_of_several, _choose),
    Stage("ask why ops are not fused", _may_be_asked, _explain),
    Stage("place the ops on another device", _is_to_be_placed, _place),
    Stage("judge", _always, _judge),
    Stage("ask what the user wants tried", _is_to_try_more, _ask_more),
    Stage("prove the fixes", _has_fixes_to_try, _prove),
    Stage("say why no fix is proven", _may_not_be_tried, _leave_unproven),
)
