"""The recording child process: it records one target, as one JSON request on stdin asks for.

TensorFlow is imported before the request is read, so that the parent can start the child early and use the seconds
that the import takes.  Standard output is the progress channel; whatever the user's program prints goes to stderr.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphlens.children.channel import Emit, reserve_stdout
from graphlens.children.start import RECORDED, XLA_DUMP
from graphlens.config import DEFAULT_STEPS
from graphlens.errors import ExecutionError, GraphLensError
from graphlens.tf.errors import first_line
from graphlens.tf.importing import import_tensorflow

# The parent ends the child when the budget is spent; the child plans to be done earlier than that.
OWN_SHARE_OF_BUDGET = 0.85


def main(arguments: list[str]) -> int:
    """Serve one request; returns the exit code: 0 done or cancelled, 2 wrong usage, 3 could not be executed."""
    directory = Path(arguments[0])
    emit = reserve_stdout()
    failure = import_tensorflow()
    line = sys.stdin.readline()
    if not line.strip():
        return 0  # the parent closed stdin: nothing to do after all
    request = json.loads(line)
    if failure is not None:
        return _fail(emit, failure)
    return serve(request, directory, emit)


def serve(request: dict[str, Any], directory: Path, emit: Emit) -> int:
    """Record what ``request`` asks for into ``directory``."""
    from graphlens.loaders.capture.writing import CaptureDirectory

    target = {key: request.get(key) for key in ("kind", "signature", "digest")}
    target["path"] = request.get("shown_as") or request["target"]
    capture = CaptureDirectory(directory, target, bool(request.get("trust")))
    try:
        _run(request, capture, emit)
    except GraphLensError as error:
        capture.fail("execute" if isinstance(error, ExecutionError) else "usage", str(error))
        return _fail(emit, error)
    except Exception as error:  # the last line of defence: the parent shows one line, stderr.txt has the rest
        traceback.print_exc()
        failure = ExecutionError(f"recording failed: {type(error).__name__}: {first_line(error)}")
        capture.fail("execute", str(failure))
        return _fail(emit, failure)
    emit({"progress": RECORDED, "done": 1, "of": 1})
    return 0


def _run(request: dict[str, Any], capture: Any, emit: Emit) -> None:
    from graphlens.tf.record import measure

    plan = plan_of(request, capture.path)
    emit({"progress": "loading", "done": 0, "of": 1})
    start = time.monotonic()
    opened = open_requested(request)
    capture.finish("load", time.monotonic() - start)
    if request.get("mode") == "trace":
        measure.trace(opened, plan, capture)
        capture.save()
        return
    measure.record(opened, plan, capture, lambda what, done, of: emit({"progress": what, "done": done, "of": of}))
    capture.save()


def open_requested(request: dict[str, Any]) -> Any:
    """Open the target of a request."""
    from graphlens.tf.open import targets

    if request.get("import_path"):
        sys.path.insert(0, request["import_path"])
    return targets.open_target(
        request["target"],
        request["kind"],
        request.get("signature"),
        request.get("tag"),
        trust=bool(request.get("trust")),
        text=bool(request.get("text")),
    )


def plan_of(request: dict[str, Any], directory: Path) -> Any:
    """Return the measurement that a request asks for."""
    from graphlens.tf.open import inputs
    from graphlens.tf.record import measure

    budget_s = request.get("time_budget_s")
    return measure.Plan(
        steps=request.get("steps") or DEFAULT_STEPS,
        shapes={name: tuple(shape) for name, shape in (request.get("shapes") or {}).items()},
        batch=request.get("batch"),
        arrays=inputs.read_npz(Path(request["inputs"])) if request.get("inputs") else {},
        deadline_s=None if budget_s is None else time.monotonic() + OWN_SHARE_OF_BUDGET * budget_s,
        refuse=_refusal(request),
        xla_dump=directory / XLA_DUMP,
        before_placer=bool(request.get("before_placer")),
    )


def _refusal(request: dict[str, Any]) -> Callable[[Any], str | None]:
    """Return what says why a graph must not run.

    The parent has judged the file; what TensorFlow made of it may be something else. A callable is the user's own code.
    """
    if request.get("trust") or request["kind"] == "callable":
        return lambda _: None
    from graphlens.tf.record import safety

    return safety.refusal


def _fail(emit: Emit, error: GraphLensError) -> int:
    emit({"error": str(error), "exit": error.exit_code})
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
