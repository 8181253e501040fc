"""How much of a step is waiting for its input, of sketched pipelines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.input.verdict import verdict
from graphlens.ir.evidence import Evidence
from graphlens.testing import sketch

ELEMENTS = 4
WAITING = """
called: train_step dispatch 50us input 6ms python 50us
pipeline: Prefetch buffer 2 <- Map (MapDataset:1) 9ms
x   = Placeholder() float32[32,64]
y   = Relu(x) float32[32,64] 3ms
out = _Retval(y)
"""


def taking_several(evidence: Evidence) -> Evidence:
    """Return the same waits as those for four elements, one after the other, in place of one."""
    profile = evidence.profile
    assert profile is not None
    requests = [
        one._replace(start_ns=start_ns, end_ns=start_ns + length_ns)
        for one in profile.requests
        for length_ns in [(one.end_ns - one.start_ns) // ELEMENTS]
        for start_ns in [one.start_ns + part * length_ns for part in range(ELEMENTS)]
    ]
    iterators = tuple(replace(one, elements=one.elements * ELEMENTS) for one in profile.iterators)
    return replace(evidence, profile=replace(profile, requests=tuple(requests), iterators=iterators))


def test_a_step_that_takes_several_elements_waits_for_each_of_them() -> None:
    single = Facts(sketch(WAITING))(verdict)
    several = Facts(taking_several(sketch(WAITING)))(verdict)
    assert single is not None
    assert several is not None
    assert single.share == pytest.approx(6 / 9.1, rel=0.05)
    assert several.share == pytest.approx(single.share, rel=0.01)
