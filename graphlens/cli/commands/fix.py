"""``graphlens fix``: write a model with all fixes that were proven on it."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from graphlens.cli import arguments, outcome, progress
from graphlens.config import MODELS

SUMMARY: Final = "write the model with all fixes that were proven on it"
PLACE: Final = 30

EXIT_CODES: Final = """exit codes: 0 written; 1 nothing was written, since no fix was proven or measuring it once more
did not confirm it; 2 wrong usage or unreadable target; 3 the model could not be executed, or not be written with its
fixes"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add how the model is opened and run, where it is written, and which rules' fixes are applied."""
    parser.epilog = EXIT_CODES
    arguments.add(parser, "target", help=MODELS)
    arguments.add_opening(parser)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the SavedModel to write; must not exist")
    arguments.add(parser, "rtol")
    parser.add_argument(
        "--force", action="store_true", help="write the model although measuring it once more does not confirm the gain"
    )
    arguments.add(parser, *arguments.RULES)


def run(given: argparse.Namespace) -> int:
    """Write the model, and say what became of it, or why there is none."""
    from graphlens.cli.fixed import in_words
    from graphlens.pipeline import fixing

    with progress.shown() as shown:
        analysis, fixed = fixing.fix(arguments.request_of(given), given.output, shown, force=given.force)
    if fixed is not None:
        print("\n".join(in_words(fixed)))
    if fixed is not None and fixed.is_written:
        return outcome.OK
    if fixed is not None:
        print(f"graphlens: nothing was written: {outcome.one_line(fixing.why_not_kept(fixed))}", file=sys.stderr)
        return outcome.FINDINGS
    why = analysis.execution_error or fixing.why_nothing(analysis)
    if settings := fixing.settings_proven(fixing.proven(analysis)):
        why = f"what was proven is a setting and changes no graph; set for serving: {'; '.join(settings)}"
    print(f"graphlens: nothing was written: {outcome.one_line(why)}", file=sys.stderr)
    return outcome.NOT_EXECUTED if analysis.execution_error else outcome.FINDINGS
