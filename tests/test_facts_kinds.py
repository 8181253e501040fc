"""Kinds of steps are told only where it is known which ops belong to which step."""

from __future__ import annotations

import pytest

from graphlens.facts.time.attribution import attribute
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import OpEvent, Profile, Span

STEPS, STEP_NS = 12, 1_000


def by_turns(run_of_step: list[int]) -> Profile:
    """Steps of which every third runs six ops more; ``run_of_step`` says which run each is a part of."""
    steps, ops = [], []
    for number, run in enumerate(run_of_step):
        start_ns = number * STEP_NS
        steps.append(Span("step", start_ns, start_ns + STEP_NS, 0, number, run=run))
        names = ["forward", *([f"apply_{part}" for part in range(6)] if number % 3 == 2 else [])]
        ops += [
            OpEvent(name, "Mul", start_ns + 10 * part, start_ns + 10 * part + 5, 5, 0, run)
            for part, name in enumerate(names)
        ]
    return Profile(steps=tuple(steps), ops=tuple(ops))


@pytest.mark.parametrize(
    ("runs", "kinds"),
    [
        (list(range(STEPS)), [7, 4]),  # the first step of all is left out
        ([-1] * STEPS, [7, 4]),  # marked by the user
        ([number // 3 for number in range(STEPS)], []),  # iterations of a loop: ops of the next one run early
    ],
    ids=["one step a run", "marked", "a loop"],
)
def test_steps_are_sorted_into_kinds(runs: list[int], kinds: list[int]) -> None:
    profile = by_turns(runs)
    found = attribute(Evidence(Target("t", "xplane"), profile=profile), profile, None)
    assert [kind.count for kind in found.cycle.kinds] == kinds
    assert (found.cycle.length, found.cycle.mean_ns) == ((3, STEP_NS) if kinds else (None, None))
