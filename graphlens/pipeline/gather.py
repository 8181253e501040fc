"""From a target to evidence: read what can be read without TensorFlow, and record the rest in a child process."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from graphlens import workplace
from graphlens.children.messages import RecordRequest
from graphlens.children.recorder import start_recorder
from graphlens.children.start import Child, Outcome
from graphlens.config import DEFAULT_TIME_BUDGET_S, Progress, Request
from graphlens.errors import ExecutionError, MissingDependencyError, TargetError, UsageError
from graphlens.ir import unsafe
from graphlens.ir.analysis import AnalysisError, Target
from graphlens.ir.evidence import Evidence
from graphlens.loaders import savedmodel, sniff
from graphlens.loaders.capture import reading
from graphlens.loaders.capture.parts import MANIFEST
from graphlens.loaders.profiles import PROFILE_KINDS
from graphlens.loaders.savedmodel import LoadedModel
from graphlens.pipeline import foreign

# Targets whose graph stands in a file; the others have to be traced by TensorFlow first.
READABLE: Final = frozenset({"saved_model", "graph_def", "meta_graph"})
TRACED_BY_TENSORFLOW: Final = frozenset({"keras", "callable"})

# What can be told apart, and is no model.
NO_MODELS: Final = {
    "analysis": "an analysis already; graphlens.load() reads it",
    "script": "a Python script; name a function of it as module:callable",
}

NO_TENSORFLOW: Final = "TensorFlow is not installed here; install it with: pip install 'graphlens-tf[cpu]'"
STATIC_ASKED: Final = "--static was given"


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence, and where it came from.

    ``directory`` is the folder in which the recording left its parts, ``opened_as`` how a child was told to open the
    target; both are ``None`` when nothing was recorded.  ``capture`` is the target when that is a capture.
    """

    evidence: Evidence
    directory: Path | None = None
    loaded: LoadedModel | None = None
    opened_as: RecordRequest | None = None
    capture: Path | None = None

    @property
    def profiled(self) -> Path | None:
        """The capture that holds the profile, a folder or a file; ``None`` when there is no profile."""
        return (self.directory or self.capture) if self.evidence.profile else None

    def part(self, name: str) -> bytes | None:
        """Return an optional part of what was recorded of the main program, ``None`` where there is none."""
        place = self.capture or self.directory
        if place is None or not self.evidence.is_about_main:
            return None
        if self.capture is None and not (place / MANIFEST).exists():
            return None
        capture = reading.open_capture(place)
        return capture.part(name) if name in capture.names else None


@contextmanager
def gather(request: Request, progress: Progress) -> Iterator[Gathered]:
    """Yield the evidence about the target of ``request``; the recorder's folder lives as long as the context.

    Raises
    ------
    TargetError, UsageError
        When the target cannot be read at all, or an input cannot be made.
    """
    identified = sniff.identify(request.source.target)
    _check_inputs(request)
    if identified.kind in PROFILE_KINDS:
        if request.recording.profile is not None:
            raise UsageError(f"'{request.source.target}' is a profile itself; --profile is for a model or a capture")
        yield Gathered(foreign.alone(foreign.read(identified, request.source.target)))
        return
    if identified.kind not in READABLE | TRACED_BY_TENSORFLOW | {"capture"}:
        raise TargetError(f"'{request.source.target}' is {NO_MODELS[identified.kind]}; GraphLens reads {sniff.READS}")
    if request.recording.profile is None:
        with _gathered(request, identified, progress) as gathered:
            yield gathered
        return
    profile = foreign.read(sniff.identify(request.recording.profile), request.recording.profile)
    with _gathered(request.but(static=True), identified, progress) as gathered:
        yield Gathered(foreign.joined(gathered.evidence, profile), loaded=gathered.loaded)


@contextmanager
def _gathered(request: Request, identified: sniff.Identified, progress: Progress) -> Iterator[Gathered]:
    """Yield the evidence about a model or a capture."""
    if identified.kind == "capture":
        yield Gathered(reading.evidence_of(reading.open_capture(identified.path)), capture=identified.path)
        return
    with workplace.temporary() as folder:
        if identified.kind in READABLE:
            yield _from_file(request, identified, folder, progress)
        else:
            yield _from_program(request, identified, folder, progress)


def _check_inputs(request: Request) -> None:
    """Refuse arrays that cannot be read before TensorFlow is started for them."""
    if request.source.inputs is not None:
        from graphlens.loaders.arrays import read_npz

        read_npz(Path(request.source.inputs))


def has_tensorflow() -> bool:
    """Tell whether TensorFlow can be imported, without importing it."""
    return importlib.util.find_spec("tensorflow") is not None


# -- a graph in a file --------------------------------------------------------------------------------------------


def _from_file(request: Request, identified: sniff.Identified, folder: Path, progress: Progress) -> Gathered:
    """Read the graph while the child imports TensorFlow; let the child run it only when that is safe and asked for."""
    reason = STATIC_ASKED if request.recording.static else None if has_tensorflow() else NO_TENSORFLOW
    child = None if reason else _started(request, folder)
    try:
        progress("reading the graph", 0, 0)
        loaded = _load(request, identified)
        evidence = _static_evidence(request, identified, loaded, reason)
        refusal = None if reason or request.recording.trust else unsafe.refusal(loaded.judged.all_blockers())
        if child is None:
            failed = [] if request.recording.static else [AnalysisError("execute", NO_TENSORFLOW)]
            return Gathered(replace(evidence, errors=(*evidence.errors, *failed)), None, loaded)
        if refusal is not None:
            child.cancel()
            return Gathered(_not_executed(evidence, refusal), None, loaded)
        asked = _request_for(loaded, request, identified)
        outcome = _run(child, asked, progress)
        return Gathered(_joined(evidence, folder, outcome), folder, loaded, asked)
    finally:
        if child is not None:
            child.cancel()


def _request_for(loaded: LoadedModel, request: Request, identified: sniff.Identified) -> RecordRequest:
    """Tell the child what was found out about the file, so that it opens the very same graph."""
    tag = ",".join(loaded.tags) if identified.kind == "saved_model" else None
    asked = child_request(request.but(signature=loaded.signature, tag=tag), identified, "record")
    return replace(asked, text=loaded.is_text, digest=loaded.digest)


def _load(request: Request, identified: sniff.Identified) -> LoadedModel:
    if identified.kind == "saved_model":
        return savedmodel.load_saved_model(identified.path, request.source.signature, request.source.tag)
    if identified.kind == "meta_graph":
        return savedmodel.load_meta_graph(identified.path, request.source.signature)
    return savedmodel.load_graph_def(identified.path)


def _static_evidence(
    request: Request, identified: sniff.Identified, loaded: LoadedModel, reason: str | None
) -> Evidence:
    return Evidence(
        target=Target(request.source.target, identified.kind, loaded.signature, loaded.digest),
        traced=loaded.graph,
        static_reason=reason,
        notes=loaded.notes,
    )


# -- a program that TensorFlow has to trace -----------------------------------------------------------------------


def _from_program(request: Request, identified: sniff.Identified, folder: Path, progress: Progress) -> Gathered:
    """A Keras file or a callable holds no graph yet: the child traces it, and runs it unless asked not to."""
    if not has_tensorflow():
        raise MissingDependencyError(f"'{request.source.target}' has to be traced first: {NO_TENSORFLOW}")
    child = _started(request, folder)
    try:
        asked = child_request(request, identified, "trace" if request.recording.static else "record")
        outcome = _run(child, asked, progress)
        static = Evidence(Target(request.source.target, identified.kind, request.source.signature))
        evidence = _joined(static, folder, outcome)
        if evidence.traced is None:
            raise ExecutionError(outcome.message or f"'{request.source.target}' could not be traced")
        if request.recording.static:
            return Gathered(replace(evidence, static_reason=STATIC_ASKED), folder)
        return Gathered(evidence, folder, opened_as=asked)
    finally:
        child.cancel()


# -- the child ----------------------------------------------------------------------------------------------------


def _run(child: Child, asked: RecordRequest, progress: Progress) -> Outcome:
    child.send(asked)
    _import_what_comes_next()
    return child.wait(progress, asked.time_budget_s)


def _import_what_comes_next() -> None:
    """Import what judging and reporting need while the child is at work, rather than after it."""
    import rich.console  # noqa: F401

    from graphlens import rules
    from graphlens.report import html, terminal  # noqa: F401

    rules.all_rules()


def _started(request: Request, folder: Path) -> Child:
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
        steps=recording.steps,
        time_budget_s=recording.time_budget_s or DEFAULT_TIME_BUDGET_S,
        trust=recording.trust,
        mode=mode,
        before_placer=keeps_unplaced(request),
        import_path=os.getcwd() if identified.kind == "callable" else None,
    )


def _joined(static: Evidence, folder: Path, outcome: Outcome) -> Evidence:
    """Join what was read from the file and what the child recorded, however far it came.

    Raises
    ------
    UsageError
        When the child could not make the inputs: the message names the input and the flag.
    """
    if outcome.usage_error:
        raise UsageError(outcome.message)
    evidence = _recorded(static, folder)
    return evidence if outcome.ok else _not_executed(evidence, outcome.message)


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


def _not_executed(evidence: Evidence, message: str) -> Evidence:
    """Note that the recording failed; the child may have said so itself before it ended."""
    error = AnalysisError("execute", message)
    errors = evidence.errors if error in evidence.errors else (*evidence.errors, error)
    return replace(evidence, static_reason=None if evidence.profile else message, errors=errors)
