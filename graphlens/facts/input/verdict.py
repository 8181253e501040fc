"""Whether steps wait for their input, and what is known of the stage that limits it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.input.chains import Chain, chains, works_ahead
from graphlens.facts.input.pipelines import elements_per_step, input_pipelines
from graphlens.facts.time.period import period
from graphlens.facts.time.unrecorded import Rest, rest
from graphlens.ir.pipelines import InputPipeline, InputStage, WrittenStage
from graphlens.units import format_ns

# A request takes 20 to 100 us though the element lies ready, and machines are never quiet: below it nothing is to win.
LEAST_SHARE: Final = 0.05

# Of the mean wait.  With a median below, steps wait by turns: at the ends of files, or where a buffer runs empty.
UNEVEN: Final = 0.5

_CHANGING: Final = re.compile(r"Shuffle|Repeat|Random|Sample|DirectedInterleave")  # also as the user wrote them
_PYTHON: Final = frozenset({"PyFunc", "EagerPyFunc", "PyFuncStateless"})
_RANDOM: Final = re.compile(r"Random|Multinomial|Shuffle")
_DECODING: Final = re.compile(r"^(Decode\w+|ReadFile|Parse\w*Example\w*|ParseTensor|StringSplit\w*|RegexReplace)$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judged program's steps wait for its main pipeline.

    Attributes
    ----------
    wait_ns, share
        What of a period is waiting for elements that were not ready, and that as a part of it.
    period_ns
        From step to step.
    stage
        What limits the pipeline; ``None`` where that is not known.
    written
        What the user wrote there; ``None`` where that is not known.
    """

    pipeline: InputPipeline
    chain: Chain
    wait_ns: int
    share: float
    period_ns: int
    stage: InputStage | None
    written: WrittenStage | None

    @property
    def waits(self) -> bool:
        """Whether they wait for so long that it is worth a change."""
        return self.share >= LEAST_SHARE

    @property
    def some_wait(self) -> str:
        """That most of the waiting is that of a few steps, where it is: the period and its rows are of a usual one."""
        wait = self.pipeline.wait
        if wait is None or not wait.steps or wait.median_ns >= UNEVEN * wait.total_ns / wait.steps:
            return ""
        return f"; most of it is that of some steps: half of those recorded wait {format_ns(wait.median_ns)} or less"

    @property
    def other_ns(self) -> int:
        """What else a period takes."""
        return self.period_ns - self.wait_ns

    @property
    def name(self) -> str:
        """How the limiting stage is called, with the user's function and line where these are known."""
        if self.stage is None:
            return "a stage that is not known"
        line = re.split(r"[/\\]", self.stage.source or "")[-1]
        about = ", ".join(filter(None, (self.stage.function, line)))
        name = self.written.name if self.written else self.stage.name
        return f"{name} ({about})" if about else name


@fact
def verdict(facts: Facts) -> Verdict | None:
    """What is waited for the pipeline that the judged program reads most; ``None`` where no steady step was seen."""
    whole, pipelines, ran = facts(period), facts(input_pipelines), facts(chains)
    if whole is None or not ran or not pipelines or pipelines[0].wait is None:
        return None
    pipeline, chain = pipelines[0], ran[0]
    recorded = _unready_share(pipeline, chain, elements_per_step(facts, chain) or 1.0)
    share = recorded * _part_unrecorded(pipelines[0].wait.share or 0.0, facts(rest))
    stage = None if pipeline.limiting is None else pipeline.stages[pipeline.limiting]
    return Verdict(
        pipeline, chain, round(share * whole.ns), share, whole.ns, stage, _written(pipeline, stage) if stage else None
    )


def _part_unrecorded(share: float, alone: Rest) -> float:
    """Return what part of all waiting, a ``share`` of the recorded period, there is while nothing is recorded.

    What is waited for one of several pipelines, or for elements that were not ready, is the same part of it then.
    """
    return alone.wait(share) / share if share else 1.0


def _unready_share(pipeline: InputPipeline, chain: Chain, per_step: float) -> float:
    """Return the part of the time that steps waited for elements, without what asking for a ready one costs."""
    wait = pipeline.wait
    if wait is None or not wait.share:
        return 0.0
    top = chain.stages[0].stage
    step_ns = wait.total_ns / wait.steps / wait.share
    asked_ns = top.inclusive_ns / top.elements * per_step if top.elements else 0.0
    return min(wait.share, asked_ns / step_ns)


def _written(pipeline: InputPipeline, stage: InputStage) -> WrittenStage | None:
    """Return the user's stage whose function is called, of those that one stands for."""
    own = [one for one in pipeline.written if one.name in stage.stages]
    return next((one for one in own if one.function), own[0] if own else None)


# -- what the limiting stage does -----------------------------------------------------------------------------------


@fact
def stage_ops(facts: Facts) -> Mapping[str, frozenset[str]]:
    """The types of the ops that the functions of stages ran, by path."""
    profile = facts.evidence.profile
    if profile is None or not profile.iterators:
        return {}
    from graphlens.facts.input.functions import ops_by_stage  # needs numpy, which graphs alone do not

    return ops_by_stage(profile)


def _ops(facts: Facts, found: Verdict) -> frozenset[str]:
    """Return what the function of the limiting stage runs, as written and as seen."""
    if found.pipeline.limiting is None:
        return frozenset()
    path = found.chain.stages[found.pipeline.limiting].stage.path.replace("[*]", "")
    written = found.written.ops if found.written else ()
    return facts(stage_ops).get(path, frozenset()).union(written)


def is_python(facts: Facts, found: Verdict) -> bool:
    """Tell whether the limiting stage calls Python for each element."""
    if found.stage is None:
        return False
    called = bool(found.written and found.written.python)
    return called or found.stage.kind == "Generator" or bool(_PYTHON & _ops(facts, found))


def is_random(facts: Facts, found: Verdict) -> bool:
    """Tell whether the limiting stage makes something else each time, as far as that is known."""
    if found.written is not None and (found.written.random or found.written.stateful):
        return True
    return any(_RANDOM.search(op) for op in _ops(facts, found))


def decoding_ops(facts: Facts, found: Verdict) -> tuple[str, ...]:
    """Return the ops of the limiting stage that read or decode what never changes."""
    return tuple(sorted(op for op in _ops(facts, found) if _DECODING.match(op)))


def reader_of(found: Verdict) -> InputStage | None:
    """Return the stage that reads the limiting one."""
    position = found.pipeline.limiting
    return next((stage for stage in found.pipeline.stages if position in stage.reads), None)


def is_repeated(found: Verdict) -> bool:
    """Tell whether the elements of the limiting stage are made again and again, each time anew."""
    position = found.pipeline.limiting
    if position is None:
        return False
    path = found.chain.stages[position].stage.path
    return "Repeat" in path or found.chain.lifetimes > 1


def is_cached(found: Verdict) -> bool:
    """Tell whether a stage of the pipeline keeps elements."""
    return any("Cache" in stage.kind or "Snapshot" in stage.kind for stage in found.pipeline.stages)


def changes_below(found: Verdict) -> bool:
    """Tell whether what the limiting stage reads comes in another order in each epoch, or without an end."""
    stages, random = found.pipeline.stages, {one.name for one in found.pipeline.written if one.random}
    waiting = [] if found.stage is None else list(found.stage.reads)
    while waiting:
        stage = stages[waiting.pop()]
        if _CHANGING.search(stage.kind) or not random.isdisjoint(stage.stages):
            return True
        waiting.extend(stage.reads)
    return False


def makes_ahead(stage: InputStage) -> bool:
    """Tell whether a stage makes elements before they are asked for."""
    return works_ahead(stage.kind)
