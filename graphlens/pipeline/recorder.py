"""The process that runs a target, seen from here: how it is asked, and what it recorded joined to what was read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from graphlens.children.messages import RecordRequest
from graphlens.children.recorder import start_recorder
from graphlens.children.start import Child, Outcome
from graphlens.config import DEFAULT_TIME_BUDGET_S, Progress, Request
from graphlens.errors import UsageError
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.loaders import sniff
from graphlens.loaders.capture import reading
from graphlens.loaders.capture.parts import MANIFEST


def run(child: Child, asked: RecordRequest, progress: Progress) -> Outcome:
    """Have the child do what it is asked for, and wait for it."""
    child.send(asked)
    _import_what_comes_next()
    return child.wait(progress, asked.time_budget_s)


def _import_what_comes_next() -> None:
    """Import what judging and reporting need while the child is at work, rather than after it."""
    import rich.console  # noqa: F401

    from graphlens import prove, rules  # noqa: F401
    from graphlens.report import html, terminal  # noqa: F401

    rules.all_rules()


def started(request: Request, folder: Path) -> Child:
    """Start a child that imports TensorFlow and waits to be asked."""
    return start_recorder(folder, keeps_unplaced=keeps_unplaced(request))


def keeps_unplaced(request: Request) -> bool:
    """Whether the child is to keep the graph before placement: for a prediction here, or elsewhere."""
    return request.recording.keep_unplaced or request.judging.assume_device is not None


def child_request(request: Request, identified: sniff.Identified, mode: Literal["record", "trace"]) -> RecordRequest:
    """Return what the child is told."""
    source, recording = request.source, request.recording
    return RecordRequest(
        target=os.fspath(identified.path),
        shown_as=source.target,
        kind=identified.kind,
        signature=source.signature,
        tag=source.tag,
        inputs=source.inputs,
        shapes=source.shapes,
        batch=source.batch,
        warm_up_request=source.warm_up_request,
        steps=recording.steps,
        time_budget_s=recording.time_budget_s or DEFAULT_TIME_BUDGET_S,
        trust=recording.trust,
        mode=mode,
        before_placer=keeps_unplaced(request),
        import_path=os.getcwd() if identified.kind == "callable" or source.imports else None,
        imports=source.imports,
    )


def joined(static: Evidence, folder: Path, outcome: Outcome) -> Evidence:
    """Join what was read from the file and what the child recorded, however far it came.

    Raises
    ------
    UsageError
        When the child could not make the inputs: the message names the input and the flag.
    """
    if outcome.usage_error:
        raise UsageError(outcome.message)
    evidence = _recorded(static, folder)
    return evidence if outcome.ok else not_executed(evidence, outcome.message)


def _recorded(static: Evidence, folder: Path) -> Evidence:
    if not (folder / MANIFEST).exists():
        return static
    recorded = reading.evidence_of(reading.open_capture(folder))
    return replace(
        recorded,
        target=replace(recorded.target, path=static.target.path, digest=static.target.digest or recorded.target.digest),
        traced=static.traced or recorded.traced,
        notes=tuple(dict.fromkeys((*static.notes, *recorded.notes))),
        errors=(*static.errors, *recorded.errors),
    )


def not_executed(evidence: Evidence, message: str) -> Evidence:
    """Note that the recording failed; the child may have said so itself before it ended."""
    error = AnalysisError("execute", message)
    errors = evidence.errors if error in evidence.errors else (*evidence.errors, error)
    return replace(evidence, static_reason=None if evidence.profile else message, errors=errors)
