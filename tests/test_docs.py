"""What is written about the rules and the command line is what they are."""

from __future__ import annotations

import doctest
import importlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from graphlens import rules
from graphlens.cli import main
from graphlens.facts.core import Facts
from graphlens.testing import check_page, sketch

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MARKS = ("<!-- rules -->\n", "<!-- /rules -->")


def rule_table() -> str:
    lines = ["| code | rule | what it finds |", "|---|---|---|"]
    lines += [f"| {row[0]} | `{row[1]}` | {row[2]} |" for row in rules.table_rows(rules.all_rules())]
    return "\n".join(lines) + "\n"


def test_the_readme_lists_the_rules() -> None:
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    table, _, after = rest.partition(MARKS[1])
    if os.environ.get("GRAPHLENS_UPDATE"):
        README.write_text(before + MARKS[0] + rule_table() + MARKS[1] + after, encoding="utf-8")
        table = rule_table()
    assert table == rule_table()


def test_the_readme_names_what_a_fresh_machine_needs() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert not re.search(r"pip install graphlens\b", text), "that name belongs to another project"


def test_commands_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option that the README uses is in the help of its command."""
    for command, rest in re.findall(r"^graphlens (\w+)(.*)$", README.read_text(encoding="utf-8"), re.MULTILINE):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", rest.partition("#")[0]):
            assert option in shown, f"graphlens {command} has no {option}"


def test_the_pictures_of_the_readme_exist() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path


PACKAGE = ROOT / "graphlens"
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_examples_in_docstrings_hold(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_the_rule_in_the_readme_finds_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(from graphlens.facts.*?)\n```\n\n", README.read_text("utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    check_page(scope["old_blur"])
    (finding,) = scope["old_blur"](Facts(sketch("static\nx = Placeholder() float32[8]\ny = AcmeBlur(x) float32[8]")))
    assert (finding.title, finding.nodes) == ("1 old blurs", ("y",))


BEHAVIOUR = ROOT / "docs" / "behaviour.md"


def test_what_the_page_of_behaviour_rests_on_exists() -> None:
    text = BEHAVIOUR.read_text(encoding="utf-8")
    assert set(re.findall(r"\bGL\d{3}\b", text)) <= {rule.code for rule in rules.all_rules()}
    for path, test in re.findall(r"`((?:tests|findings|fixtures)/[\w./-]+)(?:::(\w+))?`", text):
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_every_row_of_behaviour_says_how_it_was_seen_and_what_rests_on_it() -> None:
    rows = [line for line in BEHAVIOUR.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert all(len([cell for cell in row.strip("|").split(" | ") if cell.strip()]) == 3 for row in rows)
