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
    if not is_question(finding) or proof.speedup is None or proof.verdict not in {"proven", "refuted"}:
        return finding
    return replace(finding, title=f"{_COMPILER} {_effect(proof.verdict, proof.speedup, proof.ci95)}")


def _effect(verdict: str, speedup: float, ci95: tuple[float, float] | None) -> str:
    interval = f" [{ci95[0]:.2f}, {ci95[1]:.2f}]" if ci95 else ""
    measured = f"{speedup:.2f}x{interval}"
    if verdict == "proven":
        return f"makes this step {speedup:.1f} times as fast here: {measured}"
    if ci95 is not None and ci95[1] < 1:
        return f"makes this step {1 / speedup:.1f} times slower here: {measured}"
    return f"gains nothing for this step here: {measured}"
