"""Prove the fixes of all findings within one time budget: each alone, the proven ones together, and questions last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graphlens.config import Progress, no_progress
from graphlens.ir.analysis import Finding, Proof, Saving, severity_of
from graphlens.ir.ranking import order, ranked
from graphlens.ir.settings import is_setting
from graphlens.prove import questions, schedule, together
from graphlens.prove.bench import Bench, BlockedError, OnPairs, opened, prepared, tried
from graphlens.prove.experiment import Budget, Plan
from graphlens.prove.runner import RefusedError, Runner
from graphlens.prove.schedule import Cost
from graphlens.prove.together import Joint

SAME_EDITS: Final = "measured with {code}, which proposes the same"
NO_BUDGET: Final = "the time budget for proofs was spent before its turn; raise --time-budget"
NO_TIME_TO_START: Final = (
    "it takes {0:.0f} s to its first steady steps, and has to get there at least three times; raise --time-budget"
)
DEFAULT_PLAN: Final = Plan()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The findings with their proofs, ranked again, and the proof of all proven fixes at once."""

    findings: tuple[Finding, ...]
    joint_proof: Proof | None


@dataclass(frozen=True)
class _Job:
    """What is to be proven, and with what."""

    findings: Sequence[Finding]
    runner: Runner
    plan: Plan
    budget: Budget
    step_ns: int | None
    command: str
    script: str
    progress: Progress

    def started(self, spent_s: float) -> _Job:
        """Return the job with its budget running: opening the target, which is needed once, is not on it.

        Of a script it is: running that once more is most of what its proofs take, which is ``spent_s``.
        """
        clock = self.budget.clock
        return replace(self, budget=Budget(clock() + self.plan.budget_s - spent_s, clock))

    def cost(self, index: int, bench: Bench) -> Cost:
        """Return what proving a finding's fix is expected to take."""
        return schedule.cost_of(self.findings[index], self.plan, bench.step_ns, bench.start_s)

    def on_pairs(self, what: str) -> OnPairs:
        self.progress(what, 0, 0)
        return lambda done: self.progress(f"{what}, pairs", done, self.plan.max_pairs)


def prove(
    findings: Sequence[Finding],
    runner: Runner,
    plan: Plan = DEFAULT_PLAN,
    *,
    step_ns: int | None = None,
    command: str = "graphlens analyze TARGET",
    script: str = "",
    asked: Sequence[str] = (),
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Apply and measure every fix that can be, the most promising first.

    Parameters
    ----------
    runner
        What applies and measures; it is closed at the end.
    step_ns
        The step's median wall time, by which a measured share becomes a saving.
    command
        How the analysis was called, without ``--select``.
    script
        The words that come after that option: a script and its arguments.
    asked
        What the user selected by name: proven whatever it promises.
    """
    job = _Job(findings, runner, plan, Budget(math.inf, clock), step_ns, command, script, progress)
    proofs = {index: Proof("not-run", why) for index, why in _left_out(findings, asked).items()}
    candidates = [index for index in range(len(findings)) if index not in proofs]
    turns = schedule.ordered(candidates, findings, plan, step_ns, asked)
    twins = _twins(findings, turns)
    joint = None
    try:
        if turns:
            measured, joint = _measured(job, [index for index in turns if index not in twins])
            proofs |= measured
    finally:
        runner.close()
    proofs |= {index: _shared(job, index, first, proofs[first]) for index, first in twins.items()}
    return _outcome(job, [proofs[index] for index in range(len(findings))], joint)


def _left_out(findings: Sequence[Finding], asked: Sequence[str]) -> dict[int, str]:
    reasons = {index: schedule.reason_not_to_try(finding, asked) for index, finding in enumerate(findings)}
    return {index: reason for index, reason in reasons.items() if reason is not None}


def _measured(job: _Job, turns: Sequence[int]) -> tuple[dict[int, Proof], Joint]:
    """Prove the findings whose turn it is, and then together; what stops all of them is the verdict of each."""
    try:
        job.progress("opening the target for trials", 0, 0)
        begun_s = job.budget.clock()
        opening = opened(job.runner)
        job = job.started(job.budget.clock() - begun_s if opening.apart else 0.0)
        start_s = opening.start_s or 0.0
        if job.budget.left_s() < 2 * start_s:  # for A against A, and for one that is changed
            raise BlockedError("not-run", NO_TIME_TO_START.format(start_s))
        on_pairs = job.on_pairs("measuring the noise, A against A")
        bench = prepared(
            job.runner, job.plan, job.budget,
            with_cpu=not (opening.accelerated or opening.overlaps), on_pairs=on_pairs, start_s=opening.start_s,
        )  # fmt: skip
    except BlockedError as error:
        return {index: Proof(error.verdict, str(error)) for index in turns}, Joint((), Proof("not-run", str(error)))
    claims = [index for index in turns if not questions.is_question(job.findings[index])]
    asked = [index for index in turns if index not in claims]
    costs = _costs(job, bench, claims, asked)
    alone = _alone(job, bench, claims, schedule.reserve_s(*costs, job.budget.left_s()))
    joint = _together(job, bench, alone)
    chances, joint = _second_chances(job, bench, alone, joint, sum(cost.least_s for cost in costs[1]))
    alone |= chances
    answers = _alone(job, bench, asked)
    return alone | answers, _extended(job, bench, alone | answers, asked, joint)


def _costs(job: _Job, bench: Bench, claims: Sequence[int], asked: Sequence[int]) -> tuple[list[Cost], list[Cost]]:
    claimed, questioned = ([job.cost(index, bench) for index in group] for group in (claims, asked))
    return claimed, questioned


def _twins(findings: Sequence[Finding], turns: Sequence[int]) -> dict[int, int]:
    """Return the findings whose edits an earlier one proposes too, and that one: nothing is measured twice."""
    twins: dict[int, int] = {}
    for position, index in enumerate(turns):
        edits = findings[index].fix.edits
        first = next((other for other in turns[:position] if findings[other].fix.edits == edits), None)
        if first is not None:
            twins[index] = first
    return twins


def _shared(job: _Job, index: int, first: int, proof: Proof) -> Proof:
    why = f"{proof.why} ({SAME_EDITS.format(code=_called(job.findings[first]))})"
    return _described(job, [index], replace(proof, why=why))


# -- each alone -----------------------------------------------------------------------------------------------------


def _alone(job: _Job, bench: Bench, turns: Sequence[int], reserve_s: float = 0.0) -> dict[int, Proof]:
    """Prove findings one by one, and leave time for what comes after: all at once, and ``reserve_s``."""
    reserve_s += job.plan.joint_share * job.plan.budget_s if len(turns) > 1 else 0.0
    proofs = {}
    for number, index in enumerate(turns):
        finding = job.findings[index]
        left_s = job.budget.left_s() - reserve_s
        slice_s = schedule.slice_s(left_s, len(turns) - number, job.cost(index, bench))
        if slice_s is None:
            proofs[index] = Proof("not-run", NO_BUDGET)
            continue
        on_pairs = job.on_pairs(f"proving {_called(finding)} ({number + 1} of {len(turns)})")
        later = [job.cost(other, bench) for other in turns[number + 1 :]]
        spare_s = left_s - slice_s - sum(cost.usual_s for cost in later)
        proofs[index] = _described(job, [index], _one(bench, finding, job.budget.slice(slice_s, spare_s), on_pairs))
    return proofs


def _one(bench: Bench, finding: Finding, budget: Budget, on_pairs: OnPairs) -> Proof:
    try:
        return tried(bench, [finding.fix.edits], budget, on_pairs)
    except RefusedError as error:
        return Proof("failed", f"the rewrite refused: {error}")


def _described(job: _Job, members: Sequence[int], proof: Proof) -> Proof:
    """Add what the prover knows: the line that measures this again, and for one fix the saving that was expected."""
    codes = ",".join(dict.fromkeys(job.findings[index].code for index in members))
    expected = job.findings[members[0]].saving.share if len(members) == 1 else None
    return replace(proof, command=f"{job.command} --select {codes}{job.script}", expected_share=expected)


# -- all together ---------------------------------------------------------------------------------------------------


def _together(job: _Job, bench: Bench, alone: Mapping[int, Proof]) -> Joint:
    """Prove the proven fixes at once, and what compiles the step on top of them: it may undo what they gain."""
    members = together.proven(alone)
    compiling = [index for index in members if questions.compiles_step(job.findings[index])]
    plain = [index for index in members if index not in compiling]
    joint = together.joined(plain, alone, _measuring(job, bench), lambda index: _called(job.findings[index]))
    return _extended(job, bench, alone, compiling, joint)


def _second_chances(
    job: _Job, bench: Bench, alone: Mapping[int, Proof], joint: Joint, reserve_s: float
) -> tuple[dict[int, Proof], Joint]:
    """Measure what was not shown alone on top of the proven fixes: of a shorter step a gain is a larger part."""
    proofs: dict[int, Proof] = {}
    for index in together.undecided(alone):
        needed_s = 2 * _least_s(job, bench, index) + reserve_s
        if job.budget.left_s() < needed_s or not _may_come_on_top(job, index, joint):
            continue
        budget = job.budget.slice((job.budget.left_s() - reserve_s) / 2)
        proof = _on_top(job, bench, index, joint, budget)
        both = _measuring(job, bench)([*joint.members, index]) if proof.verdict == "proven" else proof
        proofs[index] = together.told_twice(proof, alone[index], both)
        if both.verdict == "proven":
            joint = Joint((*joint.members, index), both)
    return proofs, joint


def _called(finding: Finding) -> str:
    """Return how a finding is called: by its code, or in words where it is of no rule."""
    return finding.code or finding.title


def _may_come_on_top(job: _Job, index: int, joint: Joint) -> bool:
    """Whether there is a faster program of one process to build on."""
    involved = [job.findings[member] for member in (*joint.members, index)]
    separate = any(questions.compiles_step(one) or any(map(is_setting, one.fix.edits)) for one in involved)
    return bool(joint.members) and joint.proof.verdict == "proven" and not separate


def _on_top(job: _Job, bench: Bench, index: int, joint: Joint, budget: Budget) -> Proof:
    finding = job.findings[index]
    codes = tuple(dict.fromkeys(_called(job.findings[member]) for member in joint.members))
    base = [job.findings[member].fix.edits for member in joint.members]
    on_pairs = job.on_pairs(f"proving {_called(finding)} on top of {', '.join(codes)}")
    try:
        proof = tried(bench, [finding.fix.edits], budget, on_pairs, base)
    except RefusedError as error:
        return Proof("failed", f"the rewrite refused: {error}", on_top_of=codes)
    share = 1 / joint.proof.speedup if joint.proof.speedup else None
    described = replace(_described(job, [*joint.members, index], proof), on_top_of=codes, base_share=share)
    return replace(described, expected_share=finding.saving.share)


def _extended(job: _Job, bench: Bench, alone: Mapping[int, Proof], compiling: Sequence[int], joint: Joint) -> Joint:
    for index in compiling:
        if alone[index].verdict == "proven":
            joint = together.extended(joint, index, alone, _measuring(job, bench), lambda i: _called(job.findings[i]))
    return joint


def _measuring(job: _Job, bench: Bench) -> together.Measure:
    """Return what measures several fixes at once, as far as the budget allows."""

    def measure(members: Sequence[int]) -> Proof:
        slow = [index for index in members if bench.is_apart or questions.compiles_step(job.findings[index])]
        needed_s = max((_least_s(job, bench, index) for index in slow), default=0.0)
        if job.budget.left_s() < needed_s:
            return Proof("not-run", NO_BUDGET)
        on_pairs = job.on_pairs(f"proving {len(members)} proven fixes together")
        edits = [job.findings[index].fix.edits for index in members]
        return _described(job, members, tried(bench, edits, job.budget, on_pairs))

    return measure


def _least_s(job: _Job, bench: Bench, index: int) -> float:
    return job.cost(index, bench).least_s


# -- what it means for the findings ---------------------------------------------------------------------------------


def _outcome(job: _Job, proofs: Sequence[Proof], joint: Joint | None) -> Outcome:
    updated = [_updated(finding, proof, job.step_ns) for finding, proof in zip(job.findings, proofs, strict=True)]
    findings = tuple(ranked(updated))
    if joint is None:
        return Outcome(findings, None)
    ranks = {index: rank for rank, index in enumerate(order(updated), start=1)}
    parts = tuple(f"{job.findings[index].code}#{ranks[index]}" for index in joint.members)
    return Outcome(findings, replace(joint.proof, parts=parts))


def _updated(finding: Finding, proof: Proof, step_ns: int | None) -> Finding:
    """Return the finding with its proof: a measured saving takes the place of the expected one."""
    finding = questions.answered(finding, proof)
    if proof.verdict not in {"proven", "refuted", "changes-numbers"} or proof.speedup is None:
        return replace(finding, proof=proof)
    base_share = proof.base_share or 1.0
    # A refuted fix saves nothing, also where CPU time refutes what wall time seems to gain.
    share = 0.0 if proof.verdict == "refuted" else max(0.0, 1 - 1 / proof.speedup) * base_share
    base_ns = proof.before_ns / base_share if step_ns is None and proof.before_ns is not None else step_ns
    saving = Saving(None if base_ns is None else round(share * base_ns), share, "measured")
    return replace(
        finding,
        proof=proof,
        saving=saving,
        severity="info" if proof.verdict == "refuted" else severity_of(share),
    )
