"""The arguments that set a request, made from the descriptions of its fields, and the request made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from graphlens.config import OPTIONS, Request
from graphlens.options import Option, WordError

RULES: Final = ("select", "ignore")
STAGES: Final = ("traced", "optimized", "executed")

_KEEP_LOGDIR: Final = (
    "also leave the profile in DIR/plugins/profile/RUN, where `tensorboard --logdir DIR` and `xprof --logdir DIR` "
    "open it"
)


def add(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Add the options of these fields of a request, with what is another ``help`` or ``nargs`` for this command."""
    for name in names:
        option = OPTIONS[name]
        described = {**_described(option), **changes}
        if option.flag:
            parser.add_argument(option.flag, dest=name, **described)
        else:
            parser.add_argument(name, **described)


def add_opening(parser: argparse.ArgumentParser, budget: str = OPTIONS["time_budget_s"].help) -> None:
    """Add how a model is opened, fed and run: what every command that executes one has."""
    add(parser, "signature", "tag", "imports", "inputs", "shapes", "batch", "warm_up_request", "steps")
    add(parser, "time_budget_s", help=budget)
    add(parser, "trust")


def _described(option: Option) -> dict[str, Any]:
    if option.sets is not None:
        return {"help": option.help, "action": "store_const", "const": option.sets}
    several = {"action": "append"} if option.several else {}
    return {"help": option.help, "metavar": option.metavar, "type": word(option.read), **several}


def word(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` as a parser wants it: what it says of a word that it does not take reaches the user."""

    def checked(text: str) -> Any:
        try:
            return read(text)
        except WordError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def add_keep_logdir(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves the profile for other tools, too."""
    parser.add_argument("--keep-logdir", metavar="DIR", help=_KEEP_LOGDIR)


def request_of(arguments: argparse.Namespace) -> Request:
    """Return the request that was typed; what was not, and what a command has no option for, is as it is by default."""
    typed = {name: value for name, value in vars(arguments).items() if name in OPTIONS and value is not None}
    values = {name: OPTIONS[name].join(value) if OPTIONS[name].several else value for name, value in typed.items()}
    return Request.of(**{"target": "", **values}).but(keep_run=_new_run(getattr(arguments, "keep_logdir", None)))


def _new_run(folder: str | None) -> Path | None:
    if folder is None:
        return None
    from graphlens.pipeline import logdir

    return logdir.new_run(folder)
