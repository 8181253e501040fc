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
    title = answer(_COMPILER, proof) if is_question(finding) else None
    return finding if title is None else replace(finding, title=title)


def answer(what: str, proof: Proof) -> str | None:
    """Return in words what ``what`` does to the step, ``None`` where it was not measured."""
    if proof.speedup is None or proof.ci95 is None:
        return None
    low, high = proof.ci95
    return f"{_answer(what, proof.verdict, proof.speedup, high)}: {proof.speedup:.2f}x [{low:.2f}, {high:.2f}]"


def _answer(what: str, verdict: str, speedup: float, high: float) -> str:
    if verdict == "proven":
        return f"{what} makes this step {speedup:.1f} times as fast here"
    if verdict == "changes-numbers":
        return f"{what} makes this step {speedup:.1f} times as fast here and changes its numbers"
    if verdict != "refuted":
        return f"Whether {what} makes this step faster is not clear here"
    if high < 1:
        return f"{what} makes this step {1 / speedup:.1f} times slower here"
    return f"{what} gains nothing for this step here"
