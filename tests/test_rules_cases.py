"""The case files of ``tests/rules``: sketches of graphs, and what their rule must say about them.

Each ``##`` heading is a case; ``expect:`` is the status of the rule.  The other lines are optional: ``nodes:`` the ops
that the findings name (in any order), ``gone:`` ops that must be among them, ``findings:`` their number, ``saving:``
of the first one, ``severity:``, ``safety:``, and words that ``title:``, ``reason:`` or ``why:`` (of the status) hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphlens.facts.core import Facts
from graphlens.ir.analysis import Finding, RuleStatus
from graphlens.ir.sketch import sketch
from graphlens.rules import find, judge
from graphlens.units import format_ns

CASES = Path(__file__).parent / "rules"
_CASE = re.compile(r"^## (?P<title>.+?)\n(?P<head>.*?)^```sketch\n(?P<sketch>.*?)^```$", re.MULTILINE | re.DOTALL)
_KEYS = {"expect", "nodes", "gone", "findings", "saving", "severity", "safety", "title", "reason", "why"}


@dataclass(frozen=True)
class Case:
    code: str
    title: str
    expected: dict[str, str]
    sketch: str


def cases() -> Iterator[Case]:
    for path in sorted(CASES.glob("*.md")):
        for match in _CASE.finditer(path.read_text(encoding="utf-8")):
            lines = dict(re.findall(r"^(\w+): *(.*)$", match["head"], re.MULTILINE))
            assert {"expect"} <= set(lines) <= _KEYS, f"{path.name}: {match['title']}: {lines}"
            yield Case(path.stem, match["title"], lines, match["sketch"])


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case.code}: {case.title}")
def test_case(case: Case) -> None:
    findings, (status,) = judge(Facts(sketch(case.sketch)), [find(case.code)])
    assert status.status == case.expected["expect"], (status, findings)
    for key, words in case.expected.items():
        if key != "expect":
            check(key, words, findings, status)
    for finding in findings:
        assert is_code(finding.fix.snippet or ""), finding.fix.snippet


def is_code(snippet: str) -> bool:
    """Whether a snippet can be pasted: Python, a decorator for what follows it, or a setting for the shell."""
    if snippet.startswith("export "):
        return "\n" not in snippet
    ast.parse(f"{snippet}\ndef call(): ..." if snippet.startswith("@") else snippet)
    return True


def check(key: str, words: str, findings: list[Finding], status: RuleStatus) -> None:
    named = {node for finding in findings for node in finding.nodes}
    if key == "nodes":
        assert named == set(words.split())
    elif key == "gone":
        assert set(words.split()) <= named
    elif key == "findings":
        assert len(findings) == int(words)
    elif key == "why":
        assert words in status.why
    else:
        assert words in _text(findings[0], key)


def _text(finding: Finding, key: str) -> str:
    special = {"saving": format_ns(finding.saving.ns), "safety": finding.fix.safety}
    return special.get(key) or str(getattr(finding, key))


def test_every_case_file_has_cases_that_fire_that_are_silent_and_static_or_not_applicable() -> None:
    kinds: dict[str, set[str]] = {}
    for case in cases():
        is_static = "\nstatic\n" in f"\n{case.sketch}\n" or case.expected["expect"] == "not-applicable"
        kinds.setdefault(case.code, set()).update({case.expected["expect"], "static" if is_static else "run"})
    for code, seen in kinds.items():
        assert {"found", "passed", "static"} <= seen, code
