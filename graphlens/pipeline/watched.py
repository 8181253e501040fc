"""What was recorded of a program that somebody else ran, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from graphlens.collector import collector_paused
from graphlens.config import Progress, Request
from graphlens.errors import TargetError
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.ir.script import UNSUPPORTED
from graphlens.loaders.capture import reading
from graphlens.pipeline import stages
from graphlens.pipeline.gather import Gathered, Rerun
from graphlens.pipeline.result import Analysis

NEVER_STEADY: Final = (
    "the script ended before anything was called often enough to be recorded (a few times without tracing)"
)
CUT_OFF: Final = (
    "the script was killed, or ended itself with os._exit, before a recording was complete: there is nothing to judge"
)


def judged(
    request: Request,
    folder: Path,
    progress: Progress,
    never_steady: str,
    *,
    rerun: Rerun | None = None,
    is_needed: bool = True,
) -> Analysis:
    """Judge the recording in ``folder``.

    Parameters
    ----------
    never_steady
        What is said where nothing was called often enough to be recorded.
    rerun
        How the program is run again; ``None`` where it cannot be.
    is_needed
        Whether there is nothing to judge where nothing was recorded; else what was called is judged all the same.

    Raises
    ------
    TargetError
        When there is nothing to judge.
    """
    with collector_paused():
        evidence = reading.evidence_of(reading.open_capture(folder))
        if evidence.profile is None:
            why = _why_nothing_was_recorded(evidence) or never_steady
            if is_needed or evidence.script is None:
                raise TargetError(why)
            told = any(error.message == why for error in evidence.errors)
            errors = evidence.errors if told else (*evidence.errors, AnalysisError("profile", why))
            evidence = replace(evidence, static_reason=why, errors=errors)
        return stages.through(request, Gathered(evidence, folder, rerun=rerun), progress).judged


def noted_failure(folder: Path) -> str:
    """Return what a library does not support, or why nothing could be watched, where that ended it; else nothing."""
    noted = folder / UNSUPPORTED
    return noted.read_text("utf-8", "replace") if noted.exists() else ""


def _why_nothing_was_recorded(evidence: Evidence) -> str | None:
    """Return why there is no profile of a program that was watched, ``None`` where it was never steady."""
    failed = (error.message for error in evidence.errors if error.stage == "profile")
    # What it called is written down with each recording, and when it ends.
    return next(failed, CUT_OFF if evidence.script is None else None)
