"""From a target to evidence: read what can be read without TensorFlow, and record the rest in a child process.

What only one kind of target needs is imported for it: a graph that is only read takes less time than all of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphlens import workplace
from graphlens.config import Progress, Request
from graphlens.errors import ExecutionError, MissingDependencyError, TargetError, UsageError
from graphlens.ir import unsafe
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.loaders import savedmodel, sniff
from graphlens.loaders.capture.parts import MANIFEST
from graphlens.loaders.profile_files import PROFILE_KINDS
from graphlens.loaders.savedmodel import LoadedModel

if TYPE_CHECKING:
    from graphlens.children.messages import RecordRequest

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
class Rerun:
    """A script that ran, and may be run again.

    Attributes
    ----------
    words
        The script and its arguments, or ``-m`` and a module.
    took_s
        How long it ran.
    why_not
        Why it is not to be run again; empty where that does no harm.
    does_again
        Whether it may do again what it did outside of its process before its steps.
    """

    words: tuple[str, ...]
    took_s: float
    why_not: str = ""
    does_again: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence, and where it came from.

    ``directory`` is the folder in which the recording left its parts, ``opened_as`` how a child was told to open the
    target; both are ``None`` when nothing was recorded.  ``capture`` is the target when that is a capture, ``rerun``
    how to run it again when it is a script.
    """

    evidence: Evidence
    directory: Path | None = None
    loaded: LoadedModel | None = None
    opened_as: RecordRequest | None = None
    capture: Path | None = None
    rerun: Rerun | None = None

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
        from graphlens.loaders.capture import reading

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
        from graphlens.pipeline import foreign

        yield Gathered(foreign.alone(foreign.read(identified, request.source.target)))
        return
    if identified.kind not in READABLE | TRACED_BY_TENSORFLOW | {"capture"}:
        raise TargetError(f"'{request.source.target}' is {NO_MODELS[identified.kind]}; GraphLens reads {sniff.READS}")
    if request.recording.profile is None:
        with _gathered(request, identified, progress) as gathered:
            yield gathered
        return
    from graphlens.pipeline import foreign

    profile = foreign.read(sniff.identify(request.recording.profile), request.recording.profile)
    with _gathered(request.but(static=True), identified, progress) as gathered:
        yield Gathered(foreign.joined(gathered.evidence, profile), loaded=gathered.loaded)


@contextmanager
def _gathered(request: Request, identified: sniff.Identified, progress: Progress) -> Iterator[Gathered]:
    """Yield the evidence about a model or a capture."""
    if identified.kind == "capture":
        from graphlens.loaders.capture import reading

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
    reason = STATIC_ASKED if request.recording.static else None if has_tensorflow() else NO_TENSORFLOW
    if reason is None:
        return _recorded_from_file(request, identified, folder, progress)
    progress("reading the graph", 0, 0)
    loaded = _load(request, identified, is_run=False)
    evidence = _static_evidence(request, identified, loaded, reason)
    failed = [] if request.recording.static else [AnalysisError("execute", NO_TENSORFLOW)]
    return Gathered(replace(evidence, errors=(*evidence.errors, *failed)), None, loaded)


def _recorded_from_file(request: Request, identified: sniff.Identified, folder: Path, progress: Progress) -> Gathered:
    """Read the graph while the child imports TensorFlow; let the child run it only when that is safe."""
    from graphlens.pipeline import recorder

    child = recorder.started(request, folder)
    try:
        progress("reading the graph", 0, 0)
        loaded = _load(request, identified, is_run=True)
        evidence = _static_evidence(request, identified, loaded, None)
        refusal = None if request.recording.trust else unsafe.refusal(loaded.judged.all_blockers())
        if refusal is not None:
            child.cancel()
            return Gathered(recorder.not_executed(evidence, refusal), None, loaded)
        asked = _request_for(loaded, request, identified)
        outcome = recorder.run(child, asked, progress)
        return Gathered(recorder.joined(evidence, folder, outcome), folder, loaded, asked)
    finally:
        child.cancel()


def _request_for(loaded: LoadedModel, request: Request, identified: sniff.Identified) -> RecordRequest:
    """Tell the child what was found out about the file, so that it opens the very same graph."""
    from graphlens.pipeline.recorder import child_request

    tag = ",".join(loaded.tags) if identified.kind == "saved_model" else None
    asked = child_request(request.but(signature=loaded.signature, tag=tag), identified, "record")
    return replace(asked, text=loaded.is_text, digest=loaded.digest, chosen=loaded.chosen)


def _load(request: Request, identified: sniff.Identified, *, is_run: bool) -> LoadedModel:
    source = request.source
    if identified.kind == "saved_model":
        return savedmodel.load_saved_model(identified.path, source.signature, source.tag, is_run=is_run)
    if identified.kind == "meta_graph":
        return savedmodel.load_meta_graph(identified.path, request.source.signature)
    return savedmodel.load_graph_def(identified.path)


def _static_evidence(
    request: Request, identified: sniff.Identified, loaded: LoadedModel, reason: str | None
) -> Evidence:
    return Evidence(
        target=Target(request.source.target, identified.kind, loaded.signature, loaded.digest, loaded.chosen),
        traced=loaded.graph,
        static_reason=reason,
        notes=loaded.notes,
    )


# -- a program that TensorFlow has to trace -----------------------------------------------------------------------


def _check_has_none(request: Request) -> None:
    """Refuse a signature or a tag of what has neither: what was meant is another target."""
    given = {"--signature": request.source.signature, "--tag": request.source.tag}
    named = next((flag for flag, value in given.items() if value is not None), None)
    if named is not None:
        raise UsageError(
            f"'{request.source.target}' has no signatures and tags: leave out {named}, or name a SavedModel"
        )


def _from_program(request: Request, identified: sniff.Identified, folder: Path, progress: Progress) -> Gathered:
    """A Keras file or a callable holds no graph yet: the child traces it, and runs it unless asked not to."""
    _check_has_none(request)
    if not has_tensorflow():
        raise MissingDependencyError(f"'{request.source.target}' has to be traced first: {NO_TENSORFLOW}")
    from graphlens.pipeline import recorder

    child = recorder.started(request, folder)
    try:
        asked = recorder.child_request(request, identified, "trace" if request.recording.static else "record")
        outcome = recorder.run(child, asked, progress)
        static = Evidence(Target(request.source.target, identified.kind, request.source.signature))
        evidence = recorder.joined(static, folder, outcome)
        if evidence.traced is None and not evidence.pipelines:
            raise ExecutionError(outcome.message or f"'{request.source.target}' could not be traced")
        if request.recording.static:
            return Gathered(replace(evidence, static_reason=STATIC_ASKED), folder)
        return Gathered(evidence, folder, opened_as=asked)
    finally:
        child.cancel()
