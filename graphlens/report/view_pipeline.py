"""Input pipelines in words, bars and a drawing: what ran, what limits it, and what steps waited for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.ir.analysis import Document, Figure, FigureNode
from graphlens.ir.pipelines import AUTOTUNE, DATASET, InputPhase, InputPipeline, InputStage
from graphlens.report.ink import Ink
from graphlens.report.phases import percent
from graphlens.report.words import shorten
from graphlens.units import UNKNOWN, counted, format_frequency, format_ns, format_share

SHOWN: Final = 60  # stages of a chain
STEPS: Final = "the steps"  # the box that reads the pipeline
MORE: Final = "more stages"  # the box of those that are not shown
_ROLES: Final = {"limits": "limiting", "slowest": "slowest"}
_LINE: Final = 40  # letters of a line in a box
_PHASES: Final = {"warm-up": "first of an epoch", "filling": "while a cache is filled", "steady": "steady state"}


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage, how deep in the chain it stands; ``work`` and ``waiting`` are percent of the longest of all."""

    name: str
    kind: str
    depth: int
    lines: str
    work_time: str
    work: float
    waiting_time: str
    waiting: float
    parallelism: str
    buffer: str
    rate: str
    limits: bool


@dataclass(frozen=True, slots=True)
class PipelineView:
    """One pipeline, what its steps waited, and its stages, the one first that steps ask.

    ``figure`` has a box for each, which ``ink`` says what is written in; ``key`` tells how to read it.
    """

    name: str
    lead: str
    phases: tuple[str, ...]
    stages: tuple[StageView, ...]
    hidden: int
    notes: tuple[str, ...]
    ran: bool
    figure: Figure
    ink: Ink
    key: str


@dataclass(frozen=True, slots=True)
class InputView:
    """All pipelines; ``summary`` says of the first one what matters."""

    summary: str
    pipelines: tuple[PipelineView, ...]


def input_view(document: Document) -> InputView | None:
    """Return the pipelines of the document, ``None`` where it has none."""
    period = document.period
    differs = period is not None and period.profiled_ns not in (None, period.ns)
    pipelines = tuple(_pipeline(pipeline, differs) for pipeline in document.input if pipeline.stages)
    return InputView(pipelines[0].lead, pipelines) if pipelines else None


def _pipeline(pipeline: InputPipeline, differs: bool) -> PipelineView:
    longest_ns = max((max(stage.step_ns or 0, stage.waiting_ns or 0) for stage in pipeline.stages), default=0)
    depths = _depths(pipeline)
    order = _in_order(pipeline)
    rows = [_stage(pipeline, position, depths[position], longest_ns) for position in order]
    return PipelineView(
        name=pipeline.id,
        lead=_lead(pipeline, differs),
        phases=tuple(_phase(phase) for phase in pipeline.phases) if len(pipeline.phases) > 1 else (),
        stages=tuple(rows[:SHOWN]),
        hidden=max(0, len(rows) - SHOWN),
        notes=pipeline.notes,
        ran=any(stage.origin == "measured" for stage in pipeline.stages),
        figure=_figure(pipeline, order[:SHOWN]),
        ink=_ink(pipeline, order[:SHOWN]),
        key=_key(pipeline),
    )


def _lead(pipeline: InputPipeline, differs: bool) -> str:
    """Say what the steps wait, and for which stage; what is seen while they are recorded may differ from the rest."""
    wait = pipeline.wait
    if wait is None:
        slowest = "" if pipeline.limiting is None else f"; {_limiting(pipeline.stages[pipeline.limiting])} limits them"
        unseen = "" if pipeline.id == DATASET else "; what steps wait for them was not seen"
        return f"{counted(len(pipeline.stages), 'stage')}{slowest}{unseen}"
    role = "limits it" if wait.total_ns else "is its slowest stage"
    limiting = "" if pipeline.limiting is None else f"; {_limiting(pipeline.stages[pipeline.limiting])} {role}"
    share = "" if wait.share is None else f" ({format_share(wait.share)} of the time)"
    mean_ns = round(wait.total_ns / wait.steps)
    recorded = " while recorded" if differs else ""
    waited = f"steps wait {format_ns(mean_ns)} for input{recorded}{share}"
    return f"{waited}, {format_ns(wait.median_ns)} in the median{limiting}"


def _limiting(stage: InputStage) -> str:
    about = ", ".join(filter(None, (stage.function, _line(stage))))
    return f"{stage.name} ({about})" if about else stage.name


def _line(stage: InputStage) -> str:
    """Return the user's line without the folders that its file lies in."""
    return re.split(r"[/\\]", stage.source or "")[-1]


def _phase(phase: InputPhase) -> str:
    wait = phase.wait
    return f"{_PHASES[phase.kind]}: {format_ns(wait.median_ns)} in the median of {counted(wait.steps, 'step')}"


def _depths(pipeline: InputPipeline) -> dict[int, int]:
    depths = dict.fromkeys(range(len(pipeline.stages)), 0)
    for position in _in_order(pipeline):
        for read in pipeline.stages[position].reads:
            depths[read] = depths[position] + 1
    return depths


def _in_order(pipeline: InputPipeline) -> list[int]:
    """Return the stages as they are asked: each before those that it reads."""
    read = {position for stage in pipeline.stages for position in stage.reads}
    waiting = [position for position in reversed(range(len(pipeline.stages))) if position not in read]
    found: list[int] = []
    while waiting:
        position = waiting.pop()
        if position not in found:
            found.append(position)
            waiting.extend(reversed(pipeline.stages[position].reads))
    return found


def _stage(pipeline: InputPipeline, position: int, depth: int, longest_ns: int) -> StageView:
    stage = pipeline.stages[position]
    return StageView(
        name=stage.name,
        kind=stage.kind,
        depth=depth,
        lines=", ".join(filter(None, (stage.function, _line(stage)))),
        work_time=format_ns(stage.step_ns) if stage.step_ns is not None else UNKNOWN,
        work=percent(stage.step_ns or 0, longest_ns) if longest_ns else 0.0,
        waiting_time=format_ns(stage.waiting_ns) if stage.waiting_ns is not None else "",
        waiting=percent(stage.waiting_ns or 0, longest_ns) if longest_ns else 0.0,
        parallelism="; ".join(_parallelism(stage)),
        buffer=_buffer(stage),
        rate=UNKNOWN if stage.elements_per_s is None else format_frequency(stage.elements_per_s),
        limits=position == pipeline.limiting,
    )


def _parallelism(stage: InputStage) -> Iterator[str]:
    if stage.parallelism is not None:
        yield f"{stage.parallelism}{' (tuned)' if stage.autotune else ''}"
    if stage.asked is not None:
        yield f"asked {'AUTOTUNE' if stage.asked == AUTOTUNE else stage.asked}"


def _buffer(stage: InputStage) -> str:
    """Say how full the buffer was: on average, and of how much.

    >>> _buffer(InputStage("a", "Prefetch", buffer_limit=4, buffered=1.26)), _buffer(InputStage("b", "Map"))
    ('1.3 of 4', '')
    """
    if stage.buffered is None:
        return ""
    return f"{stage.buffered:.1f}" + (f" of {stage.buffer_limit}" if stage.buffer_limit else "")


# -- the drawing ------------------------------------------------------------------------------------------------------


def _figure(pipeline: InputPipeline, shown: Sequence[int]) -> Figure:
    """Return a box for each stage that is shown, for the steps, and one for all stages that are not shown."""
    boxes = [_box(pipeline.stages[position], position == pipeline.limiting) for position in shown]
    others = [FigureNode(name, name, "context") for name in _others(pipeline, shown)]
    return Figure("input", (*boxes, *others), tuple(_arrows(pipeline, shown)))


def _box(stage: InputStage, limits: bool) -> FigureNode:
    return FigureNode(stage.name, stage.kind, "subject" if limits else "context", self_ns=stage.step_ns)


def _others(pipeline: InputPipeline, shown: Sequence[int]) -> Iterator[str]:
    if pipeline.id != DATASET:  # which nobody reads
        yield STEPS
    if len(shown) < len(pipeline.stages):
        yield MORE


def _arrows(pipeline: InputPipeline, shown: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """Yield what flows from one box to another, once each: from the sources to the steps."""
    names = {position: pipeline.stages[position].name for position in shown}
    flows = {(read, position) for position in shown for read in pipeline.stages[position].reads}
    yield from dict.fromkeys((names.get(read, MORE), names[position], "data") for read, position in sorted(flows))
    if pipeline.id != DATASET:
        read = {read for stage in pipeline.stages for read in stage.reads}
        yield from ((names[position], STEPS, "data") for position in shown if position not in read)


def _ink(pipeline: InputPipeline, shown: Sequence[int]) -> Ink:
    stages = [pipeline.stages[position] for position in shown]
    lines = {stage.name: tuple(_written(pipeline, stage)) for stage in stages}
    hidden = len(pipeline.stages) - len(shown)
    others = {STEPS: (STEPS, *_waited(pipeline)), MORE: (counted(hidden, "more stage"), "not drawn")}
    return Ink(
        lines={**lines, **{name: others[name] for name in _others(pipeline, shown)}},
        marks={stage.name: "added" for stage in stages if _is_added(pipeline, stage)},
        spoken=_spoken(pipeline, len(shown)),
    )


def _written(pipeline: InputPipeline, stage: InputStage) -> Iterator[str]:
    """Yield the lines of a box: what it is, whose it is, its work, its speed, who waited, and what was fused in it."""
    fused = stage.stages if len(stage.stages) > 1 else ()
    limiting = pipeline.limiting is not None and stage is pipeline.stages[pipeline.limiting]
    yield shorten(stage.kind if fused else stage.name, _LINE) + (f" - {_role(pipeline)}" if limiting else "")
    about = ", ".join(filter(None, (stage.function, _line(stage)))) or stage.kind
    yield "added by TensorFlow" if _is_added(pipeline, stage) else shorten(about, _LINE)
    if stage.origin == "measured":
        work = "unknown" if stage.step_ns is None else f"{format_ns(stage.step_ns)} a step"
        yield f"own work {work}"
    yield from _speed(stage)
    if stage.waiting_ns is not None:
        yield f"waited for {format_ns(stage.waiting_ns)} a step"
    yield from (f"{'fused of' if part == fused[0] else 'and'} {shorten(part, _LINE)}" for part in fused)


def _role(pipeline: InputPipeline) -> str:
    """Say what the limiting stage is to steps: where none of them waits it is the slowest one and limits nothing."""
    return "limits" if pipeline.wait is None or pipeline.wait.total_ns else "slowest"


def _speed(stage: InputStage) -> Iterator[str]:
    granted = (
        "" if stage.parallelism is None else f"{stage.parallelism} at a time{' (tuned)' if stage.autotune else ''}"
    )
    rate = "" if stage.elements_per_s is None else f"{format_frequency(stage.elements_per_s)} elements/s"
    if granted or rate:
        yield ", ".join(filter(None, (granted, rate)))


def _is_added(pipeline: InputPipeline, stage: InputStage) -> bool:
    """Say whether TensorFlow added a stage; where the names of no stage were recorded, that is not known."""
    return stage.origin == "measured" and not stage.stages and any(one.stages for one in pipeline.stages)


def _waited(pipeline: InputPipeline) -> Iterator[str]:
    wait = pipeline.wait
    if wait is None:
        yield "their waiting was not seen"
    else:
        yield f"wait {format_ns(round(wait.total_ns / wait.steps))} for input"


def _spoken(pipeline: InputPipeline, shown: int) -> str:
    limiting = None if pipeline.limiting is None else pipeline.stages[pipeline.limiting].name
    role = "limits it" if _role(pipeline) == "limits" else "is its slowest one"
    marked = f"; {limiting} {role}" if limiting else ""
    return f"Drawing of {counted(shown, 'stage')} of the input pipeline {pipeline.id}{marked}"


def _key(pipeline: InputPipeline) -> str:
    """Tell how to read the drawing, of what it holds."""
    limits = "" if pipeline.limiting is None else f" The {_ROLES[_role(pipeline)]} stage has a thick frame."
    added = any(_is_added(pipeline, stage) for stage in pipeline.stages)
    return f"Elements flow along the arrows.{limits}{' TensorFlow added those with a dashed frame.' if added else ''}"
