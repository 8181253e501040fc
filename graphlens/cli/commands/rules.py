"""``graphlens rules``: list the rules, or print the page of one."""

from __future__ import annotations

import argparse
from typing import Final

from graphlens.cli import outcome

SUMMARY: Final = "list the rules, or explain one"
PLACE: Final = 40


def add(parser: argparse.ArgumentParser) -> None:
    """Add the name of the rule that is to be explained."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="code or name of a rule")


def run(given: argparse.Namespace) -> int:
    """Print the list, or the page."""
    from graphlens import rules

    if given.name:
        print(rules.explain(rules.find(given.name)))
        return outcome.OK
    for item in rules.all_rules():
        print(f"{item.code}  {item.name:28} {item.summary}")
    return outcome.OK
