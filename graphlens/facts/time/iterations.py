"""How often the ops of a loop ran: by its iterations, since the profiler leaves out some executions of cheap ops."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from graphlens.ir.run import OpTiming

# Where as large a part of an op's executions was seen, it ran in all iterations: ops of a body run once in each.
COMPLETE_SHARE: Final = 0.98

# The runtime names what it inlined `net/while/body/_9/net/while/MatMul`; the names of the graph as written are the same
# without numbers.  Of loops in each other the innermost one is the last.
_PART_OF_LOOP = re.compile(r"^(?P<part>.*/(body|cond)(/_\d+)?)/(?P<rest>.*)$")
_BRANCH = re.compile(r"(^|/)(then|else|branch_\d+)(/_\d+)?/")


def by_iterations(timings: Mapping[str, OpTiming]) -> dict[str, OpTiming]:
    """Return the times of ops, those of loops with the calls of the op of the same body that was seen most often."""
    counted = dict(timings)
    for ops in _bodies(timings).values():
        most = max(timings[name].calls_per_step for name in ops)
        for name in ops:
            if COMPLETE_SHARE * most <= timings[name].calls_per_step < most:
                counted[name] = replace(timings[name], calls_per_step=most)
    return counted


def as_replayed(timing: OpTiming, replayed: OpTiming | None) -> OpTiming | None:
    """Return the profile's time of an op of a loop with the calls that a replay counted, which sees all of them.

    ``None`` where the profile saw too few of them for its time to be that of the op.
    """
    if replayed is None or replayed.calls_per_step <= 1 or timing.calls_per_step >= replayed.calls_per_step:
        return timing
    if timing.calls_per_step < COMPLETE_SHARE * replayed.calls_per_step:
        return None
    return replace(timing, calls_per_step=replayed.calls_per_step)


def _bodies(timings: Mapping[str, OpTiming]) -> Mapping[str, list[str]]:
    """Return the ops of each body or condition of a loop that run whenever it does: in none of its branches."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in timings:
        match = _PART_OF_LOOP.match(name)
        if match and not _BRANCH.search(match["rest"]):
            found[match["part"]].append(name)
    return found
