"""What the site shows that is written elsewhere: the README, the rules' docstrings, the parser's options.

mkdocs calls ``on_config`` and ``on_files`` (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphlens import cli, rules
from graphlens.cli.outcome import EXIT_CODES
from graphlens.rules.registry import Rule

REPOSITORY = Path(__file__).parents[1]
COPIED = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}

# How files of the repository are linked from the README, and what they are on the site.
MOVED = {"docs/": "", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
EXAMPLES = {"bad": "Found", "good": "Not found"}


def on_config(config: Any) -> Any:
    """Put every rule into the navigation, by its code."""
    own = [{f"{rule.code} {rule.name}": page_of(rule)} for rule in rules.all_rules()]
    config["nav"] = [
        {"Rules": [{"All rules": "rules/index.md"}, *own]} if "Rules" in item else item for item in config["nav"]
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here to those of the folder."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return every page that is made here, by its path on the site."""
    copied = {path: moved((REPOSITORY / source).read_text("utf-8")) for path, source in COPIED.items()}
    own = {page_of(rule): rule_page(rule) for rule in rules.all_rules()}
    return {**copied, **own, "rules/index.md": rule_list(), "command-line.md": command_line()}


def moved(text: str) -> str:
    """Return a page of the repository with its links as they are on the site."""
    for before, after in MOVED.items():
        text = text.replace(f"]({before}", f"]({after}")
    return text


# -- rules --------------------------------------------------------------------------------------------------------


def page_of(rule: Rule) -> str:
    """Return the path of a rule's page."""
    return f"rules/{rule.code}.md"


def rule_page(rule: Rule) -> str:
    """Return the page that `graphlens rules CODE` prints, its examples told apart."""
    return re.sub(
        r"^```(bad|good)$", lambda mark: f'``` {{.text title="{EXAMPLES[mark[1]]}"}}', rules.explain(rule), flags=re.M
    )


def rule_list() -> str:
    """Return the list of all rules."""
    rows = (f"| [{rule.code}]({rule.code}.md) | `{rule.name}` | {rule.summary} |" for rule in rules.all_rules())
    return "\n".join(("# Rules", "", "| code | rule | what it finds |", "|---|---|---|", *rows, ""))


# -- the command line ---------------------------------------------------------------------------------------------


def command_line() -> str:
    """Return the page of all commands with all that they take, as the parser knows them."""
    commands = (part for name, parser in commands_of(cli.parser()).items() for part in command_part(name, parser))
    return "\n\n".join(("# Command line", *commands, "## Exit codes", EXIT_CODES.replace("\n", " "), ""))


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands, by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def command_part(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the paragraphs about one command."""
    taken = [action for action in parser._actions if action.dest != "help"]
    yield f"## graphlens {name}"
    yield f"{str(parser.description).capitalize()}."
    yield f"```\n{parser.format_usage().removeprefix('usage: ')}```"
    yield "\n".join(("| argument | what it is |", "|---|---|", *map(argument_row, taken)))


def argument_row(action: argparse.Action) -> str:
    """Return the row of one argument."""
    flags = ", ".join(action.option_strings)
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    value = "" if action.nargs == 0 else str(action.metavar or choices or action.dest.upper())
    meaning = (action.help or "").replace("|", "\\|")
    return f"| `{' '.join(filter(None, (flags, value)))}` | {meaning} |"
