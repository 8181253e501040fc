"""The command line: find the commands, parse, run one, and turn errors into one line and an exit code.

A command is a module of ``graphlens.cli.commands``; one more file there is one more command.  Only the standard library
is imported before a command runs, so that ``graphlens --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, NoReturn, Protocol, cast

from graphlens._version import __version__
from graphlens.cli import commands, signals
from graphlens.cli.outcome import EXIT_CODES, OK, USAGE, one_line
from graphlens.errors import GraphLensError

OUT_OF_MEMORY: Final = (
    "this process may not use as much memory as the target needs (about 2 kB per op); allow it more (`ulimit -v`), or "
    "analyze a smaller signature"
)


class Command(Protocol):
    """What a module of ``graphlens.cli.commands`` has; it is called as its file is.

    Attributes
    ----------
    SUMMARY
        What it does, in half a line.
    PLACE
        Where it stands in the list of commands: they are shown by rising places.
    """

    SUMMARY: str
    PLACE: int

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return its exit code; what it needs is imported here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = parser().parse_args(arguments)
    try:
        with signals.cleaning_up_when_terminated():
            code: int = given.run(given)
        sys.stdout.flush()  # a reader that went away is noticed here at the latest, not when Python ends
    except GraphLensError as error:
        print(f"graphlens: {one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print(f"graphlens: {OUT_OF_MEMORY}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("graphlens: interrupted", file=sys.stderr)
        return 130
    except signals.Terminated:
        print("graphlens: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: not our error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line like all others; sub-commands are parsed by its class too."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"graphlens: {one_line(message)}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; what it parses has the chosen one's ``run``."""
    whole = _Parser(
        prog="graphlens",
        description="Where a TensorFlow step spends its time, why, and what would make it faster.",
        epilog=EXIT_CODES,
    )
    whole.add_argument("--version", action="version", version=f"graphlens {__version__}")
    one_of = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in sorted(_commands(), key=lambda item: item[1].PLACE):
        own = one_of.add_parser(name, help=command.SUMMARY, description=command.SUMMARY, epilog=EXIT_CODES)
        command.add(own)
        own.set_defaults(run=command.run)
    return whole


def _commands() -> Iterator[tuple[str, Command]]:
    for module in iter_modules(commands.__path__):
        yield module.name, cast(Command, import_module(f"{commands.__name__}.{module.name}"))
