"""Where a script waits for a tensor that it makes a value of Python, by the line of the script."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.period import period
from graphlens.facts.time.recorded import stretches
from graphlens.ir.eager import READ


@dataclass(frozen=True, slots=True)
class Read:
    """A line that reads values of tensors.

    Attributes
    ----------
    source, how
        The line, and the method that read: ``__float__``, ``numpy``.
    per_step
        How often it did, per step of the judged program.
    each_ns
        The median time of one.
    share
        What all of them take of the time from step to step.
    """

    source: str
    how: str
    per_step: float
    each_ns: int
    share: float

    @property
    def step_ns(self) -> int:
        """The time that they take per step."""
        return round(self.per_step * self.each_ns)


@fact
def reads(facts: Facts) -> tuple[Read, ...]:
    """Return the lines that read values on the thread of the judged program's steps, by falling time.

    Empty where nobody watched the script, and for a program of which fewer than two steps follow each other.
    """
    profile, judged, between = facts.evidence.profile, facts(programs).judged, facts(period)
    recorded = facts(stretches)
    if profile is None or judged is None or between is None or not recorded:
        return ()
    threads = {profile.runs[run].thread for run in judged.runs}
    start_ns, end_ns = recorded[0].start_ns, recorded[-1].end_ns
    lasted_ns: dict[tuple[str, str], list[int]] = defaultdict(list)
    for mark in profile.marks:
        if mark.kind == READ and mark.thread in threads and start_ns <= mark.start_ns < end_ns:
            lasted_ns[mark.source, mark.detail].append(mark.end_ns - mark.start_ns)
    steps = sum(stretch.steps for stretch in recorded)
    step_ns = (end_ns - start_ns) / steps
    found = [
        Read(source, how, len(ns) / steps, round(median(ns)), min(1.0, len(ns) / steps * median(ns) / step_ns))
        for (source, how), ns in lasted_ns.items()
    ]
    return tuple(sorted(found, key=lambda read: (-read.step_ns, read.source)))
