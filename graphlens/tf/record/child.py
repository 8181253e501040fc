"""The recording child process: it records one target, as a ``RecordRequest`` asks for.

TensorFlow is imported before the request is read, so that the parent can start the child early and use the seconds
that the import takes.  Standard output is the progress channel; whatever the user's program prints goes to stderr.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphlens.children.channel import carry_out, fail, requests, reserve_stdout
from graphlens.children.messages import Emit, Progress, RecordRequest
from graphlens.children.start import XLA_DUMP
from graphlens.config import DEFAULT_STEPS
from graphlens.errors import ExecutionError, GraphLensError, first_line
from graphlens.ir.capture import CapturedTarget
from graphlens.loaders.arrays import read_npz
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf.importing import import_tensorflow

# The parent ends the child when the budget is spent; the child plans to be done earlier than that.
OWN_SHARE_OF_BUDGET = 0.85


def main(arguments: list[str]) -> int:
    """Serve one request; returns the exit code: 0 done or cancelled, 2 wrong usage, 3 could not be executed."""
    emit = reserve_stdout()
    failure = import_tensorflow()
    for request in requests(RecordRequest):
        return serve(request, Path(arguments[0]), emit) if failure is None else fail(failure, emit)
    return 0  # the parent closed stdin: nothing to do after all


def serve(request: RecordRequest, directory: Path, emit: Emit) -> int:
    """Record what ``request`` asks for into ``directory``; returns the exit code."""
    target = CapturedTarget(
        request.shown_as or request.target, request.kind, request.signature, request.digest, request.chosen
    )
    capture = CaptureDirectory(directory, target, request.trust)
    return carry_out(lambda: _recorded(request, capture, emit), emit)


def _recorded(request: RecordRequest, capture: CaptureDirectory, emit: Emit) -> None:
    """Record, and note in the capture what could not be."""
    try:
        _run(request, capture, emit)
    except GraphLensError as error:
        capture.fail("execute" if isinstance(error, ExecutionError) else "usage", str(error))
        raise
    except Exception as error:  # the user's program throws anything: one line is shown, the log has the rest
        traceback.print_exc()
        failure = ExecutionError(f"recording failed: {type(error).__name__}: {first_line(error)}")
        capture.fail("execute", str(failure))
        raise failure from error


def _run(request: RecordRequest, capture: CaptureDirectory, emit: Emit) -> None:
    from graphlens.ir.pipelines import DATASET
    from graphlens.tf.record import datasets, measure, preparing

    plan = plan_of(request, capture.path)
    emit(Progress("loading"))
    with capture.stage("load"):
        opened = open_requested(request)
    if opened.kind == DATASET:
        datasets.record(opened, plan, capture, lambda what, done, of: emit(Progress(what, done, of)), request.mode)
    elif request.mode == "trace":
        preparing.trace(opened, plan, capture)
    else:
        measure.record(opened, plan, capture, lambda what, done, of: emit(Progress(what, done, of)))
    capture.save()


def open_requested(request: RecordRequest) -> Any:
    """Open the target of a request."""
    from graphlens.tf.datasets import creation
    from graphlens.tf.open import targets

    prepare_imports(request)
    if request.kind == "callable":
        creation.watch()
    opened = targets.open_target(
        request.target, request.kind, request.signature, request.tag, trust=request.trust, text=request.text
    )
    if request.kind != "saved_model":
        return opened
    from graphlens.tf.open import warm_up

    return warm_up.with_request(opened, Path(request.target), request.warm_up_request)


def prepare_imports(request: RecordRequest) -> None:
    """Let Python find what the request names, and import what it wants imported.

    Raises
    ------
    UsageError
        If that cannot be done.
    """
    from graphlens.tf.open import failures

    if request.import_path and request.import_path not in sys.path:
        # What is installed comes before what lies beside a model's file, and after the user's own program.
        sys.path.insert(0 if request.kind == "callable" else len(sys.path), request.import_path)
    failures.import_named(request.imports)


def plan_of(request: RecordRequest, directory: Path) -> Any:
    """Return the measurement that a request asks for."""
    from graphlens.tf.record import preparing

    budget_s = request.time_budget_s
    return preparing.Plan(
        steps=request.steps or DEFAULT_STEPS,
        shapes=request.shapes,
        batch=request.batch,
        arrays=read_npz(Path(request.inputs)) if request.inputs else {},
        deadline_s=None if budget_s is None else time.monotonic() + OWN_SHARE_OF_BUDGET * budget_s,
        refuse=_refusal(request),
        xla_dump=directory / XLA_DUMP,
        before_placer=request.before_placer,
    )


def _refusal(request: RecordRequest) -> Callable[[Any], str | None]:
    """Return what says why a graph must not run.

    The parent has judged the file; what TensorFlow made of it may be something else. A callable is the user's own code.
    """
    if request.trust or request.kind == "callable":
        return lambda _: None
    from graphlens.tf.record import safety

    return safety.refusal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
