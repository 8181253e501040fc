"""The pipeline of a script alone, as written against changed: in the processes whose steps were timed, before they end.

How fast its elements come is not how fast the steps are: it tells what a change would give a step that does less else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from graphlens.children.messages import Comparison, Pair
from graphlens.config import Progress, no_progress
from graphlens.ir.analysis import Proof
from graphlens.ir.edits import Edit, is_of_input
from graphlens.prove.bench import NOT_TIMED, with_times
from graphlens.prove.experiment import GRACE_S, Budget, Control, Experiment, Plan, Sample
from graphlens.prove.runner import ORIGINAL, Applied, Edits, GoneError, Opening, Runner, TrialError

NO_TIME: Final = "the time for pipelines alone was spent before its turn; raise --time-budget"
HUNG: Final = "no elements came of another iterator: {0}"
OVER: Final = "the script was over before its pipeline could be timed alone, and there was no time to run it again"
# Blocks as of a dataset; a change that is worth having is seen after some pairs of them.
PLAN: Final = Plan(block_ms=200.0, min_pairs=8, max_pairs=24, half_width=0.1, control_half_width=0.05)
SLICES: Final = 6  # of the budget: for A against A and some changes, of which most take less
LEAST_S: Final = 5.0  # for anything to be told
STARTS: Final = 4  # that the two may take to be there, where one of them or both are over
_WORDS: Final = "timing the pipeline alone, pairs"


class ScriptsRunner(Runner, Protocol):
    """The runner of a script, which can have its pipeline give elements as well."""

    def time_input(
        self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float, *, edits: Edits
    ) -> list[Pair]:
        """Time pairs of blocks of elements; of the dataset that ``edits`` are a change of."""


class PipelineAlone:
    """A runner that hands on what it is asked for, and times the pipelines alone of variants that are to be dropped.

    Parameters
    ----------
    runner
        What the steps are timed by.
    likely
        A change of the pipeline: what A against A is measured of.
    budget_s
        For all that is done here.

    Attributes
    ----------
    proofs
        What came of each change, by its edits: of time alone, one element a call.
    spent_s
        How long that took.
    """

    def __init__(
        self,
        runner: ScriptsRunner,
        likely: Edits,
        budget_s: float,
        progress: Progress = no_progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._likely, self._budget_s = runner, tuple(likely), budget_s
        self._progress, self._clock = progress, clock
        self._fixes: dict[str, Sequence[Edits]] = {}
        self._timed: set[str] = set()
        self._control = Control()
        self._start_s = 0.0
        self._hung = ""  # how, where it did
        self.proofs: dict[tuple[Edit, ...], Proof] = {}
        self.spent_s = 0.0

    def time_without(self) -> float:
        """Return a time that stands still while pipelines are timed: the clock of those who time steps."""
        return self._clock() - self.spent_s

    # -- handed on ----------------------------------------------------------------------------------------------

    def open(self, time_limit_s: float) -> Opening:
        """Open the script."""
        opening = self._runner.open(time_limit_s)
        self._start_s = opening.start_s or 0.0
        return opening

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        """Make a variant, and note of what."""
        self._fixes[variant] = fixes
        self._timed.discard(variant)
        return self._runner.apply(variant, fixes, time_limit_s)

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        """Compare a variant."""
        return self._runner.compare(variant, computes_in, time_limit_s)

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        """Compare the original with itself."""
        return self._runner.compare_unchanged(time_limit_s)

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Time steps, and note of what."""
        timed = self._runner.time(before, after, pairs, block_ms, time_limit_s)
        if timed and before == ORIGINAL:
            self._timed.add(after)
        return timed

    def drop(self, variant: str) -> None:
        """Time the pipeline of a variant whose steps were timed, and end it."""
        if variant in self._timed:
            self._timed.discard(variant)
            self._time_alone(variant, self._fixes[variant])
        self._runner.drop(variant)

    def close(self) -> None:
        """End everything."""
        self._runner.close()

    # -- alone --------------------------------------------------------------------------------------------------

    def _time_alone(self, variant: str, fixes: Sequence[Edits]) -> None:
        with self._counted():
            if not any(fixes):
                self._against_itself(variant)
                return
            edits = tuple(fixes[0])
            if len(fixes) == 1 and all(map(is_of_input, edits)) and edits not in self.proofs:
                self.proofs[edits] = self._proof(variant, edits)

    def _against_itself(self, variant: str) -> None:
        if self._control.wall is not None or not self._has_time():
            return
        experiment = self._experiment(variant, self._likely)
        try:
            self._control = experiment.as_control(self._sample(experiment, experiment.is_narrow))
        except GoneError as error:
            self._hung = HUNG.format(error)
        except TrialError:
            pass  # each change says why itself

    def _proof(self, variant: str, edits: Edits) -> Proof:
        if self._hung or not self._has_time():
            return Proof("not-run", self._hung or NO_TIME)
        experiment = self._experiment(variant, edits)
        try:
            sample = self._sample(experiment, experiment.is_settled)
        except GoneError as error:
            self._hung = HUNG.format(error)
            return Proof("not-run", self._hung)
        except TrialError as error:
            return Proof("not-run", str(error))
        if not sample.pairs:
            return Proof("not-run", OVER)
        return with_times(Proof("inconclusive", NOT_TIMED), experiment.quantities(sample), sample)

    def _experiment(self, variant: str, edits: Edits) -> Experiment:
        elements = _Elements(self._runner, edits)
        return Experiment(elements, ORIGINAL, variant, PLAN, self._control, with_cpu=False)

    def _sample(self, experiment: Experiment, enough: Callable[[Sample], bool]) -> Sample:
        """Time pairs, after one that warms both up; before that, those are run again that are over."""
        slice_s = min(self._left_s(), self._budget_s / SLICES)
        limit_s = slice_s + GRACE_S + STARTS * self._start_s
        warm = experiment.runner.time(experiment.before, experiment.after, 1, PLAN.block_ms, limit_s)
        budget = Budget(self._clock() + slice_s, self._clock)
        return experiment.run(budget, enough, self._on_pairs) if warm else Sample()

    def _has_time(self) -> bool:
        return self._left_s() >= LEAST_S

    def _left_s(self) -> float:
        return self._budget_s - self.spent_s

    def _on_pairs(self, done: int) -> None:
        self._progress(_WORDS, done, PLAN.max_pairs)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begun_s = self._clock()
        try:
            yield
        finally:
            self.spent_s += self._clock() - begun_s


@dataclass(frozen=True, slots=True)
class _Elements:
    """Times elements as steps are timed."""

    runner: ScriptsRunner
    edits: Edits

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Time pairs of blocks."""
        return self.runner.time_input(before, after, pairs, block_ms, time_limit_s, edits=self.edits)
