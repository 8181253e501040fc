"""Measurements that cannot be: they tell of a step that was taken for another one, and nothing may rest on it."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.paths import longest_path
from graphlens.units import format_ns, format_share

# Medians of ops need not add up to the median of the steps, and an op may end after the step in which it began; on
# whole steps the difference was never above this.
MEDIANS_DIFFER: Final = 1.05


_ROUNDING: Final = 1e-9  # what adding up shares of floating point may be off by


@fact
def why_impossible(facts: Facts) -> str | None:
    """Return in words what of the measurement cannot be; ``None`` when nothing is wrong."""
    step = facts(step_time)
    found = facts(attribution)
    if not step or not step.profiled_ns or not found.wall_ns:
        return None
    # Of steps that do different work by turns, ops are timed over all of them, be these whole cycles or not.
    mean_ns = round(fmean(found.wall_ns)) if found.cycle.kinds else 0
    why = next(_contradictions(facts, max(step.profiled_ns, mean_ns)), None)
    return why and f"{why}: what was taken for the steps of this profile is not one, so no time is shown"


def _contradictions(facts: Facts, step_ns: int) -> Iterator[str]:
    found = facts(attribution)
    wall_ns = sum(found.wall_ns)
    if found.event_ns > MEDIANS_DIFFER * found.threads * wall_ns:
        yield (
            f"ops ran for {format_ns(found.event_ns)} on {found.threads} threads within {len(found.wall_ns)} steps "
            f"of {format_ns(wall_ns)} in all"
        )
    path = facts(longest_path)
    if path is not None and path.ns > MEDIANS_DIFFER * step_ns:
        yield f"a chain of ops that wait for each other takes {format_ns(path.ns)}, a step {format_ns(step_ns)}"
    if any(row.ns < 0 for row in facts(ledger)):
        yield "a part of the step takes less than no time"
    whole = 1 + _ROUNDING
    for name, timing in found.timings.items():
        if timing.wall_share is not None and timing.wall_share > whole:
            yield f"{name} ran in {format_share(timing.wall_share)} of the step"
    for program in facts(programs).all:
        if program.share > whole:
            yield f"{program.name} ran in {format_share(program.share)} of the profile"
