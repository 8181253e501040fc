"""The profile of an eager loop in a sketch: one op after the other, each dispatched by Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from graphlens.ir.eager import GRADIENT, READ, Asked
from graphlens.ir.run import EAGER_LOOP, Mark, OpEvent, Profile, Run

_STEPS: Final = 5  # as in other sketches


Told = tuple[Any, ...]  # how long it takes, and words


def eager_profile(ops: Sequence[tuple[str, int, int]], dispatch: Told, read: Told, gap_ns: int) -> Profile:
    """Return the profile of identical steps.

    Parameters
    ----------
    ops
        Type, time per step and number of calls of each op.
    dispatch
        How long Python takes before each op, the line where gradients are asked for, the function in which that is, and
        ``keras`` if Keras runs eagerly.
    read
        How long reading a tensor takes, the line and the method: nothing is read if that is no time.
    gap_ns
        How long Python takes for something else at the end of the step.
    """
    dispatch_ns, source, function, *how = dispatch
    asked = Asked(0, "keras" if "keras" in how else "loop", function)
    events: list[OpEvent] = []
    runs: list[Run] = []
    marks: list[Mark] = []
    now_ns = 0
    for number in range(_STEPS):
        start_ns = now_ns
        marks.append(Mark(GRADIENT, start_ns, start_ns + 1, 0, asked.text(), source))
        for event in _events(ops, start_ns, dispatch_ns, number):
            events.append(event)
            now_ns = event.end_ns
        if read[0]:
            marks.append(Mark(READ, now_ns, now_ns + read[0], 0, read[2], read[1]))
        now_ns += read[0] + gap_ns
        runs.append(Run(EAGER_LOOP, start_ns, now_ns, 0))
    return Profile(ops=tuple(events), runs=tuple(runs), marks=tuple(marks))


def _events(ops: Sequence[tuple[str, int, int]], now_ns: int, dispatch_ns: int, run: int) -> Iterator[OpEvent]:
    for kind, ns, calls in ops:
        for _ in range(calls):
            start_ns, now_ns = now_ns + dispatch_ns, now_ns + dispatch_ns + ns // calls
            yield OpEvent(kind, kind, start_ns, now_ns, now_ns - start_ns, 0, run)
