"""Input pipelines in words and bars: the chain that ran, what limits it, and what steps waited for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from graphlens.ir.analysis import Document
from graphlens.ir.pipelines import AUTOTUNE, DATASET, InputPhase, InputPipeline, InputStage
from graphlens.report.phases import percent
from graphlens.units import UNKNOWN, counted, format_frequency, format_ns, format_share

SHOWN: Final = 60  # stages of a chain
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
    """One pipeline, what its steps waited, and its stages, the one first that steps ask."""

    name: str
    lead: str
    phases: tuple[str, ...]
    stages: tuple[StageView, ...]
    hidden: int
    notes: tuple[str, ...]
    ran: bool


@dataclass(frozen=True, slots=True)
class InputView:
    """All pipelines; ``summary`` says of the first one what matters."""

    summary: str
    pipelines: tuple[PipelineView, ...]


def input_view(document: Document) -> InputView | None:
    """Return the pipelines of the document, ``None`` where it has none."""
    pipelines = tuple(_pipeline(pipeline) for pipeline in document.input if pipeline.stages)
    return InputView(pipelines[0].lead, pipelines) if pipelines else None


def _pipeline(pipeline: InputPipeline) -> PipelineView:
    longest_ns = max((max(stage.step_ns or 0, stage.waiting_ns or 0) for stage in pipeline.stages), default=0)
    depths = _depths(pipeline)
    order = _in_order(pipeline)
    rows = [_stage(pipeline, position, depths[position], longest_ns) for position in order]
    return PipelineView(
        name=pipeline.id,
        lead=_lead(pipeline),
        phases=tuple(_phase(phase) for phase in pipeline.phases) if len(pipeline.phases) > 1 else (),
        stages=tuple(rows[:SHOWN]),
        hidden=max(0, len(rows) - SHOWN),
        notes=pipeline.notes,
        ran=any(stage.origin == "measured" for stage in pipeline.stages),
    )


def _lead(pipeline: InputPipeline) -> str:
    """Say what the steps wait, and for which stage."""
    wait = pipeline.wait
    if wait is None:
        slowest = "" if pipeline.limiting is None else f"; {_limiting(pipeline.stages[pipeline.limiting])} limits them"
        unseen = "" if pipeline.id == DATASET else "; what steps wait for them was not seen"
        return f"{counted(len(pipeline.stages), 'stage')}{slowest}{unseen}"
    role = "limits it" if wait.total_ns else "is its slowest stage"
    limiting = "" if pipeline.limiting is None else f"; {_limiting(pipeline.stages[pipeline.limiting])} {role}"
    share = "" if wait.share is None else f" ({format_share(wait.share)} of the time)"
    mean_ns = round(wait.total_ns / wait.steps)
    return f"steps wait {format_ns(mean_ns)} for input{share}, {format_ns(wait.median_ns)} in the median{limiting}"


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
