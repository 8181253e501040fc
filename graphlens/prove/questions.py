"""Changes that no rule claims to pay and that only a measurement can judge: to have XLA compile the step."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from graphlens.ir.analysis import Finding, Proof
from graphlens.ir.edits import EVERYWHERE, JitCompile

_COMPILER: Final = "XLA"


def compiles_step(finding: Finding) -> bool:
    """Whether the fix has XLA compile the step, or all of it that can be, and not a few ops that it names."""
    return any(isinstance(edit, JitCompile) and edit.where is EVERYWHERE for edit in finding.fix.edits)


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
    if verdict == "changes-numbers":
        return f"{_COMPILER} makes this step {speedup:.1f} times as fast here and changes its numbers"
    if verdict != "refuted":
        return f"Whether {_COMPILER} makes this step faster is not clear here"
    if high < 1:
        return f"{_COMPILER} makes this step {1 / speedup:.1f} times slower here"
    return f"{_COMPILER} gains nothing for this step here"
