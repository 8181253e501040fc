"""Record a live object in this process, into the same capture directory as the child would."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from graphlens.config import DEFAULT_STEPS
from graphlens.errors import GraphLensError
from graphlens.ir.capture import CapturedTarget
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf.open import callables
from graphlens.tf.record import measure
from graphlens.tf.record.preparing import Plan


def record_callable(
    function: Any,
    inputs: Any,
    directory: Path,
    *,
    steps: int = DEFAULT_STEPS,
    batch: int | None = None,
    time_budget_s: float | None = None,
    name: str | None = None,
) -> Path:
    """Trace and measure ``function`` (a ``tf.function``, ``ConcreteFunction``, Keras model or plain function).

    Parameters
    ----------
    function
        What a step calls.
    inputs
        Its arguments: a tuple, a mapping of keywords, or one tensor; ``None`` makes them from its own signature.
    directory
        Where the capture's parts are written.

    Returns
    -------
    Path
        ``directory``.

    Raises
    ------
    GraphLensError
        If the function cannot be traced or run; the directory then holds what there is.
    """
    capture = CaptureDirectory(Path(directory), CapturedTarget(name or _label(function), "callable"))
    deadline_s = None if time_budget_s is None else time.monotonic() + time_budget_s
    plan = Plan(steps=steps, batch=batch, deadline_s=deadline_s)
    try:
        measure.record(callables.open_object(function, inputs), plan, capture, _silent)
    except GraphLensError as error:
        capture.fail("execute", str(error))
        raise
    capture.save()
    return capture.path


def _label(function: Any) -> str:
    names = (getattr(function, attribute, None) for attribute in ("__name__", "name"))
    return next((name for name in names if isinstance(name, str)), type(function).__name__)


def _silent(_what: str, _done: int, _of: int) -> None:
    """Live recordings show no progress of their own."""
