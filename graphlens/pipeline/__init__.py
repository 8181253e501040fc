"""What the commands and the Python interface ask for: an analysis of a target or of a live program, or a recording.

What does the work is imported when there is some: a script is started before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphlens import workplace
from graphlens.config import Progress, Request, no_progress
from graphlens.errors import ExecutionError, UsageError

if TYPE_CHECKING:
    from graphlens.ir.dag import Stage
    from graphlens.pipeline.result import Analysis

CAPTURE_SUFFIX = ".capture"

__all__ = [
    "analyze",
    "analyze_live",
    "check_capture_file",
    "check_outputs",
    "check_stage",
    "demo",
    "record",
    "record_services",
]


def analyze(request: Request, progress: Progress = no_progress) -> Analysis:
    """Record the target of ``request`` if it has to be, judge it, and prove the fixes of what was found.

    Raises
    ------
    TargetError, UsageError, MissingDependencyError
        When there is nothing to judge.
    """
    from graphlens.pipeline import stages

    with stages.judged(request, progress) as known:
        return known.judged


def record(request: Request, output: str, progress: Progress = no_progress) -> None:
    """Record the target of ``request`` into one capture file that any machine can judge.

    Raises
    ------
    ExecutionError
        When the model could not be executed: a capture without a run is of no use.
    UsageError
        When the target is a recording already, or ``output`` cannot be written (said before any work is done).
    """
    from graphlens.loaders.capture import packing
    from graphlens.pipeline import stages
    from graphlens.pipeline.gather import gather

    check_capture_file(output)
    with gather(request.but(keep_unplaced=True), progress) as gathered:
        failures = [error.message for error in gathered.evidence.errors if error.stage == "execute"]
        if failures:
            raise ExecutionError(failures[0])
        if gathered.directory is None:
            raise UsageError(f"'{request.source.target}' is a recording already; `graphlens analyze` reads it")
        if gathered.loaded is not None:
            loaded = gathered.loaded
            packing.add_traced(gathered.directory, loaded.graph_def, loaded.graph.main)
        stages.keep_run(request, gathered.profiled)
        packing.write_capture(gathered.directory, output)


def record_services(
    request: Request, services: str, duration_s: float, output: str, progress: Progress = no_progress
) -> None:
    """Profile the programs behind ``services`` (``grpc://a:6009,grpc://b:6009``) at once, into one capture file.

    The graph of the target of ``request``, if it names one, is stored beside the profiles; it is never executed.

    Raises
    ------
    ExecutionError
        When one of them cannot be profiled, or none ran an op.
    UsageError, TargetError, MissingDependencyError
        When an address, the target or ``output`` cannot be used.
    """
    from graphlens.loaders.capture import packing
    from graphlens.pipeline import remote, stages

    check_capture_file(output)
    with remote.recorded(request, remote.addresses(services), duration_s, progress) as folder:
        stages.keep_run(request, folder)
        packing.write_capture(folder, output)


def analyze_live(
    function: Any,
    inputs: Any = None,
    *,
    steps: int,
    batch: int | None = None,
    time_budget_s: float | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Analysis:
    """Trace and measure a live callable in this process, and judge it."""
    from graphlens.loaders.capture import reading
    from graphlens.pipeline import stages
    from graphlens.pipeline.gather import Gathered
    from graphlens.tf.record import live

    with workplace.temporary() as folder:
        live.record_callable(function, inputs, folder, steps=steps, batch=batch, time_budget_s=time_budget_s)
        gathered = Gathered(reading.evidence_of(reading.open_capture(folder)), folder)
        request = Request.of("", steps=steps, batch=batch, time_budget_s=time_budget_s).but(
            select=tuple(select), ignore=tuple(ignore)
        )
        return stages.through(request, gathered, no_progress).judged


def demo(request: Request, progress: Progress = no_progress) -> Analysis:
    """Build the demo model where ``request`` has its target, in a child process and unless it is there; analyze it.

    It is kept, so that the commands in the report can be run.
    """
    from graphlens.pipeline.gather import NO_TENSORFLOW, has_tensorflow

    if not has_tensorflow():
        raise ExecutionError(NO_TENSORFLOW)
    model = Path(request.source.target)
    if not model.exists():
        progress("building the demo model", 0, 0)
        _build_demo(model.absolute())
    return analyze(request, progress)


def _build_demo(model: Path) -> None:
    from graphlens.children.messages import DemoRequest
    from graphlens.children.start import start

    with workplace.beside(model) as folder:
        child = start(folder, "graphlens.tf.demo")
        child.send(DemoRequest(str(folder / "model")))
        outcome = child.wait()
        if not outcome.ok:
            raise ExecutionError(f"the demo model could not be built: {outcome.message}")
        os.replace(folder / "model", model)


def check_outputs(paths: Iterable[str]) -> None:
    """Refuse an output that cannot be written before any work is done.

    Raises
    ------
    UsageError
        For a suffix without a report, a missing folder, or a folder in place of a file.
    """
    from graphlens import report

    for path in paths:
        report.reporter_for(path)
        _check_place(path)


def check_stage(request: Request, outputs: Iterable[str], stage: Stage | None) -> None:
    """Refuse a stage that is for no output, or that there will be no graph of, before any work is done.

    Raises
    ------
    UsageError
        When no output holds a graph, or what ran is asked for of a model that is not run.
    """
    if stage is None:
        return
    from graphlens import report

    if not any(map(report.holds_a_graph, outputs)):
        raise UsageError("--stage is for graphs; name a file that ends in .graphml, .gexf or .dot with -o")
    alone = request.recording.static and request.recording.profile is None
    if stage == "executed" and alone and not _is_recorded(request.source.target):
        raise UsageError("with --static nothing is executed, and there is no executed graph to write")


def _is_recorded(target: str) -> bool:
    from graphlens.loaders import sniff
    from graphlens.loaders.profile_files import PROFILE_KINDS

    return sniff.identify(target).kind in {*PROFILE_KINDS, "capture"}


def check_capture_file(path: str) -> None:
    """Refuse a file that is no name for a capture, or cannot be written, before any work is done."""
    if not path.endswith(CAPTURE_SUFFIX):
        raise UsageError(f"'{path}' is no name for a capture; end it in {CAPTURE_SUFFIX}")
    _check_place(path)


def _check_place(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"the folder of '{path}' does not exist; create it first")
    if os.path.isdir(path):
        raise UsageError(f"'{path}' is a folder; name a file in it")
