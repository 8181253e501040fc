"""``graphlens run``: run a training script as it is, and judge the steps that were recorded meanwhile."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from graphlens.cli import arguments, outcome, progress
from graphlens.config import DEFAULT_RERUN_BUDGET_S, OPTIONS
from graphlens.errors import GraphLensError, UsageError

if TYPE_CHECKING:
    from graphlens.config import Request
    from graphlens.pipeline.result import Analysis
    from graphlens.pipeline.running import Ran

SUMMARY: Final = "run a training script unchanged, and judge its steps"
PLACE: Final = 15
_KILLED: Final = 128  # what a shell adds to the number of the signal that ended a program
_BUDGET: Final = f"spend at most S seconds on proofs (default {DEFAULT_RERUN_BUDGET_S:.0f}); the script has its time"

# Options of ``analyze`` that a script has no use for, and why.
_REFUSED: Final = {
    **dict.fromkeys(("signature", "tag"), "a script has no signatures and tags; --program names one of its programs"),
    **dict.fromkeys(("inputs", "shapes", "batch", "warm_up_request"), "a script feeds itself"),
    "imports": "a script imports what it needs",
    "trust": "a script is run as it is",
    "static": "a script has no graph before it runs; analyze a model or module:callable",
    "profile": "a script is recorded while it runs; analyze the profile itself",
    "assume_device": "what a script runs is placed already; analyze a model or module:callable",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add where reports go, what is judged, and the script with all that is its own."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", action="append", default=[],
        help="write the report when the script has ended; the suffix picks the format (.html .json .txt), the graph "
        "that is judged (.graphml .gexf .dot), or the recording (.capture); may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--stage", choices=arguments.STAGES,
        help="which graph a .graphml, .gexf or .dot file holds (default: executed where there is one, else traced)",
    )  # fmt: skip
    arguments.add(parser, "steps")
    parser.add_argument(
        "--stop-after-profile", action="store_true",
        help="end the script once its steps were recorded, as if it had called sys.exit(0) there",
    )  # fmt: skip
    parser.add_argument(
        "--rerun", action="store_true",
        help="run the script again to have fixes proven, although it writes files, connects or starts programs first",
    )  # fmt: skip
    arguments.add(parser, "time_budget_s", help=_BUDGET)
    arguments.add(parser, "program", "prove", "rtol", "tries")
    arguments.add_keep_logdir(parser)
    arguments.add(parser, *arguments.RULES)
    parser.add_argument(
        "--fail-on", choices=("low", "medium", "high"),
        help="exit 1 when the script went well and a finding at or above this severity stands",
    )  # fmt: skip
    arguments.add(parser, *_REFUSED, help=argparse.SUPPRESS)
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="run a module, as python -m"
    )
    parser.add_argument("script", metavar="SCRIPT.py", nargs="?", help="the script, as it would be given to python")
    parser.add_argument("words", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="what the script is given")


def run(given: argparse.Namespace) -> int:
    """Run the script, judge what was recorded, and return the code with which the script ended."""
    from graphlens import pipeline
    from graphlens.pipeline import running

    _refuse(given)
    words = _words(given)
    captures, outputs = _told_apart(given.output)
    request = _request(given, words)
    pipeline.check_outputs(outputs)
    pipeline.check_stage(request, outputs, given.stage)
    for capture in captures:
        pipeline.check_capture_file(capture)
    with (
        progress.shown() as shown,
        running.run(request, words, shown, stops=given.stop_after_profile, reruns=given.rerun) as ran,
    ):
        return _reported(ran, request, given)


def _refuse(given: argparse.Namespace) -> None:
    for name, why in _REFUSED.items():
        if getattr(given, name) is not None:
            raise UsageError(f"{OPTIONS[name].flag} is not for scripts: {why}")
    _refuse_tries(given)


def _refuse_tries(given: argparse.Namespace) -> None:
    if given.tries and given.prove is False:
        raise UsageError("--try has a change measured, and --no-prove has nothing measured; leave one of them out")


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


def _reported(ran: Ran, request: Request, given: argparse.Namespace) -> int:
    """Write what was asked for, and say so where the script does not write what it has to say."""
    code = ran.code if ran.code >= 0 else _KILLED - ran.code
    if ran.analysis is None:
        print(f"graphlens: {outcome.one_line(ran.why_not)}", file=sys.stderr)
        return code
    from graphlens.report.terminal import print_summary

    refused = _written(ran, ran.analysis, given)
    kept = request.recording.keep_run
    written = [*(path for path in given.output if path not in refused), *([str(kept)] if kept else [])]
    print_summary(ran.analysis.document, written, sys.stderr)
    own = outcome.not_written(refused.values(), outcome.exit_code(ran.analysis, given.fail_on))
    return code or own


def _written(ran: Ran, analysis: Analysis, given: argparse.Namespace) -> dict[str, GraphLensError]:
    """Write what can be written, and return why the rest was not."""
    from graphlens.loaders.capture import packing

    captures, reports = _told_apart(given.output)
    writes: dict[str, Callable[[str], None]] = {
        **dict.fromkeys(reports, lambda path: analysis.save(path, given.stage)),
        **dict.fromkeys(captures, lambda path: packing.write_capture(ran.place, path)),
    }
    refused: dict[str, GraphLensError] = {}
    for path, write in writes.items():
        try:
            write(path)
        except GraphLensError as error:
            refused[path] = error
    return refused
