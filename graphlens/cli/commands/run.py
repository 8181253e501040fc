"""``graphlens run``: run a training script as it is, and judge the steps that were recorded meanwhile."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from graphlens.cli import arguments, outcome, progress
from graphlens.errors import UsageError

if TYPE_CHECKING:
    from graphlens.config import Request
    from graphlens.pipeline.running import Ran

SUMMARY: Final = "run a training script unchanged, and judge its steps"
PLACE: Final = 15
_KILLED: Final = 128  # what a shell adds to the number of the signal that ended a program


def add(parser: argparse.ArgumentParser) -> None:
    """Add where reports go, what is judged, and the script with all that is its own."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", action="append", default=[],
        help="write the report when the script has ended; the suffix picks the format (.html .json .txt), the graph "
        "that is judged (.graphml .gexf .dot), or the recording (.capture); may be given several times",
    )  # fmt: skip
    arguments.add(parser, "steps", "program", *arguments.RULES)
    parser.add_argument(
        "--fail-on", choices=("low", "medium", "high"),
        help="exit 1 when the script went well and a finding at or above this severity stands",
    )  # fmt: skip
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="run a module, as python -m"
    )
    parser.add_argument("script", metavar="SCRIPT.py", nargs="?", help="the script, as it would be given to python")
    parser.add_argument("words", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="what the script is given")


def run(given: argparse.Namespace) -> int:
    """Run the script, judge what was recorded, and return the code with which the script ended."""
    from graphlens import pipeline
    from graphlens.pipeline import running

    words = _words(given)
    captures, outputs = _told_apart(given.output)
    pipeline.check_outputs(outputs)
    for capture in captures:
        pipeline.check_capture_file(capture)
    with progress.shown() as shown, running.run(_request(given, words), words, shown) as ran:
        return _reported(ran, outputs, captures, given.fail_on)


def _request(given: argparse.Namespace, words: list[str]) -> Request:
    given.target = words[1] if words[0] == "-m" else words[0]
    return arguments.request_of(given)


def _words(given: argparse.Namespace) -> list[str]:
    if given.module:
        return ["-m", *given.module]
    if not given.script:
        raise UsageError("name a script to run, or a module with -m")
    if not os.path.isfile(given.script):
        raise UsageError(f"'{given.script}' is no file; name the script as you would to python")
    return [given.script, *given.words]


def _told_apart(outputs: list[str]) -> tuple[list[str], list[str]]:
    captures = [path for path in outputs if path.endswith(".capture")]
    return captures, [path for path in outputs if path not in captures]


def _reported(ran: Ran, outputs: list[str], captures: list[str], fail_on: str | None) -> int:
    """Write what was asked for, and say so where the script does not write what it has to say."""
    code = ran.code if ran.code >= 0 else _KILLED - ran.code
    if ran.analysis is None:
        print(f"graphlens: {outcome.one_line(ran.why_not)}", file=sys.stderr)
        return code
    from graphlens.loaders.capture import packing
    from graphlens.report.terminal import print_summary

    for path in outputs:
        ran.analysis.save(path)
    for path in captures:
        assert ran.folder is not None
        packing.write_capture(ran.folder, path)
    print_summary(ran.analysis.document, [*outputs, *captures], sys.stderr)
    return code or outcome.exit_code(ran.analysis, fail_on)
