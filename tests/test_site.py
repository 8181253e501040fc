"""The site is built from what the program says of itself, without a warning."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from graphlens import rules

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def made_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_pages", ROOT / "docs" / "made_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_of_every_command_is_on_the_page_of_the_command_line(made_pages: ModuleType) -> None:
    page = made_pages.command_line()
    assert "## graphlens analyze" in page
    assert "| `--steps N` | profiled steps" in page
    assert "| `--fail-on {low,medium,high}` |" in page
    assert "2 wrong usage or unreadable target" in page


def test_every_rule_has_a_page_with_both_examples(made_pages: ModuleType) -> None:
    pages = made_pages.pages()
    for rule in rules.all_rules():
        text = pages[made_pages.page_of(rule)]
        assert text.startswith(f"# {rule.code} {rule.name}")
        assert '``` {.text title="Found"}' in text
        assert '``` {.text title="Not found"}' in text
        assert f"[{rule.code}]({rule.code}.md)" in pages["rules/index.md"]


def test_the_site_is_built_without_a_warning_and_asks_nobody_for_fonts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "rules" / "GL207.html").read_text("utf-8")
    assert "redundant-transpose" in page
    assert "fonts.googleapis" not in page
