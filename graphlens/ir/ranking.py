"""The order of findings: what to change by what it saves, then what is slow in general; and which share ops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphlens.ir.analysis import SEVERITIES, Finding


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return ``findings`` in their order, each with its overlaps noted as ``CODE#rank`` (the first has rank 1)."""
    return _with_overlaps(sorted(findings, key=_rank))


def order(findings: Sequence[Finding]) -> list[int]:
    """Return the indexes of ``findings`` in their order."""
    return sorted(range(len(findings)), key=lambda index: _rank(findings[index]))


def _rank(finding: Finding) -> tuple[int, float, int, str, tuple[str, ...]]:
    share = finding.saving.share
    return (
        _tier(finding),
        1.0 if share is None else -share,
        SEVERITIES.index(finding.severity),
        finding.code,
        finding.nodes,
    )


def _tier(finding: Finding) -> int:
    """Return 0 for what is worth changing, 1 for what is slow in general, 2 for the rest, 3 for what was refuted."""
    if finding.proof.verdict == "refuted":
        return 3
    if finding.general:
        return 1
    return 2 if finding.severity == "info" else 0


def _with_overlaps(findings: Sequence[Finding]) -> list[Finding]:
    owners: dict[tuple[str, str], list[int]] = {}
    for index, finding in enumerate(findings):
        for node in finding.nodes:
            owners.setdefault((finding.stage, node), []).append(index)
    shared: list[set[int]] = [set() for _ in findings]
    for indexes in owners.values():
        for index in indexes:
            shared[index].update(other for other in indexes if other != index)
    return [
        replace(finding, shares_ops_with=tuple(f"{findings[other].code}#{other + 1}" for other in sorted(others)))
        for finding, others in zip(findings, shared, strict=True)
    ]
