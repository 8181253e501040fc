"""What the steps of an eager loop spend on Python and on dispatching one op after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import judged_profile, programs
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.time.ledger import step_time
from graphlens.ir.eager import Asked, asked_of
from graphlens.ir.run import EAGER_LOOP, Profile

# In steps of Keras that run eagerly, 999 of 1,000 gaps between two ops are shorter than this, the slow ones of its
# optimizer among them; what takes longer is something else that the program does in Python.
LONGEST_DISPATCH_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class EagerLoop:
    """An eager loop whose steps are judged.

    Attributes
    ----------
    asked, source
        The call for gradients with which its steps begin, and the user's line of it.
    ops_per_step
        How many ops Python dispatched, functions not counted.
    kernel_ns
        How long per step something ran for it: kernels of ops, functions, or an accelerator.
    dispatch_ns
        What of the step's time lies between two such, in gaps as short as dispatching an op takes.
    other_ns
        What lies in longer gaps: something else that the program does in Python.
    """

    asked: Asked
    source: str
    ops_per_step: float
    kernel_ns: int
    dispatch_ns: int
    other_ns: int

    @property
    def usual_ns(self) -> int:
        """What a step takes that nothing disturbs: all that is in each of them, as long as it usually is."""
        return self.kernel_ns + self.dispatch_ns + self.other_ns


@fact
def eager_loop(facts: Facts) -> EagerLoop | None:
    """The eager loop that is judged; ``None`` where it is none, or nobody marked where gradients were asked for.

    Times are those of the profiled steps: the profiler takes its own time for every op, which is in ``dispatch_ns``.
    """
    profile, judged = facts(judged_profile), facts(programs).judged
    if profile is None or judged is None or judged.name != EAGER_LOOP:
        return None
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    begins = {(profile.runs[run].thread, profile.runs[run].start_ns) for run in judged.runs}
    first = next((mark for mark in profile.marks if (mark.thread, mark.start_ns) in begins), None)
    if first is None:
        return None
    own = OpEvents.of(profile.ops).of_runs(judged.runs)
    kernel_ns, gaps_ns = _usual(list(_steps(profile, judged)))
    return EagerLoop(
        asked=asked_of(first),
        source=first.source,
        ops_per_step=len(own) / len(judged.runs),
        kernel_ns=round(kernel_ns),
        dispatch_ns=round(sum(ns for ns in gaps_ns if ns <= LONGEST_DISPATCH_NS)),
        other_ns=round(sum(ns for ns in gaps_ns if ns > LONGEST_DISPATCH_NS)),
    )


class _Step(NamedTuple):
    """How long something ran for a step, and the times between, in which nothing did."""

    kernel_ns: int
    gaps_ns: Sequence[int]


def _usual(steps: Sequence[_Step]) -> tuple[float, Sequence[float]]:
    """Return the usual time of kernels, and each usual gap, of the steps that have as many of them as most have.

    A thread that has to wait for a processor makes a long gap of any: what the program does in each step makes the same
    one longer each time.
    """
    most = Counter(len(step.gaps_ns) for step in steps).most_common(1)[0][0]
    alike = [step for step in steps if len(step.gaps_ns) == most]
    gaps_ns = [median(gaps) for gaps in zip(*(step.gaps_ns for step in alike), strict=True)]
    return median(step.kernel_ns for step in alike), gaps_ns


def _steps(profile: Profile, judged: ProgramRuns) -> Iterator[_Step]:
    import numpy as np

    from graphlens.facts.clock.sweep import pairs, united
    from graphlens.ir.columns import DeviceEvents, OpEvents, Spans, concatenated

    runs = [profile.runs[run] for run in judged.runs]
    threads = {run.thread for run in runs}
    functions = (run for run in profile.runs if run.program != EAGER_LOOP and run.thread in threads)
    others = pairs((run.start_ns, run.end_ns) for run in functions)
    columns = (OpEvents.of(profile.ops), Spans.of(profile.executors), DeviceEvents.of(profile.kernels_on_device))
    begins = concatenated([others[0], *(events.start_ns for events in columns)])
    ends = concatenated([others[1], *(events.end_ns for events in columns)])
    since, until = united(begins, ends)
    for run in runs:
        near = (until > run.start_ns) & (since < run.end_ns)
        begun = [run.start_ns, *np.minimum(until[near], run.end_ns).tolist()]
        over = [*np.maximum(since[near], run.start_ns).tolist(), run.end_ns]
        gaps_ns = [end_ns - begin_ns for begin_ns, end_ns in zip(begun, over, strict=True)]
        yield _Step(run.end_ns - run.start_ns - sum(gaps_ns), gaps_ns)


@fact
def dispatch_share(facts: Facts) -> float | None:
    """The share of an eager loop's step that dispatch can take at most; ``None`` where there is no such loop.

    The step is the one without the profiler, where that was measured: what then is left beside kernels, and beside
    what else the program does, is at most dispatch.  Where a thread has to wait for a processor all the time, steps are
    longer than what they are made of: then it is the share of that.
    """
    loop, step = facts(eager_loop), facts(step_time)
    if loop is None or step is None or not step.median_ns:
        return None
    left_ns = step.median_ns - loop.kernel_ns - loop.other_ns
    return max(0, min(loop.dispatch_ns, left_ns)) / min(step.median_ns, loop.usual_ns or step.median_ns)
