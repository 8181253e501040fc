"""``graphlens analyze``: judge a target, print the summary and write the reports."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from graphlens.cli import arguments, outcome, progress
from graphlens.errors import UsageError

if TYPE_CHECKING:
    from graphlens.ir.dag import Stage
    from graphlens.pipeline.result import Analysis

SUMMARY: Final = "execute a model, judge it, and write the report"
PLACE: Final = 10


def add(parser: argparse.ArgumentParser) -> None:
    """Add what may be asked of an analysis: all that a request holds, where reports go, and what makes it fail."""
    arguments.add(parser, "target")
    arguments.add_opening(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", action="append", default=[],
        help="write the report; the suffix picks the format (.html .json .txt), or the graph that is judged "
        "(.graphml .gexf .dot); may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--stage", choices=arguments.STAGES,
        help="which graph a .graphml, .gexf or .dot file holds (default: executed where there is one, else traced)",
    )  # fmt: skip
    arguments.add(parser, "static", "program", "profile", "assume_device", "prove", "rtol")
    arguments.add_keep_logdir(parser)
    arguments.add(parser, *arguments.RULES)
    parser.add_argument(
        "--fail-on", choices=("low", "medium", "high"), help="exit 1 when a finding at or above this severity stands"
    )


def run(given: argparse.Namespace) -> int:
    """Analyze, and return the code of what was found."""
    from graphlens import pipeline

    if given.keep_logdir and (given.static or given.profile):
        named = "--static" if given.static else "--profile"
        raise UsageError(f"with {named} nothing is recorded, and --keep-logdir has no profile to leave anywhere")
    request, outputs = arguments.request_of(given), given.output
    pipeline.check_outputs(outputs)
    pipeline.check_stage(request, outputs, given.stage)
    with progress.shown() as shown:
        analysis = pipeline.analyze(request, shown)
        refused = _saved(analysis, outputs, given.stage)
    outcome.summarized(analysis, [path for path in outputs if path not in refused])
    code = outcome.kept(request.recording.keep_run) or outcome.exit_code(analysis, given.fail_on)
    return outcome.not_written(refused.values(), code)


def _saved(analysis: Analysis, paths: Sequence[str], stage: Stage | None) -> dict[str, UsageError]:
    """Write what can be written, and return why the rest was not: what was measured is shown all the same."""
    refused = {}
    for path in paths:
        try:
            analysis.save(path, stage)
        except UsageError as error:
            refused[path] = error
    return refused
