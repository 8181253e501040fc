"""What a command ends with: exit codes, the summary of an analysis, and messages of one line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphlens.errors import GraphLensError

if TYPE_CHECKING:
    from graphlens.pipeline.result import Analysis

OK, FINDINGS, USAGE, NOT_EXECUTED = 0, 1, 2, 3

EXIT_CODES: Final = """exit codes: 0 fine; 1 a finding at or above --fail-on stands; 2 wrong usage or unreadable target;
3 the model could not be executed (the static report is still written)"""


def one_line(message: str) -> str:
    """Put a message on one line, without what would steer a terminal: names in model files may hold anything."""
    return "".join(letter for letter in " ".join(message.split()) if letter.isprintable())


def summarized(analysis: Analysis, outputs: Sequence[str]) -> None:
    """Print the summary of an analysis whose reports were written to ``outputs``."""
    from graphlens.report.terminal import print_summary

    print_summary(analysis.document, outputs)


def exit_code(analysis: Analysis, fail_on: str | None) -> int:
    """Return the code of an analysis.

    A model that was to be executed and was not is reported before any finding is.
    """
    if analysis.execution_error:
        print(f"graphlens: {one_line(analysis.execution_error)}", file=sys.stderr)
        return NOT_EXECUTED
    return FINDINGS if fail_on and analysis.findings_at_or_above(fail_on) else OK


def not_written(refusals: Iterable[GraphLensError], code: int) -> int:
    """Say once each why outputs were not written; that a model was not executed, often the reason, counts for more."""
    messages = dict.fromkeys(one_line(str(error)) for error in refusals)
    for message in messages:
        print(f"graphlens: {message}", file=sys.stderr)
    return USAGE if messages and code != NOT_EXECUTED else code


def kept(run: Path | None) -> int:
    """Say where the profile was left; to have none although it was asked for is a failure."""
    if run is None:
        return OK
    if run.is_dir():
        print(run)
        return OK
    print("graphlens: no profile was recorded, so --keep-logdir left none", file=sys.stderr)
    return NOT_EXECUTED
