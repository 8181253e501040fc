"""Time two programs against each other until it is clear which is faster, or the time is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from statistics import median
from typing import Final

from graphlens.children.messages import Pair
from graphlens.config import DEFAULT_PROOF_BUDGET_S
from graphlens.prove import statistics
from graphlens.prove.runner import Runner
from graphlens.prove.statistics import Interval, hull, interval, log_ratios
from graphlens.prove.verdict import CPU, WALL, Quantity, judge

# A round begins with either program equally often, so it has an even number of pairs; slow programs get short rounds.
FEWEST_PER_ROUND: Final = 2
LONGEST_ROUND_S: Final = 3.0
# A command to the child may take this much longer than planned before the child counts as hanging.
GRACE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How proofs are measured.

    Attributes
    ----------
    budget_s
        For all proofs of an analysis together.
    block_ms
        Calls are timed in blocks of at least this length: shorter ones drown in the scheduler's time slices.
    min_pairs, max_pairs
        Pairs of blocks before the first look and at most; about 15 give ±5 % of wall time on a quiet machine, 45 on a
        shared one.
    round_pairs
        Pairs between two looks; even, so that either program goes first equally often.
    half_width
        A proven ratio is measured further until its interval is within this, 0.05 being ±5 %.
    control_share, joint_share
        Shares of the budget for A against A, and for all proven fixes together.
    resamples
        Of the bootstrap.
    """

    budget_s: float = DEFAULT_PROOF_BUDGET_S
    block_ms: float = 60.0
    min_pairs: int = 12
    max_pairs: int = 60
    round_pairs: int = 4
    half_width: float = 0.05
    control_share: float = 0.15
    joint_share: float = 0.2
    resamples: int = statistics.RESAMPLES


@dataclass(frozen=True, slots=True)
class Budget:
    """A point in time that work must not pass."""

    end_s: float
    clock: Callable[[], float] = time.monotonic

    def left_s(self) -> float:
        """Return what is left, never less than 0."""
        return max(0.0, self.end_s - self.clock())

    def slice(self, seconds: float) -> Budget:
        """Return a part of this budget that starts now."""
        return Budget(min(self.end_s, self.clock() + seconds), self.clock)

    def later(self, seconds: float) -> Budget:
        """Return this budget with so much more time."""
        return Budget(self.end_s + seconds, self.clock)

    def limit_s(self) -> float:
        """Return how long a single command may take before the child counts as hanging."""
        return self.left_s() + GRACE_S


@dataclass(frozen=True, slots=True)
class Sample:
    """The pairs of one experiment, in the order in which they were timed."""

    pairs: tuple[Pair, ...] = ()

    def wall_logs(self) -> list[float]:
        """Return the log-ratios of wall time."""
        return log_ratios([pair.before_ns for pair in self.pairs], [pair.after_ns for pair in self.pairs])

    def cpu_logs(self) -> list[float]:
        """Return the log-ratios of CPU time."""
        return log_ratios([pair.before_cpu_ns for pair in self.pairs], [pair.after_cpu_ns for pair in self.pairs])

    def wall_noise_logs(self) -> list[float]:
        """Return the log-ratios of neighbouring blocks of the same program: noise of the same minutes."""
        return _neighbours([(pair.before_ns, pair.after_ns) for pair in self.pairs])

    def cpu_noise_logs(self) -> list[float]:
        """Return the same of CPU time."""
        return _neighbours([(pair.before_cpu_ns, pair.after_cpu_ns) for pair in self.pairs])

    def median_ns(self, side: str) -> int:
        """Return the median time of a call; ``side`` is a field of ``Pair``."""
        times: list[float] = [getattr(pair, side) for pair in self.pairs]
        return round(median(times))


def _neighbours(times: Sequence[tuple[float, float]]) -> list[float]:
    """Return the log-ratios of blocks of one program that follow each other: A B, B A, A B has B B and A A."""
    sides = [(first[side], second[side]) for (first, second), side in zip(pairwise(times), cycle((1, 0)), strict=False)]
    return log_ratios([first for first, _ in sides], [second for _, second in sides])


@dataclass(frozen=True, slots=True)
class Control:
    """What the machine does to an unchanged program: the original against an unedited copy."""

    wall: Interval | None = None
    cpu: Interval | None = None


@dataclass(frozen=True)
class Experiment:
    """A question to a runner: is ``after`` faster than ``before``?  ``quantities`` are judged, wall time first."""

    runner: Runner
    before: str
    after: str
    plan: Plan
    control: Control = field(default_factory=Control)
    with_cpu: bool = True

    def quantities(self, sample: Sample) -> list[Quantity]:
        """Return the measured ratios, each beside the noise: that of the control, and that within the sample."""
        ratio = self._interval
        wall = Quantity(WALL, ratio(sample.wall_logs()), _both(self.control.wall, ratio(sample.wall_noise_logs())))
        if not self.with_cpu:
            return [wall]
        cpu = Quantity(CPU, ratio(sample.cpu_logs()), _both(self.control.cpu, ratio(sample.cpu_noise_logs())))
        return [wall, cpu]

    def _interval(self, logs: Sequence[float]) -> Interval | None:
        return interval(logs, self.plan.resamples)

    def run(self, budget: Budget, enough: Callable[[Sample], bool], on_pairs: Callable[[int], None]) -> Sample:
        """Time pairs until it is enough, or the next round would not fit into the budget."""
        sample, pair_s = Sample(), 0.0
        while wanted := self._next_round(len(sample.pairs), pair_s, budget.left_s()):
            started_s = budget.clock()
            timed = self.runner.time(self.before, self.after, wanted, self.plan.block_ms, budget.limit_s())
            sample = Sample((*sample.pairs, *timed))
            pair_s = (budget.clock() - started_s) / wanted
            on_pairs(len(sample.pairs))
            if enough(sample):
                break
        return sample

    def _next_round(self, done: int, pair_s: float, left_s: float) -> int:
        """Return how many pairs to time before the next look: none when enough are, or the time is up."""
        slow = done == 0 or pair_s * self.plan.round_pairs > LONGEST_ROUND_S
        wanted = min(FEWEST_PER_ROUND if slow else self.plan.round_pairs, self.plan.max_pairs - done)
        return wanted if left_s > pair_s * wanted else 0

    def is_settled(self, sample: Sample) -> bool:
        """Whether more pairs would not change the verdict: slower, or enough pairs and refuted, or proven narrowly."""
        quantities = self.quantities(sample)
        verdict, _ = judge(quantities, len(sample.pairs))
        if verdict == "refuted" and all(quantity.slows for quantity in quantities):
            return True
        if verdict == "inconclusive" or len(sample.pairs) < self.plan.min_pairs:
            return False
        return verdict == "refuted" or self._are_narrow(quantities)

    def is_narrow(self, sample: Sample) -> bool:
        """Whether there are enough pairs and every interval is within the half width asked for."""
        return len(sample.pairs) >= self.plan.min_pairs and self._are_narrow(self.quantities(sample))

    def _are_narrow(self, quantities: Sequence[Quantity]) -> bool:
        ratios = [quantity.ratio for quantity in quantities]
        return all(ratio is not None and ratio.half_width <= self.plan.half_width for ratio in ratios)


def _both(control: Interval | None, within: Interval | None) -> Interval | None:
    """Return the noise of control and sample; without a control there is none to compare with."""
    return None if control is None else hull([control, within])
