"""Measure one changed program against the original, and say in a ``Proof`` what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from graphlens.children.messages import Comparison, Difference
from graphlens.ir.analysis import Proof
from graphlens.ir.edits import ChangesType, SessionSetting
from graphlens.ir.settings import is_setting
from graphlens.prove import schedule
from graphlens.prove.experiment import Budget, Control, Experiment, Plan, Sample
from graphlens.prove.floors import Floors
from graphlens.prove.runner import (
    ORIGINAL,
    Applied,
    Edits,
    GoneError,
    NotOpenedError,
    Opening,
    RefusedError,
    Runner,
    TrialError,
)
from graphlens.prove.verdict import Quantity, judge
from graphlens.units import format_count, format_ns

COPY: Final = "copy"  # of the original, built like the fixes and not edited
FIXED: Final = "fixed"
BASE: Final = "base"  # with the fixes that another one is to be measured on top of

# Of the original in a process of its own, with nothing set.
SECOND_PROCESS: Final[Edits] = (SessionSetting(),)

# Part of an output's largest value by which rounding may change it: computing all of BERT in bfloat16 gave 0.016, and
# three times that is another result.
MOST_OF_ROUNDING: Final = 0.05
NOT_TIMED: Final = "nothing was timed yet"
NOT_UNASKED: Final = "applied only where --rtol allows that"
AS_MEANT: Final = (
    "other numbers are what the change is about, and whether it trains as well no measurement of time tells"
)

LEAST_TO_REFINE_S: Final = 3 * schedule.BUILD_S  # to copy the program once more, and time to tell anything by it

LONG_FIRST_CALL_NS: Final = 100_000_000  # less is of no weight beside starting the program

# It took about as long when it was recorded; beyond this it hangs.
OPEN_LIMIT_S: Final = 600.0

OnPairs = Callable[[int], None]


class BlockedError(Exception):
    """No fix can be proven, for a reason that has nothing to do with any of them; ``verdict`` is that of all."""

    def __init__(self, verdict: Literal["not-run", "failed", "inconclusive"], why: str) -> None:
        super().__init__(why)
        self.verdict = verdict


@dataclass
class Noise:
    """What the machine does to an unchanged program: beside it, and, once that was asked for, in another process.

    ``sample`` are the pairs that the first was found by.
    """

    beside: Control
    sample: Sample
    across: Control | None = None


@dataclass
class Bench:
    """A target that is open, with what its noise was found to be.

    ``step_ns`` is what a call takes here and now; ``with_cpu`` where CPU time tells anything; ``start_s`` as in
    ``runner.Opening``.
    """

    runner: Runner
    plan: Plan
    step_ns: int
    noise: Noise
    floors: Floors
    with_cpu: bool = True
    start_s: float | None = None

    @property
    def is_apart(self) -> bool:
        """Whether every variant is a process of its own."""
        return self.start_s is not None


def opened(runner: Runner) -> Opening:
    """Open the target.

    Raises
    ------
    BlockedError
        If it cannot be.
    """
    with _blocking():
        return runner.open(OPEN_LIMIT_S)


def prepared(
    runner: Runner, plan: Plan, budget: Budget, *, with_cpu: bool, on_pairs: OnPairs, start_s: float | None = None
) -> Bench:
    """Measure the open target against an unedited copy of itself; ``start_s`` as in ``runner.Opening``.

    The copy is built as the fixes are.  What rebuilding alone does to the speed or to the outputs is thereby part of
    the noise, and no fix can claim it.

    Raises
    ------
    BlockedError
        If the target cannot be copied, or not be compared with itself.
    """
    experiment = Experiment(runner, ORIGINAL, COPY, plan, Control(), with_cpu)
    floors = Floors(runner)
    control, sample, step_ns = _against_itself(runner, experiment, (), floors, budget, on_pairs=on_pairs)
    noise = Noise(control, sample, control if start_s is not None else None)
    return Bench(runner, plan, step_ns, noise, floors, with_cpu, start_s)


def _against_itself(
    runner: Runner, experiment: Experiment, edits: Sequence[Edits], floors: Floors, budget: Budget, *, on_pairs: OnPairs
) -> tuple[Control, Sample, int]:
    """Compare and time the original against a copy with ``edits`` that change nothing; return what a call takes too."""
    with _blocking():
        copied = runner.apply(COPY, edits, budget.limit_s())
        _check_copy(floors.under(runner.compare(COPY, None, budget.limit_s())))
        slice_s = schedule.control_s(experiment.plan, copied.second_call_ns)
        sample = experiment.run(budget.slice(slice_s), experiment.is_narrow, on_pairs)
        runner.drop(COPY)
    step_ns = sample.median_ns("before_ns") if sample.pairs else copied.second_call_ns
    return experiment.as_control(sample), sample, step_ns


def _settled(bench: Bench, experiment: Experiment, budget: Budget, on_pairs: OnPairs) -> tuple[list[Quantity], Sample]:
    """Time two programs until the verdict is clear.

    Where a gain is seen and the noise of A against A is not known well enough to tell it from, that is measured further
    in half of the time that is left, and then the two programs in the other half.
    """
    sample = experiment.run(budget, experiment.is_settled, on_pairs)
    left_s = budget.stretched().left_s()
    if experiment.is_hindered(sample) and _can_be_refined(bench, experiment) and left_s > _least_to_refine_s(bench):
        _refine(bench, budget.stretched().slice(left_s / 2), on_pairs)
        experiment = replace(experiment, control=bench.noise.beside)
        sample = experiment.run(budget.stretched(), experiment.is_settled, on_pairs, sample)
    return experiment.quantities(sample), sample


def _least_to_refine_s(bench: Bench) -> float:
    return max(LEAST_TO_REFINE_S, 3 * (bench.start_s or 0.0))


def _can_be_refined(bench: Bench, experiment: Experiment) -> bool:
    return experiment.control is bench.noise.beside and not experiment.is_narrow(bench.noise.sample)


def _refine(bench: Bench, budget: Budget, on_pairs: OnPairs) -> None:
    """Add pairs of A against A to those that are known."""
    experiment = Experiment(bench.runner, ORIGINAL, COPY, bench.plan, Control(), bench.with_cpu)
    bench.runner.apply(COPY, (), budget.limit_s())
    sample = experiment.run(budget, experiment.is_narrow, on_pairs, bench.noise.sample)
    bench.runner.drop(COPY)
    bench.noise = Noise(experiment.as_control(sample), sample, bench.noise.across)


def _control_of(bench: Bench, fixes: Sequence[Edits], budget: Budget, on_pairs: OnPairs) -> Control:
    """Return the noise to judge ``fixes`` by.

    Two processes differ by themselves, in where their memory lies for instance; what is measured in one of its own is
    judged by what an unedited copy in one of its own does.
    """
    if not any(is_setting(edit) for edits in fixes for edit in edits):
        return bench.noise.beside
    if bench.noise.across is None:
        experiment = Experiment(bench.runner, ORIGINAL, COPY, bench.plan, Control(), bench.with_cpu)
        half = budget.slice(budget.left_s() / 2)
        bench.noise.across, _, _ = _against_itself(
            bench.runner, experiment, (SECOND_PROCESS,), bench.floors, half, on_pairs=on_pairs
        )
    return bench.noise.across


@contextmanager
def _blocking() -> Iterator[None]:
    try:
        yield
    except NotOpenedError as error:
        raise BlockedError("not-run", f"the target could not be opened for a trial: {error}") from error
    except RefusedError as error:
        raise BlockedError("failed", f"this program cannot be rewritten: {error}") from error
    except TrialError as error:
        raise BlockedError("failed", f"an unedited copy of the program could not be measured: {error}") from error


def _check_copy(comparison: Comparison) -> None:
    if comparison.unstable:
        raise BlockedError("inconclusive", _unstable(comparison.unstable[0]))
    worst = _worst(comparison)
    if worst is not None and not worst.agrees:
        raise BlockedError("failed", f"even an unedited copy of the program gives other outputs: {_difference(worst)}")


def tried(bench: Bench, fixes: Sequence[Edits], budget: Budget, on_pairs: OnPairs, base: Sequence[Edits] = ()) -> Proof:
    """Apply ``fixes`` one after another to a copy, compare its outputs with the original's, and time it.

    Parameters
    ----------
    base
        Fixes that are applied before ``fixes``, and to what the copy is timed against: the original where there are
        none.

    Raises
    ------
    RefusedError
        If one of them cannot be applied.
    """
    started_s = budget.clock()
    try:
        proof = _measured(bench, fixes, budget, on_pairs, base)
    except RefusedError:
        raise
    except BlockedError as error:
        proof = Proof("not-run", f"a setting takes a second process, and no noise could be measured there: {error}")
    except NotOpenedError as error:
        proof = Proof("not-run", f"the target could not be opened again after the last fix had failed: {error}")
    except GoneError as error:
        proof = Proof("failed", f"the trial of the fix came to no end: {error}")
    except TrialError as error:
        proof = Proof("failed", f"TensorFlow failed on the changed program: {error}")
    with suppress(TrialError):
        bench.runner.drop(FIXED)
        bench.runner.drop(BASE)
    return replace(proof, spent_s=round(budget.clock() - started_s, 1))


def _measured(bench: Bench, fixes: Sequence[Edits], budget: Budget, on_pairs: OnPairs, base: Sequence[Edits]) -> Proof:
    control = _control_of(bench, fixes, budget, on_pairs)
    if base:
        bench.runner.apply(BASE, base, budget.limit_s())
    applied = bench.runner.apply(FIXED, [*base, *fixes], budget.limit_s())
    compared = bench.runner.compare(FIXED, computes_in([*base, *fixes]), budget.limit_s())
    compared_s = budget.clock()
    meant = changes_numbers([*base, *fixes])
    comparison = compared if meant else bench.floors.under(compared)
    budget = budget.later(budget.clock() - compared_s)  # found once, and of use to every fix
    proof, change = _compared(comparison, applied, meant=meant)
    if proof.verdict == "failed" or comparison.unstable:
        return replace(proof, why=proof.why + bench.floors.doubt)
    change += bench.floors.doubt if change else ""
    experiment = Experiment(bench.runner, BASE if base else ORIGINAL, FIXED, bench.plan, control, bench.with_cpu)
    timed_too = _earned_back(with_times(proof, *_settled(bench, experiment, budget, on_pairs)), applied)
    if comparison.uncompared:
        timed_too = _uncompared(timed_too, comparison.uncompared)
    return _placed(_changing(timed_too, change, AS_MEANT if meant else NOT_UNASKED) if change else timed_too, applied)


def timed(bench: Bench, variant: str, budget: Budget, on_pairs: OnPairs) -> Proof:
    """Time a program that the runner holds against the original, and judge it by the noise.

    Its outputs are the caller's to compare.

    Raises
    ------
    TrialError
        If it cannot be run.
    """
    experiment = Experiment(bench.runner, ORIGINAL, variant, bench.plan, bench.noise.beside, bench.with_cpu)
    return with_times(Proof("inconclusive", NOT_TIMED), *_settled(bench, experiment, budget, on_pairs))


def _earned_back(proof: Proof, applied: Applied) -> Proof:
    """Add after how many steps a longer first call is earned back, where the steps are faster."""
    if proof.verdict != "proven" or proof.before_ns is None or proof.after_ns is None:
        return proof
    gained_ns, longer_ns = proof.before_ns - proof.after_ns, applied.longer_ns or 0
    if gained_ns <= 0 or longer_ns <= LONG_FIRST_CALL_NS:
        return proof
    steps = format_count(-(-longer_ns // gained_ns))
    return replace(
        proof, why=f"{proof.why}; its first call takes {format_ns(longer_ns)} longer, which {steps} steps earn back"
    )


def _placed(proof: Proof, applied: Applied) -> Proof:
    """Add how the process of the changed program was set up, where it had one of its own."""
    if not applied.where:
        return proof
    return replace(proof, why=f"{proof.why}; measured between two processes, the second with {applied.where}")


def computes_in(fixes: Sequence[Edits]) -> str | None:
    """Return the type that the fixes say they compute in from now on, which bounds how exact they can be."""
    return next((edit.to for edits in fixes for edit in edits if isinstance(edit, ChangesType)), None)


def changes_numbers(fixes: Sequence[Edits]) -> bool:
    """Whether the fixes are known to give other numbers, which then are no fault."""
    return any(getattr(edit, "changes_numbers", False) for edits in fixes for edit in edits)


# -- outputs --------------------------------------------------------------------------------------------------------


def _compared(comparison: Comparison, applied: Applied, *, meant: bool) -> tuple[Proof, str]:
    """Return a proof of the outputs alone, and what it changes about numbers: that is for a person to judge."""
    worst = _worst(comparison)
    proof = _compiled(Proof("inconclusive", NOT_TIMED, first_call_ns=applied.first_call_ns), applied)
    if comparison.unstable:
        return replace(proof, why=_unstable(comparison.unstable[0])), ""
    if comparison.uncompared:
        return proof, ""
    if worst is None:
        return replace(proof, verdict="failed", why="the program has no outputs that could be compared"), ""
    proof = replace(
        proof,
        output=worst.output,
        output_dtype=worst.dtype,
        max_abs_diff=worst.max_abs,
        max_rel_diff=worst.max_rel,
        tolerance=worst.tolerance,
        floor_rel_diff=worst.floor,
        floor_from=worst.floor_from,
    )
    change = "" if worst.agrees else f"outputs differ: {_difference(worst)}"
    if worst.agrees or _is_of_rounding(worst) or meant:
        return proof, change
    return replace(proof, verdict="failed", why=change), ""


def _is_of_rounding(one: Difference) -> bool:
    """Whether rounding alone may be the reason of a difference."""
    return one.mismatch is None and one.max_rel is not None and one.max_rel <= MOST_OF_ROUNDING


def _changing(proof: Proof, change: str, who_decides: str) -> Proof:
    """Return a proof of what was timed and changes numbers: faster or not, it is not applied unasked."""
    if proof.verdict != "proven":
        return replace(proof, why=f"{proof.why}; {change}")
    return replace(proof, verdict="changes-numbers", why=f"{proof.why}; but {change}; {who_decides}")


def _uncompared(proof: Proof, why: str) -> Proof:
    """Return a proof of time alone: that is enough to refute, and to prove nothing."""
    if proof.verdict != "proven":
        return replace(proof, why=f"{proof.why}; the numbers were not compared: {why}")
    return replace(proof, verdict="inconclusive", why=f"{proof.why}; but the numbers were not compared: {why}")


def _worst(comparison: Comparison) -> Difference | None:
    """Return the output that disagrees, or else the one that differs most for its tolerance."""
    return max(comparison.differences, key=_badness, default=None)


def _badness(difference: Difference) -> tuple[bool, bool, float]:
    relative = difference.max_rel or 0.0
    weighed = relative / difference.tolerance if difference.tolerance else relative
    return not difference.agrees, not (difference.agrees or _is_of_rounding(difference)), weighed


def _difference(one: Difference) -> str:
    if one.mismatch is not None:
        return f"'{one.output}' ({one.dtype}): {one.mismatch}"
    return (
        f"'{one.output}' ({one.dtype}) by {one.max_abs:.2g}, which is {one.max_rel:.2g} of its largest value "
        f"where {one.tolerance:.2g} is allowed{_floor(one)}"
    )


def _floor(one: Difference) -> str:
    return "" if one.floor is None else f" (unchanged and with {one.floor_from} it differs by {one.floor:.2g})"


def _unstable(one: Difference) -> str:
    if one.floor is not None:
        return f"all outputs are noise, '{one.output}' too{_floor(one)}, so nothing can be compared with them"
    return f"the original's own outputs change from call to call ('{one.output}'), so nothing can be compared with them"


# -- compiling ------------------------------------------------------------------------------------------------------


def _compiled(proof: Proof, applied: Applied) -> Proof:
    if applied.compiled is None:
        return proof
    compiled = applied.compiled
    return replace(
        proof,
        compile_ns=applied.compile_ns,
        compiled_ops=compiled.ops,
        program_ops=compiled.of_ops,
        fusions=compiled.fusions,
    )


def _cost_of_compiling(proof: Proof) -> str:
    """Say what XLA compiled and what that costs, as the end of a sentence; empty where it compiles nothing."""
    if proof.compile_ns is None:
        return ""
    cluster = f"{proof.compiled_ops:,} of {proof.program_ops:,} ops"
    fusions = "" if proof.fusions is None else f" to {proof.fusions:,} fusions"
    took = f"in {format_ns(proof.compile_ns)}, once for every new shape of the inputs"
    return f"; XLA compiled {cluster}{fusions} {took}"


# -- times ----------------------------------------------------------------------------------------------------------


def with_times(proof: Proof, quantities: Sequence[Quantity], sample: Sample) -> Proof:
    """Return a proof with what was measured, and the verdict on it."""
    verdict, why = judge(quantities, len(sample.pairs))
    wall, *rest = quantities
    proof = replace(proof, verdict=verdict, why=why + _cost_of_compiling(proof), pairs=len(sample.pairs))
    if not sample.pairs:
        return proof
    proof = replace(
        proof,
        before_ns=sample.median_ns("before_ns"),
        after_ns=sample.median_ns("after_ns"),
        speedup=wall.ratio.point if wall.ratio else None,
        ci95=wall.ratio.ends if wall.ratio else None,
        aa_ci95=wall.noise.ends if wall.noise else None,
    )
    return _with_cpu(proof, rest[0], sample) if rest else proof


def _with_cpu(proof: Proof, cpu: Quantity, sample: Sample) -> Proof:
    return replace(
        proof,
        cpu_before_ns=sample.median_ns("before_cpu_ns"),
        cpu_after_ns=sample.median_ns("after_cpu_ns"),
        cpu_speedup=cpu.ratio.point if cpu.ratio else None,
        cpu_ci95=cpu.ratio.ends if cpu.ratio else None,
        aa_cpu_ci95=cpu.noise.ends if cpu.noise else None,
    )
