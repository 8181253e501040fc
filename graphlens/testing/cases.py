"""Cases of a rule: what it must say about graphs that are written as text, one heading each in a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts
from graphlens.ir.analysis import Finding, RuleStatus
from graphlens.rules import Rule, judge
from graphlens.testing.sketch import sketch
from graphlens.units import format_ns

_CASE: Final = re.compile(
    r"^## (?P<title>.+?)\n(?P<head>.*?)^```sketch\n(?P<sketch>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINE: Final = re.compile(r"^(\w+): *(.*)$", re.MULTILINE)
_STATUS: Final = "expect"


@dataclass(frozen=True, slots=True)
class Case:
    """A graph with its times, and what is expected of the rule: the words of the case by their key."""

    title: str
    expected: Mapping[str, str]
    sketch: str


def cases_in(text: str) -> tuple[Case, ...]:
    """Return the cases of a Markdown text.

    Each ``##`` heading is a case: lines ``key: words``, then the graph in a block that is fenced as ``sketch``.
    ``expect:`` is the status of the rule (``found``, ``passed``, ``not-applicable`` or ``error``).  The other keys are
    optional: ``nodes:`` the ops that the findings name (in any order), ``gone:`` ops that must be among them,
    ``findings:`` their number, ``saving:`` of the first one, ``severity:``, ``safety:``, and words that ``title:``,
    ``reason:``, ``fix:`` or ``why:`` (of the status) hold.

    Raises
    ------
    ValueError
        When a case lacks its status, or has a key that there is none of.
    """
    return tuple(_case(match) for match in _CASE.finditer(text))


def _case(match: re.Match[str]) -> Case:
    expected = dict(_LINE.findall(match["head"]))
    unknown = sorted(expected.keys() - _CHECKS.keys() - {_STATUS})
    if unknown:
        raise ValueError(f"case '{match['title']}': there is no '{unknown[0]}:', but {', '.join(sorted(_CHECKS))}")
    if _STATUS not in expected:
        raise ValueError(f"case '{match['title']}': a line '{_STATUS}:' has to say the status of the rule")
    return Case(match["title"], expected, match["sketch"])


def check_case(case: Case, rule: Rule) -> tuple[Finding, ...]:
    """Judge the graph of a case with a rule, and return the findings.

    Raises
    ------
    AssertionError
        When the rule says something else than what is expected.
    """
    findings, status = _judged(case.sketch, rule)
    _require(status.status == case.expected[_STATUS], case, f"the rule's status is {status.status}: {status.why}")
    for key, words in case.expected.items():
        if key != _STATUS:
            said = _CHECKS[key](words, findings, status)
            _require(said is None, case, f"{key}: {words} is expected, and not {said}")
    return findings


def check_page(rule: Rule) -> None:
    """Judge the two graphs of a rule's page.

    Raises
    ------
    AssertionError
        When the bad one is not found, or the good one is.
    """
    for example, wanted in (("bad", "found"), ("good", "passed")):
        findings, status = _judged(rule.examples[example], rule)
        told = status.why or "; ".join(finding.title for finding in findings)
        if status.status != wanted:
            raise AssertionError(f"{rule.code}: the {example} example is {status.status}, not {wanted}: {told}")


def _judged(text: str, rule: Rule) -> tuple[tuple[Finding, ...], RuleStatus]:
    findings, (status,) = judge(Facts(sketch(text)), [rule])
    return tuple(findings), status


def _require(holds: bool, case: Case, message: str) -> None:
    if not holds:
        raise AssertionError(f"{case.title}: {message}")


# -- what a case can expect: each returns what there is instead, `None` where it is as expected -----------------------

Check = Callable[[str, Sequence[Finding], RuleStatus], object | None]


def _nodes(words: str, findings: Sequence[Finding], _: RuleStatus) -> object | None:
    named = _named(findings)
    return None if named == set(words.split()) else sorted(named)


def _gone(words: str, findings: Sequence[Finding], _: RuleStatus) -> object | None:
    named = _named(findings)
    return None if set(words.split()) <= named else sorted(named)


def _number(words: str, findings: Sequence[Finding], _: RuleStatus) -> object | None:
    return None if len(findings) == int(words) else len(findings)


def _why(words: str, _: Sequence[Finding], status: RuleStatus) -> object | None:
    return None if words in status.why else status.why


def _text(of: Callable[[Finding], object]) -> Check:
    def check(words: str, findings: Sequence[Finding], _: RuleStatus) -> object | None:
        said = str(of(findings[0])) if findings else "no finding"
        return None if words in said else said

    return check


def _named(findings: Sequence[Finding]) -> set[str]:
    return {node for finding in findings for node in finding.nodes}


_CHECKS: Final[Mapping[str, Check]] = {
    "nodes": _nodes,
    "gone": _gone,
    "findings": _number,
    "why": _why,
    "saving": _text(lambda finding: format_ns(finding.saving.ns)),
    "safety": _text(lambda finding: finding.fix.safety),
    "severity": _text(lambda finding: finding.severity),
    "fix": _text(lambda finding: finding.fix.summary),
    "title": _text(lambda finding: finding.title),
    "reason": _text(lambda finding: finding.reason),
}
