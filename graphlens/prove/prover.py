"""Prove the fixes of all findings within one time budget: each alone, then the proven ones together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graphlens.config import Progress, no_progress
from graphlens.ir.analysis import Finding, Proof, Saving, severity_of
from graphlens.ir.ranking import order, ranked
from graphlens.prove import schedule
from graphlens.prove.bench import Bench, BlockedError, OnPairs, opened, prepared, tried
from graphlens.prove.experiment import Budget, Plan
from graphlens.prove.runner import RefusedError, Runner

NOTHING_PROVEN: Final = "no fix was proven alone, so there is nothing to prove together"
NO_BUDGET: Final = "the time budget for proofs was spent before its turn; raise --time-budget"
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
    progress: Progress

    def started(self) -> _Job:
        """Return the job with its budget running: opening the target, which is needed once, is not on it."""
        clock = self.budget.clock
        return replace(self, budget=Budget(clock() + self.plan.budget_s, clock))

    def on_pairs(self, what: str) -> OnPairs:
        self.progress(what, 0, 0)
        return lambda done: self.progress(f"{what}, pairs", done, self.plan.max_pairs)


@dataclass(frozen=True, slots=True)
class _Joint:
    """The findings that were proven together, by index, and what came of it."""

    members: tuple[int, ...]
    proof: Proof


def prove(
    findings: Sequence[Finding],
    runner: Runner,
    plan: Plan = DEFAULT_PLAN,
    *,
    step_ns: int | None = None,
    command: str = "graphlens analyze TARGET",
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
    asked
        What the user selected by name: proven whatever it promises.
    """
    job = _Job(findings, runner, plan, Budget(math.inf, clock), step_ns, command, progress)
    proofs = {index: Proof("not-run", why) for index, why in _left_out(findings, asked).items()}
    turns = schedule.ordered([index for index in range(len(findings)) if index not in proofs], findings, plan, step_ns)
    joint = None
    try:
        if turns:
            measured, joint = _measured(job, turns)
            proofs |= measured
    finally:
        runner.close()
    return _outcome(job, [proofs[index] for index in range(len(findings))], joint)


def _left_out(findings: Sequence[Finding], asked: Sequence[str]) -> dict[int, str]:
    reasons = {index: schedule.reason_not_to_try(finding, asked) for index, finding in enumerate(findings)}
    return {index: reason for index, reason in reasons.items() if reason is not None}


def _measured(job: _Job, turns: Sequence[int]) -> tuple[dict[int, Proof], _Joint]:
    """Prove the findings whose turn it is, and then together; what stops all of them is the verdict of each."""
    try:
        job.progress("opening the target for trials", 0, 0)
        with_cpu = not opened(job.runner).accelerated
        job = job.started()
        on_pairs = job.on_pairs("measuring the noise, A against A")
        bench = prepared(job.runner, job.plan, job.budget, with_cpu=with_cpu, on_pairs=on_pairs)
    except BlockedError as error:
        return {index: Proof(error.verdict, str(error)) for index in turns}, _Joint((), Proof("not-run", str(error)))
    alone = _alone(job, bench, turns)
    return alone, _together(job, bench, alone)


# -- each alone -----------------------------------------------------------------------------------------------------


def _alone(job: _Job, bench: Bench, turns: Sequence[int]) -> dict[int, Proof]:
    reserve_s = job.plan.joint_share * job.plan.budget_s if len(turns) > 1 else 0.0
    proofs = {}
    for number, index in enumerate(turns):
        finding = job.findings[index]
        left_s = job.budget.left_s() - reserve_s
        slice_s = schedule.slice_s(left_s, len(turns) - number, schedule.cost_of(finding, job.plan, bench.step_ns))
        if slice_s is None:
            proofs[index] = Proof("not-run", NO_BUDGET)
            continue
        on_pairs = job.on_pairs(f"proving {finding.code} ({number + 1} of {len(turns)})")
        proofs[index] = _described(job, [index], _one(bench, finding, job.budget.slice(slice_s), on_pairs))
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
    return replace(proof, command=f"{job.command} --select {codes}", expected_share=expected)


# -- all together ---------------------------------------------------------------------------------------------------


def _together(job: _Job, bench: Bench, alone: Mapping[int, Proof]) -> _Joint:
    """Prove the proven fixes at once, the fastest first; one that another has made impossible is left out."""
    members = sorted((index for index in alone if alone[index].verdict == "proven"), key=lambda i: -_gain(alone[i]))
    left_out: list[str] = []
    while len(members) > 1:
        on_pairs = job.on_pairs(f"proving {len(members)} proven fixes together")
        try:
            proof = tried(bench, [job.findings[index].fix.edits for index in members], job.budget, on_pairs)
            return _Joint(tuple(members), _described(job, members, _noting(proof, left_out)))
        except RefusedError as error:
            refused = members.pop(-1 if error.edit is None else error.edit)
            left_out.append(f"{job.findings[refused].code}: {error}")
    if not members:
        return _Joint((), Proof("not-run", NOTHING_PROVEN))
    return _Joint(tuple(members), _noting(alone[members[0]], left_out))


def _gain(proof: Proof) -> float:
    return proof.speedup or 0.0


def _noting(proof: Proof, left_out: Sequence[str]) -> Proof:
    if not left_out:
        return proof
    return replace(
        proof, why=f"{proof.why}; left out, since it no longer applies after the others: {'; '.join(left_out)}"
    )


# -- what it means for the findings ---------------------------------------------------------------------------------


def _outcome(job: _Job, proofs: Sequence[Proof], joint: _Joint | None) -> Outcome:
    updated = [_updated(finding, proof, job.step_ns) for finding, proof in zip(job.findings, proofs, strict=True)]
    findings = tuple(ranked(updated))
    if joint is None:
        return Outcome(findings, None)
    ranks = {index: rank for rank, index in enumerate(order(updated), start=1)}
    parts = tuple(f"{job.findings[index].code}#{ranks[index]}" for index in joint.members)
    return Outcome(findings, replace(joint.proof, parts=parts))


def _updated(finding: Finding, proof: Proof, step_ns: int | None) -> Finding:
    """Return the finding with its proof: a measured saving takes the place of the expected one."""
    if proof.verdict not in {"proven", "refuted"} or proof.speedup is None:
        return replace(finding, proof=proof)
    share = max(0.0, 1 - 1 / proof.speedup)
    base_ns = proof.before_ns if step_ns is None else step_ns
    saving = Saving(None if base_ns is None else round(share * base_ns), share, "measured")
    return replace(
        finding,
        proof=proof,
        saving=saving,
        severity="info" if proof.verdict == "refuted" else severity_of(share),
    )
