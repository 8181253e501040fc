"""Run rules on facts: needs, errors, severity, ranking, overlaps, figures and fingerprints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice, takewhile
from typing import Final

from graphlens.errors import in_words
from graphlens.facts.core import FactError, Facts
from graphlens.facts.graphs import judged_graph, judged_stage, traced_graph
from graphlens.facts.rows.op_rows import figure_of, figure_without
from graphlens.ir import codec
from graphlens.ir.analysis import SEVERITIES, Figure, Finding, RuleStatus, Severity, severity_of
from graphlens.ir.ops import runtime_type
from graphlens.ir.ranking import ranked
from graphlens.rules.phrases import named_by_layer
from graphlens.rules.registry import Rule, is_own
from graphlens.units import counted

# The highest severity of a finding whose saving is unknown: a risk without a number is no emergency.
HIGHEST_WITHOUT_NUMBER: Final[Severity] = "medium"

# Nobody reads more of one rule; one of a plug-in that finds something in every op would fill the memory with figures.
FINDINGS_LIMIT: Final = 1_000
FIGURES_LIMIT: Final = 200

_UID = re.compile(r"_\d+(?=/|$)")


def judge(facts: Facts, rules: Sequence[Rule]) -> tuple[list[Finding], list[RuleStatus]]:
    """Run ``rules`` and return the findings, ranked by saving, and one status per rule.

    A rule that raises gets the status ``error``, as does one that needs a fact that failed (``facts.errors`` says why);
    the others still run.
    """
    findings: list[Finding] = []
    statuses: list[RuleStatus] = []
    for rule in rules:
        own, status = _judge_one(facts, rule)
        findings += own
        statuses.append(status)
    return ranked(_numbered(findings)), statuses


def _numbered(findings: Sequence[Finding]) -> list[Finding]:
    """Number the findings of each fingerprint by the names of their ops, which stay while times and ranks change."""
    count: Counter[str] = Counter()
    numbers = {}
    for index in sorted(range(len(findings)), key=lambda index: findings[index].nodes):
        count[findings[index].fingerprint] += 1
        numbers[index] = count[findings[index].fingerprint]
    return [replace(finding, ordinal=numbers[index]) for index, finding in enumerate(findings)]


def _judge_one(facts: Facts, rule: Rule) -> tuple[list[Finding], RuleStatus]:
    try:
        return _checked(facts, rule)
    except FactError as error:
        return [], _status(rule, "error", f"it needs {error.fact}, which failed")
    except (Exception, SystemExit) as error:  # a defect of one rule must not cost the user the other ones' results
        return [], _status(rule, "error", f"the rule failed with {in_words(error)}; please report it")


def _checked(facts: Facts, rule: Rule) -> tuple[list[Finding], RuleStatus]:
    seen = rule.seen(facts)
    unmet = next((need for need in rule.needs if not need.met(seen)), None)
    if unmet is not None:
        return [], _status(rule, "not-applicable", unmet.why_not(seen))
    told = list(islice(rule.check(seen), FINDINGS_LIMIT + 1))
    findings = [_finished(facts, rule, one, n < FIGURES_LIMIT) for n, one in enumerate(told[:FINDINGS_LIMIT])]
    if not is_own(rule.code):
        _checked_for_json(findings)
    if not findings:
        return [], _status(rule, "passed", f"nothing found in the {facts(judged_stage)} graph")
    more = f", and more that were left out: {FINDINGS_LIMIT} a rule" if len(told) > FINDINGS_LIMIT else ""
    return findings, _status(rule, "found", f"{counted(len(findings), 'finding')}{more}")


def _checked_for_json(findings: Sequence[Finding]) -> None:
    """Raise the error of a rule whose finding cannot be written: later it would cost the user the whole document."""
    for finding in findings:
        try:
            codec.encode(finding)
        except codec.MismatchError as error:
            raise TypeError(f"{error.place} of a finding {error}") from None


def _status(rule: Rule, status: str, why: str) -> RuleStatus:
    return RuleStatus(rule.code, rule.name, status, why, rule.summary)  # type: ignore[arg-type]


def _finished(facts: Facts, rule: Rule, finding: Finding, has_figure: bool) -> Finding:
    """Fill in what only the judge can say."""
    stage = "traced" if facts(judged_stage) == "traced" else finding.stage
    drawn = figure_of(facts, finding.nodes, "traced" if stage == "traced" else "executed") if has_figure else None
    figure = finding.figure or drawn
    return replace(
        finding,
        code=rule.code,
        rule=rule.name,
        title=named_by_layer(facts, finding.title, finding.nodes, stage),
        stage=stage,
        severity=_severity(finding),
        figure=figure,
        figure_after=finding.figure_after or _figure_after(facts, figure, finding),
        fingerprint=_fingerprint(facts, rule, finding, stage),
    )


def _figure_after(facts: Facts, figure: Figure | None, finding: Finding) -> Figure | None:
    return figure_without(facts, figure, finding.removes) if figure and finding.removes else None


def _severity(finding: Finding) -> Severity:
    """Return the graded share of the saving; when that is unknown, the rule's floor, at most ``medium``."""
    if finding.saving.share is not None:
        return severity_of(finding.saving.share)
    return max(finding.severity, HIGHEST_WITHOUT_NUMBER, key=SEVERITIES.index)


def _fingerprint(facts: Facts, rule: Rule, finding: Finding, stage: str) -> str:
    """Return a hash that stays the same over runs: code, scope and op types; no time, size, count or uid.

    Findings of one rule about like ops of like scopes share a fingerprint.
    """
    graph = facts(judged_graph) if stage == facts(judged_stage) else facts(traced_graph)
    present = [op for name in finding.nodes if graph is not None and (op := graph.get(name)) is not None]
    types = sorted({runtime_type(op.type) for op in present})
    scope = _UID.sub("", "/".join(_common_scope(finding.nodes)))
    return sha256("\n".join((rule.code, scope, *types)).encode()).hexdigest()[:16]


def _common_scope(nodes: Sequence[str]) -> list[str]:
    """Return the leading name segments that all ``nodes`` have in common, without the ops' own names."""
    paths = [name.split("/")[:-1] for name in nodes]
    return [segments[0] for segments in takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))]
