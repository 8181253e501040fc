"""``graphlens demo``: build a small real model, and analyze it."""

from __future__ import annotations

import argparse
import os
from typing import Final

from graphlens.cli import arguments, outcome, progress

SUMMARY: Final = "build a small real model and analyze it"
PLACE: Final = 50


def add(parser: argparse.ArgumentParser) -> None:
    """Add where the report goes."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="graphlens-demo.html",
        help="the report to write; the model is kept beside it",
    )
    arguments.add(parser, "steps", help=argparse.SUPPRESS)


def run(given: argparse.Namespace) -> int:
    """Build the model unless it is there, analyze it, and say where the report is."""
    from graphlens import pipeline

    pipeline.check_outputs([given.output])
    with progress.shown() as shown:
        asked = arguments.request_of(given).but(target=f"{os.path.splitext(given.output)[0]}-model")
        analysis = pipeline.demo(asked, shown)
        analysis.save(given.output)
    outcome.summarized(analysis, [given.output])
    print(os.path.abspath(given.output))
    return outcome.exit_code(analysis, None)
