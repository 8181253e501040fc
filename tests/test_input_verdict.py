"""How much of a step is waiting for its input, of sketched pipelines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_document import STATIC

from graphlens.facts.core import Facts
from graphlens.facts.input.pipelines import input_pipelines
from graphlens.facts.input.verdict import verdict
from graphlens.facts.time.around import INPUT
from graphlens.facts.time.period import period
from graphlens.ir.evidence import Evidence
from graphlens.ir.script import Script, ScriptFunction
from graphlens.report.view_pipeline import input_view
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


def unrecorded(evidence: Evidence, faster: float) -> Facts:
    """Return the facts of the same steps where each took only a part of its recorded length while none was."""
    recorded = Facts(evidence)(period)
    assert recorded is not None
    assert evidence.profile is not None
    programs = tuple({run.program for run in evidence.profile.runs})
    own = ScriptFunction(
        "train_step", "train_step", concretes=programs, period_ns=round(faster * recorded.ns), periods=200
    )
    return Facts(replace(evidence, script=Script(functions=(own,))))


def waits(facts: Facts) -> tuple[float, float]:
    """Return the share of waiting by the finding, and by the rows of the period."""
    whole, found = facts(period), facts(verdict)
    assert whole is not None
    assert found is not None
    assert sum(row.ns for row in whole.rows) == whole.ns == found.period_ns
    assert all(row.ns > 0 for row in whole.rows)
    return found.share, sum(row.ns for row in whole.rows if row.category == INPUT) / whole.ns


def waiting(input_us: int) -> Evidence:
    return sketch(WAITING.replace("input 6ms", f"input {input_us}us"))


@pytest.mark.parametrize("faster", [0.2, 0.5, 0.8, 0.95, 1.0, 1.5])
def test_no_finding_says_that_more_is_waited_than_the_rows_of_the_period_do(faster: float) -> None:
    before = 0.0
    for input_us in (30, 200, 330, 344, 360, 500, 1000, 3000, 9000, 90_000):
        found, row = waits(unrecorded(waiting(input_us), faster))
        assert 0.0 <= found <= row + 0.001
        assert before - 0.001 <= row < 1.0
        assert row >= min(0.09, input_us / (3200 + input_us))  # a wait that was seen is not told as none
        before = row


def test_a_step_without_its_waiting_is_a_tenth_shorter_while_nothing_is_recorded_and_no_more() -> None:
    """What else its period is shorter by, it waits less."""
    recorded, _ = waits(Facts(waiting(6000)))
    for faster in (0.5, 0.7, 0.9):
        found, row = waits(unrecorded(waiting(6000), faster))
        assert found == pytest.approx(1 - (1 - recorded) * 0.9 / faster, abs=0.001)
        assert found == pytest.approx(row, rel=0.02)
    found, _ = waits(unrecorded(waiting(6000), 0.95))
    assert found == pytest.approx(recorded)


def test_the_page_says_of_which_steps_it_tells_the_waits_where_others_take_another_time() -> None:
    assert " for input while recorded (" in lead(unrecorded(waiting(6000), 0.7))
    assert " for input (" in lead(Facts(waiting(6000)))


def lead(facts: Facts) -> str:
    document = replace(STATIC, input=facts(input_pipelines), period=facts(period))
    shown = input_view(document)
    assert shown is not None
    return shown.summary


def test_a_finding_says_where_few_steps_wait_for_most_of_the_time() -> None:
    even = Facts(waiting(6000))(verdict)
    assert even is not None
    assert even.pipeline.wait is not None
    assert even.some_wait == ""
    wait = replace(even.pipeline.wait, median_ns=70_000)
    uneven = replace(even, pipeline=replace(even.pipeline, wait=wait))
    assert uneven.some_wait.endswith("half of those recorded wait 70.0 us or less")
