"""``graphlens record``: keep the evidence about a model, or about programs that run elsewhere, in one file."""

from __future__ import annotations

import argparse
from typing import Final

from graphlens import options
from graphlens.cli import arguments, outcome, progress
from graphlens.config import DEFAULT_SERVICE_DURATION_S, GIVE_UP, MODELS
from graphlens.errors import UsageError

SUMMARY: Final = "execute a model, or profile programs that run elsewhere, and keep the evidence in one file"
PLACE: Final = 20


def add(parser: argparse.ArgumentParser) -> None:
    """Add how the target is opened and run, and which programs are profiled instead."""
    arguments.add(parser, "target", nargs="?", help=MODELS)
    arguments.add_opening(parser, GIVE_UP)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the capture to write (.capture)")
    parser.add_argument(
        "--service", metavar="grpc://HOST:PORT,...",
        help="execute nothing here: profile the running programs that have called "
        "tf.profiler.experimental.server.start(PORT), all at once; TARGET, if given, is the model that they run, "
        "and its graph is stored too",
    )  # fmt: skip
    parser.add_argument(
        "--duration", metavar="S", type=arguments.word(options.seconds),
        help=f"profile the services for S seconds (default {DEFAULT_SERVICE_DURATION_S:g})",
    )  # fmt: skip
    arguments.add_keep_logdir(parser)


def run(given: argparse.Namespace) -> int:
    """Record, and say where."""
    from graphlens import pipeline

    _check(given)
    request = arguments.request_of(given)
    with progress.shown() as shown:
        if given.service:
            duration_s = given.duration or DEFAULT_SERVICE_DURATION_S
            pipeline.record_services(request, given.service, duration_s, given.output, shown)
        else:
            pipeline.record(request, given.output, shown)
    print(given.output)
    return outcome.kept(request.recording.keep_run)


def _check(given: argparse.Namespace) -> None:
    if not given.target and given.service is None:
        raise UsageError("name a TARGET to execute, or with --service the programs to profile")
    if given.duration and given.service is None:
        raise UsageError("--duration is for --service; --steps says how many steps of a TARGET are profiled")
