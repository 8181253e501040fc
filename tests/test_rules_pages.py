"""Every rule's page is its documentation and its first test: the bad example is found, the good one is not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.rules import HEADINGS, Rule, all_rules, explain, find, judge, table_rows
from graphlens.testing import check_page, sketch

# Codes and names bind documents, baselines and suppressions; they are given by the design and never change.
DESIGNED = {
    "GL001": "unattributed-time",
    "GL002": "unstable-timing",
    "GL003": "unmatched-profile",
    "GL101": "host-device-copy",
    "GL102": "cpu-fallback",
    "GL103": "device-device-copy",
    "GL104": "host-fed-input",
    "GL105": "host-sync",
    "GL106": "idle-accelerator",
    "GL201": "unfused-conv",
    "GL202": "unfused-matmul",
    "GL203": "unfolded-batch-norm",
    "GL204": "decomposed-layer-norm",
    "GL205": "decomposed-activation",
    "GL206": "decomposed-attention",
    "GL207": "redundant-transpose",
    "GL208": "redundant-cast",
    "GL209": "repeated-computation",
    "GL210": "unfolded-constant",
    "GL211": "loop-invariant-op",
    "GL212": "op-overhead-bound",
    "GL213": "xla-blocker",
    "GL404": "debug-op",
    "GL501": "float64-op",
    "GL502": "full-precision-matmul",
    "GL503": "misaligned-matmul",
    "GL504": "training-op-in-inference",
    "GL505": "slow-op",
    "GL601": "memory-peak",
    "GL602": "embedded-constant",
    "GL901": "unsafe-op",
}

each_rule = pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)


@each_rule
def test_the_bad_example_is_found_and_the_good_one_is_silent(rule: Rule) -> None:
    check_page(rule)


@each_rule
def test_what_is_found_is_told(rule: Rule) -> None:
    findings, _ = judge(Facts(sketch(rule.examples["bad"])), [rule])
    assert all(finding.reason and finding.fix.summary and finding.title for finding in findings)


@pytest.mark.parametrize(("one", "other", "status"), [("bad", "good", "passed"), ("good", "bad", "found")])
def test_a_page_whose_example_shows_the_other_thing_fails(one: str, other: str, status: str) -> None:
    rule = find("GL404")
    page = rule.page.replace(rule.examples[one], rule.examples[other])
    with pytest.raises(AssertionError, match=f"GL404: the {one} example is {status}"):
        check_page(replace(rule, page=page))


@each_rule
def test_a_page_has_the_fixed_headings_and_text_under_each(rule: Rule) -> None:
    assert rule.sections == HEADINGS
    bodies = re.split(r"^## .+$", rule.page, flags=re.MULTILINE)[1:]
    assert all(body.strip() for body in bodies)


@each_rule
def test_explain_shows_code_name_and_page(rule: Rule) -> None:
    text = explain(rule)
    assert text.startswith(f"# {rule.code} {rule.name}\n")
    assert rule.page in text


def test_codes_and_names_are_those_of_the_design() -> None:
    codes = {code: name for code, name, _ in table_rows(all_rules())}
    assert {code: codes.get(code) for code in DESIGNED} == DESIGNED


def test_names_are_unique_and_nouns_in_kebab_case() -> None:
    names = [rule.name for rule in all_rules()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and not name.startswith("no-") for name in names)


def test_every_rule_has_a_case_file() -> None:
    from test_rules_cases import CASES

    assert {rule.code for rule in all_rules() if rule.code in DESIGNED} <= CASES.keys()
