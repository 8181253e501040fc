"""The input pipelines of the analysis: what ran, joined to what the user wrote by the names of the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.input.chains import Chain, Ran, chains, works_ahead
from graphlens.facts.input.waits import StepWait, step_waits
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.programs.program_names import base_name
from graphlens.ir.iterators import IteratorStage
from graphlens.ir.pipelines import (
    InputPhase,
    InputPipeline,
    InputStage,
    InputWait,
    PhaseKind,
    WrittenPipeline,
    WrittenStage,
)

_PHASES: Final[tuple[PhaseKind, ...]] = ("warm-up", "filling", "steady")
_NS_PER_S: Final = 1_000_000_000
ONLY_FILLING: Final = "only steps were recorded in which a cache is filled: what later epochs wait is not known"


@fact
def input_pipelines(facts: Facts) -> tuple[InputPipeline, ...]:
    """The pipelines that feed the judged program, the first of which it reads most; of a dataset as target, itself."""
    written = list(facts.evidence.pipelines)
    found = []
    for number, chain in enumerate(facts(chains)):
        own = _written_of(chain, written)
        if own is not None:
            written.remove(own)
        found.append(_pipeline(facts, chain, own, number))
    found.extend(_only_written(one) for one in written)
    return tuple(found)


def _written_of(chain: Chain, written: Sequence[WrittenPipeline]) -> WrittenPipeline | None:
    """Return the pipeline as written of which most stages ran in a chain."""
    ran = {name for one in chain.stages for name in one.stage.stages}
    shared = {one.id: len(ran.intersection(stage.name for stage in one.stages)) for one in written}
    best = max(written, key=lambda one: shared[one.id], default=None)
    return best if best is not None and shared[best.id] else None


def _pipeline(facts: Facts, chain: Chain, written: WrittenPipeline | None, number: int) -> InputPipeline:
    waits = facts(step_waits) if number == 0 else ()
    steps = sum(wait.stretch.steps for wait in waits)
    phases = tuple(_phases(waits))
    steady = next((phase.wait for phase in phases if phase.kind == "steady"), None)
    per_step = elements_per_step(facts, chain) if number == 0 else None
    judged = facts(programs).judged
    length_ns = sum(wait.stretch.end_ns - wait.stretch.start_ns for wait in waits)
    return InputPipeline(
        id=written.id if written else f"pipeline-{number + 1}",
        program=base_name(judged.name) if judged else None,
        stages=_stages(chain, written, per_step),
        written=written.stages if written else (),
        rewritten=written.rewritten if written else (),
        wait=steady,
        phases=phases,
        limiting=chain.limiting,
        elements_per_s=steps * (per_step or 1.0) * _NS_PER_S / length_ns if length_ns else None,
        details=dict(chain.details),
        notes=(ONLY_FILLING,) if waits and steady is None else (),
    )


def elements_per_step(facts: Facts, chain: Chain) -> float | None:
    """Return how many elements a step takes: most take one, some one from each of several pipelines, some several."""
    judged = facts(programs).judged
    if judged is None or not judged.count or not chain.requests:
        return None
    return max(1.0, round(chain.requests / judged.count))


# -- waits ------------------------------------------------------------------------------------------------------------


def _phases(waits: Sequence[StepWait]) -> Iterator[InputPhase]:
    for kind in _PHASES:
        own = [wait for wait in waits if wait.kind == kind]
        if own:
            yield InputPhase(kind, _wait(own))


def _wait(waits: Sequence[StepWait]) -> InputWait:
    total_ns = sum(wait.wait_ns for wait in waits)
    length_ns = sum(wait.stretch.end_ns - wait.stretch.start_ns for wait in waits)
    steps = sum(wait.stretch.steps for wait in waits)
    share = min(1.0, total_ns / length_ns) if length_ns else None
    return InputWait(round(median(wait.step_ns for wait in waits)), total_ns, steps, share)


# -- stages -----------------------------------------------------------------------------------------------------------


def _stages(chain: Chain, written: WrittenPipeline | None, per_step: float | None) -> tuple[InputStage, ...]:
    by_name = {stage.name: stage for stage in written.stages} if written else {}
    names = _names([ran.stage for ran in chain.stages])
    rows = zip(names, chain.stages, chain.reads, strict=True)
    return tuple(_stage(name, ran, reads, by_name, per_step) for name, ran, reads in rows)


def _names(stages: Sequence[IteratorStage]) -> Iterator[str]:
    """Yield a name for each stage: its user's stages, else its kind, with a number where that is not enough."""
    taken: dict[str, int] = {}
    for stage in stages:
        name = "+".join(stage.stages) or stage.kind
        taken[name] = taken.get(name, 0) + 1
        yield name if taken[name] == 1 else f"{name}#{taken[name]}"


def _stage(
    name: str, ran: Ran, reads: tuple[int, ...], written: Mapping[str, WrittenStage], per_step: float | None
) -> InputStage:
    stage = ran.stage
    own = [written[part] for part in stage.stages if part in written]
    told = next((one for one in own if one.function), own[0] if own else None)
    work_ns, element_ns, waits_ns = ran.work_ns, ran.element_ns, ran.waits_ns
    steps = per_step or 1.0
    return InputStage(
        name=name,
        kind=stage.kind,
        stages=stage.stages,
        reads=reads,
        source=(told.source or None) if told else None,
        function=(told.function or None) if told else None,
        elements=stage.elements,
        work_ns=None if work_ns is None else round(work_ns),
        elements_per_s=ran.at_once * _NS_PER_S / work_ns if work_ns else None,
        step_ns=None if element_ns is None or ran.fills else round(element_ns * steps),
        waiting_ns=None if waits_ns is None or ran.fills else round(waits_ns * steps),
        parallelism=stage.parallelism or (None if works_ahead(stage.kind) else ran.at_once),
        asked=next((one.parallelism for one in own if one.parallelism is not None), None),
        autotune=stage.autotune,
        buffer_limit=stage.buffer_limit,
        buffered=stage.buffered,
    )


def _only_written(written: WrittenPipeline) -> InputPipeline:
    """Return a pipeline of which no run was seen, its stages as written."""
    order = {stage.name: number for number, stage in enumerate(reversed(written.stages))}
    stages = tuple(
        InputStage(
            name=stage.name,
            kind=stage.kind,
            stages=(stage.name,),
            reads=tuple(order[name] for name in stage.inputs if name in order),
            source=stage.source or None,
            function=stage.function or None,
            asked=stage.parallelism,
            origin="static",
        )
        for stage in reversed(written.stages)
    )
    return InputPipeline(written.id, stages=stages, written=written.stages, rewritten=written.rewritten)
