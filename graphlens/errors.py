"""Typed errors.  Each message is one line that names the culprit and says what to do next."""

from __future__ import annotations

import traceback
from pathlib import Path


class GraphLensError(Exception):
    """Base of all errors that are shown to the user as one line, without a traceback."""

    exit_code = 2


class UsageError(GraphLensError):
    """A flag or an argument does not fit; exit code 2."""


class TargetError(GraphLensError):
    """The target cannot be read, or is not what GraphLens reads; exit code 2."""


class MissingDependencyError(GraphLensError):
    """The work needs a package that is not installed, TensorFlow for instance; exit code 2."""


class ExecutionError(GraphLensError):
    """The model could not be executed; the static report is still written; exit code 3."""

    exit_code = 3


class RewriteError(GraphLensError):
    """An edit does not fit the graph, or would change what it computes; the message says why."""


# -- defects ---------------------------------------------------------------------------------------------------------


def in_words(error: BaseException) -> str:
    """Return what ``error`` is and where it was raised, for a report: ``KeyError: 'x' (facts/ledger.py:83)``.

    The place is a file in its folder, never a path of the machine.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


# -- other people's errors -------------------------------------------------------------------------------------------

_MOST_LETTERS = 300
# Headings and repetitions that TensorFlow puts around the message proper.
_EMPTY_WORDS = (
    "Graph execution error:",
    "<stack traces unavailable>",
    "Node:",
    "Detected at node",
    "Original stack trace",
    "Errors may have originated",
    "[Op:",  # which op it was called by, on a line of its own
    "Hint: If you want",  # to see allocations, which is for those who can change the program
)
_TRACE_FIRST = "in user code:"
_TRACES = ("File ", "[[", "{{", "Traceback", "node ", _TRACE_FIRST)


def first_line(error: BaseException) -> str:
    """Return the first line of ``error`` that is neither a heading nor a stack trace."""
    if str(error).startswith(_TRACE_FIRST):  # AutoGraph puts the trace first and the error last
        return _shortened(str(error).strip().splitlines()[-1].strip())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _shortened((_telling_lines(error) or lines or [type(error).__name__])[0])


def ends(error: BaseException) -> str:
    """Return the first line of ``error`` as ``first_line`` does, and the last one where that says something else."""
    first = first_line(error)
    last = _telling_lines(error)[-1:]
    if not last or first.startswith(_shortened(last[0])) or str(error).startswith(_TRACE_FIRST):
        return first
    return f"{first} … {_shortened(last[0])}"


def _telling_lines(error: BaseException) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(_EMPTY_WORDS + _TRACES)]


def _shortened(chosen: str) -> str:
    chosen = chosen.removesuffix(":")  # an exception without a message is its name and a colon
    return chosen if len(chosen) <= _MOST_LETTERS else chosen[: _MOST_LETTERS - 1] + "…"
