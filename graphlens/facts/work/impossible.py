"""Measurements that cannot be: they tell of a step that was taken for another one, and nothing may rest on it."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.paths import heaviest_path, longest_path, path_weights_ns
from graphlens.facts.work.roofline import roofline
from graphlens.ir.measured import CriticalPath
from graphlens.ir.ops import LOOPS, NEXT_ITERATIONS
from graphlens.units import format_flop_rate, format_ns, format_share

# Medians of ops need not add up to the median of the steps, and an op may end after the step in which it began; on
# whole steps the difference was never above this.
MEDIANS_DIFFER: Final = 1.05


# A roof that was measured beside other programs may be a few times too low, and there are algorithms that need up to
# four times fewer operations than are counted (Winograd's); dispatching a convolution takes a hundredth of its time.
ABOVE_ROOF: Final = 10.0
TELLING_FLOPS: Final = 1_000_000  # less is over before a clock tells how long it took

_OF_LOOPS: Final = LOOPS | NEXT_ITERATIONS

_NS_PER_S: Final = 1e9
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
    if why is not None:
        return f"{why}: what was taken for the steps of this profile is not one, so no time is shown"
    why = next(_too_fast(facts), None)
    return why and f"{why}: what was taken for its time is not that of its work, so no time is shown"


def _too_fast(facts: Facts) -> Iterator[str]:
    """Say which ops computed faster than the machine can: only the time of their dispatch was seen, then.

    Bytes may be read from a cache faster than from the memory that was measured; nothing computes faster.
    """
    compared = facts(roofline)
    if compared is None:
        return
    roof = compared.roof
    for point in compared.points:
        ns = facts(attribution).timings[point.op].self_ns
        times = point.flops / max(ns, 1) * _NS_PER_S / roof.flops_per_s
        if point.flops >= TELLING_FLOPS and times > ABOVE_ROOF:
            yield (
                f"{point.op} would compute at {format_flop_rate(times * roof.flops_per_s)}, {times:.0f} times what "
                f"this machine can do at best ({format_flop_rate(roof.flops_per_s)})"
            )


def _waiting(facts: Facts) -> CriticalPath | None:
    """Return the longest chain of ops that wait for each other; of a loop they do so in one iteration.

    Ops of different iterations run side by side: what all of them take together may be more than the step.
    """
    graph = facts(judged_graph)
    if not graph.of_types(_OF_LOOPS):
        return facts(longest_path)
    timings = facts(attribution).timings
    once = {name: round(ns / max(1.0, timings[name].calls_per_step)) for name, ns in facts(path_weights_ns).items()}
    return heaviest_path(graph, once)


def _contradictions(facts: Facts, step_ns: int) -> Iterator[str]:
    found = facts(attribution)
    wall_ns = sum(found.wall_ns)
    if found.event_ns > MEDIANS_DIFFER * found.threads * wall_ns:
        yield (
            f"ops ran for {format_ns(found.event_ns)} on {found.threads} threads within {len(found.wall_ns)} steps "
            f"of {format_ns(wall_ns)} in all"
        )
    path = _waiting(facts)
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
