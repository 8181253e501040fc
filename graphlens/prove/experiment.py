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
from graphlens.prove.runner import Timer
from graphlens.prove.statistics import Interval, calm, hull, interval, log_ratios
from graphlens.prove.verdict import CPU, LEAST_GAIN, WALL, Quantity, judge

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
        Calls are timed in blocks of about this length, or one by one where they take longer.  What a neighbour does
        lasts longer than a short block, and meets both programs alike: beside three busy processes 100 pairs of 25 ms
        give ±1 % of wall time, where 15 pairs of 60 ms, as long together as 36 of them, give ±5 to 8 %.
    min_pairs, max_pairs
        Pairs of blocks before a verdict and at most.
    usual_s
        What timing one fix usually takes until its verdict is clear.
    round_pairs
        Pairs between two looks; even, so that either program goes first equally often.
    half_width, control_half_width
        A proven ratio is measured further until its interval is within this, 0.05 being ±5 %; and A against A, in whose
        noise no gain can be seen.
    control_share, joint_share
        Shares of the budget for A against A, and for all proven fixes together.
    resamples
        Of the bootstrap.
    """

    budget_s: float = DEFAULT_PROOF_BUDGET_S
    block_ms: float = 15.0
    min_pairs: int = 16
    max_pairs: int = 600
    usual_s: float = 3.0
    round_pairs: int = 24
    half_width: float = 0.05
    control_half_width: float = 0.01
    control_share: float = 0.15
    joint_share: float = 0.2
    resamples: int = statistics.RESAMPLES


@dataclass(frozen=True, slots=True)
class Budget:
    """A point in time that work must not pass; what is promising may go on until ``last_s``."""

    end_s: float
    clock: Callable[[], float] = time.monotonic
    last_s: float | None = None

    def left_s(self) -> float:
        """Return what is left, never less than 0."""
        return max(0.0, self.end_s - self.clock())

    def slice(self, seconds: float, spare_s: float = 0.0) -> Budget:
        """Return a part of this budget that starts now, with ``spare_s`` more for what is promising."""
        end_s = min(self.end_s, self.clock() + seconds)
        return Budget(end_s, self.clock, min(self.end_s, end_s + max(0.0, spare_s)))

    def stretched(self) -> Budget:
        """Return the budget of what is promising."""
        return Budget(self.end_s if self.last_s is None else self.last_s, self.clock)

    def later(self, seconds: float) -> Budget:
        """Return this budget with so much more time."""
        last_s = None if self.last_s is None else self.last_s + seconds
        return Budget(self.end_s + seconds, self.clock, last_s)

    def limit_s(self) -> float:
        """Return how long a single command may take before the child counts as hanging."""
        return self.left_s() + GRACE_S


@dataclass(frozen=True, slots=True)
class Sample:
    """The pairs of one experiment, in the order in which they were timed."""

    pairs: tuple[Pair, ...] = ()

    def wall_logs(self) -> list[float]:
        """Return the log-ratios of wall time, of the calm pairs."""
        return _calm([(pair.before_ns, pair.after_ns) for pair in self.pairs])

    def cpu_logs(self) -> list[float]:
        """Return the log-ratios of CPU time, of all pairs: a neighbour hardly changes it."""
        return log_ratios([pair.before_cpu_ns for pair in self.pairs], [pair.after_cpu_ns for pair in self.pairs])

    def wall_noise_logs(self) -> list[float]:
        """Return the log-ratios of neighbouring blocks of the same program: noise of the same minutes."""
        return _calm(_neighbours([(pair.before_ns, pair.after_ns) for pair in self.pairs]))

    def cpu_noise_logs(self) -> list[float]:
        """Return the same of CPU time."""
        return _logs(_neighbours([(pair.before_cpu_ns, pair.after_cpu_ns) for pair in self.pairs]))

    def median_ns(self, side: str) -> int:
        """Return the median time of a call; ``side`` is a field of ``Pair``."""
        times: list[float] = [getattr(pair, side) for pair in self.pairs]
        return round(median(times))


Times = Sequence[tuple[float, float]]


def _neighbours(times: Times) -> Times:
    """Return the times of blocks of one program that follow each other: A B, B A, A B has B B and A A."""
    return [(first[side], second[side]) for (first, second), side in zip(pairwise(times), cycle((1, 0)), strict=False)]


def _logs(times: Times) -> list[float]:
    return log_ratios([first for first, _ in times], [second for _, second in times])


def _calm(times: Times) -> list[float]:
    told = [pair for pair in times if min(pair) > 0]
    return calm(_logs(told), [sum(pair) for pair in told])


NOTHING: Final = Sample()


@dataclass(frozen=True, slots=True)
class Control:
    """What the machine does to an unchanged program: the original against an unedited copy."""

    wall: Interval | None = None
    cpu: Interval | None = None


@dataclass(frozen=True)
class Experiment:
    """A question to a runner: is ``after`` faster than ``before``?  ``quantities`` are judged, wall time first."""

    runner: Timer
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

    def as_control(self, sample: Sample) -> Control:
        """Return what pairs of the original and an unedited copy of it tell of the machine."""
        return Control(*(quantity.ratio for quantity in self.quantities(sample)))

    def _interval(self, logs: Sequence[float]) -> Interval | None:
        return interval(logs, self.plan.resamples)

    def run(
        self,
        budget: Budget,
        enough: Callable[[Sample], bool],
        on_pairs: Callable[[int], None],
        sample: Sample = NOTHING,
    ) -> Sample:
        """Time more pairs until it is enough, or the next round would not fit into the budget.

        Where a gain is seen and not yet shown, that is the stretched one.
        """
        pair_s = 0.0
        while not (sample.pairs and enough(sample)):
            wanted = self._next_round(len(sample.pairs), pair_s, self._left_s(sample, budget))
            if not wanted:
                break
            started_s = budget.clock()
            timed = self.runner.time(self.before, self.after, wanted, self.plan.block_ms, budget.limit_s())
            if not timed:
                break
            sample = Sample((*sample.pairs, *timed))
            pair_s = (budget.clock() - started_s) / wanted
            on_pairs(len(sample.pairs))
        return sample

    def _next_round(self, done: int, pair_s: float, left_s: float) -> int:
        """Return how many pairs to time before the next look: none when enough are, or the time is up."""
        fitting = int(min(LONGEST_ROUND_S, left_s) / pair_s) if pair_s else FEWEST_PER_ROUND
        wanted = max(FEWEST_PER_ROUND, min(fitting, self.plan.round_pairs) // 2 * 2)
        wanted = min(wanted, self.plan.max_pairs - done)
        return wanted if left_s > pair_s * wanted else 0

    def _left_s(self, sample: Sample, budget: Budget) -> float:
        left_s = budget.left_s()
        longer_s = budget.stretched().left_s()
        return longer_s if longer_s > left_s and self.is_promising(sample) else left_s

    def is_promising(self, sample: Sample) -> bool:
        """Whether a gain worth having is seen and not yet shown."""
        quantities = self.quantities(sample)
        seen = all(one.ratio is not None and one.ratio.point > LEAST_GAIN for one in quantities)
        return seen and judge(quantities, len(sample.pairs))[0] == "inconclusive"

    def is_hindered(self, sample: Sample) -> bool:
        """Whether nothing but the noise of A against A, as far as it is known, stands in the way of a gain."""
        quantities = self.quantities(sample)
        shown = all(one.ratio is not None and one.ratio.low > LEAST_GAIN for one in quantities)
        return shown and judge(quantities, len(sample.pairs))[0] == "inconclusive"

    def is_settled(self, sample: Sample) -> bool:
        """Whether more pairs would not change the verdict: slower, or enough pairs and refuted, or proven narrowly."""
        quantities = self.quantities(sample)
        verdict, _ = judge(quantities, len(sample.pairs))
        if verdict == "refuted" and all(quantity.slows for quantity in quantities):
            return True
        if verdict == "inconclusive" or len(sample.pairs) < self.plan.min_pairs:
            return False
        return verdict == "refuted" or _are_narrow(quantities, self.plan.half_width)

    def is_narrow(self, sample: Sample) -> bool:
        """Whether there are enough pairs of A and A and every interval is as narrow as the noise can be asked to be."""
        enough = len(sample.pairs) >= self.plan.min_pairs
        return enough and _are_narrow(self.quantities(sample), self.plan.control_half_width)


def _are_narrow(quantities: Sequence[Quantity], half_width: float) -> bool:
    ratios = [quantity.ratio for quantity in quantities]
    return all(ratio is not None and ratio.half_width <= half_width for ratio in ratios)


def _both(control: Interval | None, within: Interval | None) -> Interval | None:
    """Return the noise of control and sample; without a control there is none to compare with."""
    return None if control is None else hull([control, within])
