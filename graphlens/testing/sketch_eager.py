"""The profile of an eager loop in a sketch: one op after the other, each dispatched by Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.ir.eager import GRADIENT, Asked
from graphlens.ir.run import EAGER_LOOP, Mark, OpEvent, Profile, Run

_STEPS: Final = 5  # as in other sketches


def eager_profile(ops: Sequence[tuple[str, int, int]], dispatch_ns: int, gap_ns: int, told: Sequence[str]) -> Profile:
    """Return the profile of identical steps.

    Parameters
    ----------
    ops
        Type, time per step and number of calls of each op.
    dispatch_ns, gap_ns
        How long Python takes before each op, and for something else at the end of the step.
    told
        The line where gradients are asked for, the function in which that is, and ``keras`` if Keras runs eagerly.
    """
    source, function, *how = told
    asked = Asked(0, "keras" if "keras" in how else "loop", function)
    events: list[OpEvent] = []
    runs: list[Run] = []
    now_ns = 0
    for number in range(_STEPS):
        start_ns = now_ns
        for event in _events(ops, start_ns, dispatch_ns, number):
            events.append(event)
            now_ns = event.end_ns
        now_ns += gap_ns
        runs.append(Run(EAGER_LOOP, start_ns, now_ns, 0))
    marks = tuple(Mark(GRADIENT, run.start_ns, run.start_ns + 1, 0, asked.text(), source) for run in runs)
    return Profile(ops=tuple(events), runs=tuple(runs), marks=marks)


def _events(ops: Sequence[tuple[str, int, int]], now_ns: int, dispatch_ns: int, run: int) -> Iterator[OpEvent]:
    for kind, ns, calls in ops:
        for _ in range(calls):
            start_ns, now_ns = now_ns + dispatch_ns, now_ns + dispatch_ns + ns // calls
            yield OpEvent(kind, kind, start_ns, now_ns, now_ns - start_ns, 0, run)
