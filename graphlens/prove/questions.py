"""Changes that no rule claims to pay and that only a measurement can judge: to have XLA compile the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from graphlens.ir.analysis import Finding, Proof

COMPILED_BY: Final = "jit-compile"
_COMPILER: Final = "XLA"


def compiles_step(finding: Finding) -> bool:
    """Whether the fix has XLA compile the step, or all of it that can be, and not a few ops that it names."""
    return any(edit.get("edit") == COMPILED_BY and not _named(edit) for edit in finding.fix.edits)


def _named(edit: Mapping[str, Any]) -> bool:
    return bool(edit.get("ops") or edit.get("traced"))


def is_question(finding: Finding) -> bool:
    """Whether a finding asks whether compiling pays, with no saving that could be expected."""
    return finding.severity == "info" and finding.saving.share is None and compiles_step(finding)


def answered(finding: Finding, proof: Proof) -> Finding:
    """Return the question with the answer as its title, where the measurement gave one."""
    if not is_question(finding) or proof.speedup is None or proof.ci95 is None:
        return finding
    low, high = proof.ci95
    answer = _answer(proof.verdict, proof.speedup, high)
    return replace(finding, title=f"{answer}: {proof.speedup:.2f}x [{low:.2f}, {high:.2f}]")


def _answer(verdict: str, speedup: float, high: float) -> str:
    if verdict == "proven":
        return f"{_COMPILER} makes this step {speedup:.1f} times as fast here"
    if verdict != "refuted":
        return f"Whether {_COMPILER} makes this step faster is not clear here"
    if high < 1:
        return f"{_COMPILER} makes this step {1 / speedup:.1f} times slower here"
    return f"{_COMPILER} gains nothing for this step here"
