"""The case files of ``tests/rules``: sketches of graphs, and what their rule must say about them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from graphlens.rules import find
from graphlens.testing import Case, cases_in, check_case

CASES = {path.stem: cases_in(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("rules/*.md")}
EACH = [(code, case) for code, cases in sorted(CASES.items()) for case in cases]


@pytest.mark.parametrize(("code", "case"), EACH, ids=[f"{code}: {case.title}" for code, case in EACH])
def test_case(code: str, case: Case) -> None:
    for finding in check_case(case, find(code)):
        assert is_code(finding.fix.snippet or ""), finding.fix.snippet


def is_code(snippet: str) -> bool:
    """Whether a snippet can be pasted: Python, a decorator for what follows it, or a setting for the shell."""
    if snippet.startswith("export "):
        return "\n" not in snippet
    ast.parse(f"{snippet}\ndef call(): ..." if snippet.startswith("@") else snippet)
    return True


@pytest.mark.parametrize("code", sorted(CASES))
def test_a_file_has_cases_that_fire_that_are_silent_and_static_or_not_applicable(code: str) -> None:
    seen: set[str] = set()
    for case in CASES[code]:
        is_static = "\nstatic\n" in f"\n{case.sketch}\n" or case.expected["expect"] == "not-applicable"
        seen |= {case.expected["expect"], "static" if is_static else "run"}
    assert {"found", "passed", "static"} <= seen


# -- the cases of plug-ins ------------------------------------------------------------------------------------------

CASE = """## A print
expect: found
nodes: log
saving: 20.0 us
```sketch
x   = Placeholder() float32[64]
y   = Relu(x) float32[64] 20us
log = PrintV2(y) 20us
out = _Retval(y)
```
"""


def test_a_case_holds_what_its_lines_say() -> None:
    (case,) = cases_in(CASE)
    assert (case.title, case.expected) == ("A print", {"expect": "found", "nodes": "log", "saving": "20.0 us"})
    (finding,) = check_case(case, find("GL404"))
    assert finding.nodes == ("log",)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("expect: passed", "A print: the rule's status is found"),
        ("nodes: log y", r"nodes: log y is expected, and not \['log'\]"),
        ("gone: y", r"gone: y is expected, and not \['log'\]"),
        ("findings: 2", "findings: 2 is expected, and not 1"),
        ("saving: 7.00 us", "saving: 7.00 us is expected, and not 20.0 us"),
        ("title: assertion", "title: assertion is expected, and not 1 printing op in the step"),
        ("why: no reason", "why: no reason is expected"),
    ],
)
def test_a_rule_that_says_something_else_fails(line: str, said: str) -> None:
    (case,) = cases_in(CASE.replace("```sketch", f"{line}\n```sketch"))
    with pytest.raises(AssertionError, match=said):
        check_case(case, find("GL404"))


@pytest.mark.parametrize(
    ("written", "said"),
    [("nods: log", "there is no 'nods:', but findings, fix, gone, "), ("", "a line 'expect:' has to say the status")],
)
def test_a_case_that_is_misspelt_is_refused(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"case 'A print': {said}"):
        cases_in(CASE.replace("expect: found", written))
