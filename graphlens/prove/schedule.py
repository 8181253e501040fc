"""Which fixes to prove, in which order, and how much of the budget each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.ir.analysis import Finding
from graphlens.ir.edits import Edit, JitCompile, ScriptSetting, is_of_input
from graphlens.ir.selectors import is_meant
from graphlens.ir.settings import is_setting
from graphlens.prove.experiment import Plan
from graphlens.prove.questions import is_question
from graphlens.prove.statistics import FEWEST_PAIRS

# Seconds to copy, rewrite, build and first call a program of some thousand ops, and to compare its outputs.
BUILD_S: Final = 4.0
COMPILE_S: Final = 12.0  # in addition, where XLA compiles the program
# To start a second process, import TensorFlow and open the target: for A against A, and for the setting to be proven.
SECOND_PROCESSES_S: Final = 2 * 8.0
# A process that starts beside one that stands still, on a machine that others use, may take so much longer.
SLOWER_START: Final = 1.5
# Fixes that a rule expects to save something may take this many times what they usually do before anything is left for
# questions that nobody has an expectation of.
AMPLE: Final = 2.0
# An unknown saving of a finding that is no mere information: as if it were the least that is reported as low.
UNKNOWN_SHARE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Cost:
    """What a proof is expected to take: at least, and until its interval is narrow."""

    least_s: float
    usual_s: float


def reason_not_to_try(finding: Finding, asked: Sequence[str] = ()) -> str | None:
    """Return why the fix of a finding is not to be proven, ``None`` when it is."""
    if not finding.fix.edits:
        return "only a person can make this change: there is no edit that a program could apply"
    # What is changed about a run of a script is gone with that run, and whoever reads the numbers decides.
    if finding.fix.safety == "manual" and not all(map(_is_of_a_run, finding.fix.edits)):
        return "the fix may change what the model is meant to do (safety: manual): a person has to decide"
    if finding.severity == "info" and not is_question(finding) and not is_asked(finding, asked):
        return f"for information only; `--select {finding.code}` has it measured"
    return None


def _is_of_a_run(edit: Edit) -> bool:
    """Whether an edit changes a run of the script, or a copy of its input, and nothing that is kept."""
    return isinstance(edit, ScriptSetting) or is_of_input(edit)


def is_asked(finding: Finding, asked: Sequence[str]) -> bool:
    """Whether the user selected this finding's rule."""
    return any(is_meant(selector, finding.code, finding.rule) for selector in asked)


def ordered(
    candidates: Sequence[int],
    findings: Sequence[Finding],
    plan: Plan,
    step_ns: int | None,
    asked: Sequence[str] = (),
) -> list[int]:
    """Return the candidates' indexes: what the user named first, then the largest saving per second of proving."""

    def promise(index: int) -> tuple[bool, float]:
        share = findings[index].saving.share
        saved = UNKNOWN_SHARE if share is None else max(share, 0.0)
        named = is_asked(findings[index], asked)
        return named, saved / cost_of(findings[index], plan, step_ns).usual_s

    return sorted(candidates, key=promise, reverse=True)


def cost_of(finding: Finding, plan: Plan, step_ns: int | None, start_s: float | None = None) -> Cost:
    """Return what proving a finding's fix is expected to take.

    ``start_s`` is how long it takes to start a process with any fix, where each is one of its own.
    """
    compiled = any(isinstance(edit, JitCompile) for edit in finding.fix.edits)
    built_s = BUILD_S if start_s is None else SLOWER_START * start_s
    fixed_s, rounds = built_s + (COMPILE_S if compiled else 0.0), 1
    if start_s is None and any(is_setting(edit) for edit in finding.fix.edits):
        fixed_s, rounds = fixed_s + BUILD_S + SECOND_PROCESSES_S, 2
    pair = rounds * pair_s(plan, step_ns)
    return Cost(fixed_s + FEWEST_PAIRS * pair, fixed_s + max(plan.min_pairs * pair, rounds * plan.usual_s))


def pair_s(plan: Plan, step_ns: int | None) -> float:
    """Return how long a pair of blocks takes."""
    return 2 * max(plan.block_ms / 1e3, (step_ns or 0) / 1e9)


def control_s(plan: Plan, step_ns: int) -> float:
    """Return the slice for A against A: its share, but enough pairs for an interval, and never half of it all."""
    wanted = max(plan.control_share * plan.budget_s, (FEWEST_PAIRS + 2) * pair_s(plan, step_ns))
    return min(wanted, plan.budget_s / 2)


def reserve_s(claims: Sequence[Cost], questions: Sequence[Cost], left_s: float) -> float:
    """Return what to leave for questions: what they need, unless the claims then lack what they amply need."""
    ample_s = AMPLE * sum(cost.usual_s for cost in claims)
    return max(0.0, min(sum(cost.least_s for cost in questions), left_s - ample_s))


def slice_s(left_s: float, turns: int, cost: Cost) -> float | None:
    """Return the slice for the next of ``turns`` fixes, ``None`` when what is left is of no use to it."""
    if left_s < cost.least_s:
        return None
    return min(left_s, max(left_s / turns, cost.usual_s))
