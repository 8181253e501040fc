"""A program of JAX that XLA compiled: its convolutions hand their work to other threads and return at once.

``fixtures/jax_program.py`` wrote it; the profile is read a second time here, event by event, without the loaders.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from statistics import median

import pytest
from end_to_end import CAPTURES

from graphlens.api import Analysis, load
from graphlens.facts.core import Facts
from graphlens.facts.work.impossible import why_impossible
from graphlens.ir.measured import OpRow
from graphlens.loaders.schema import xspace
from graphlens.pipeline.judge import judge

CAPTURE = CAPTURES / "jax2tf.capture"
FIRST, SECOND = "conv_general_dilated.0", "conv_general_dilated.1"
READER = {FIRST: "wrapped_tanh", SECOND: "wrapped_tanh.1"}
# By hand: outputs times taps times input channels, a product and a sum each.
FLOPS = {FIRST: 2 * 64 * 64 * 32 * 9 * 8, SECOND: 2 * 64 * 64 * 16 * 9 * 32}


@cache
def judged() -> Analysis:
    return load(CAPTURE)


def row_of(instruction: str) -> OpRow:
    (row,) = (row for row in judged().document.ops if row.name.endswith(f"/{instruction}"))
    return row


@cache
def events() -> dict[str, list[tuple[int, int]]]:
    """Name -> start and duration of its events on the host, in nanoseconds, by start."""
    with zipfile.ZipFile(CAPTURE) as archive:
        space = xspace().FromString(archive.read("profile.xplane.pb"))
    (plane,) = (plane for plane in space.planes if plane.name == "/host:CPU")
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in plane.lines:
        for event in line.events:
            start_ns = line.timestamp_ns + event.offset_ps / 1000
            found[plane.event_metadata[event.metadata_id].name].append((start_ns, event.duration_ps / 1000))
    return {name: sorted(own) for name, own in found.items()}


@pytest.mark.parametrize("convolution", [FIRST, SECOND])
def test_a_convolution_takes_the_time_until_its_result_is_read(convolution: str) -> None:
    """Its event ends when the work is handed out; what reads it begins when the work is done."""
    calls, readers = events()[convolution], events()[READER[convolution]]
    until_read = [
        next(start for start, _ in readers if start > call_start) - call_start for call_start, _ in calls[1:]
    ]  # the first step is left out
    own_ns = row_of(convolution).self_ns
    assert own_ns is not None
    assert own_ns == pytest.approx(median(until_read), rel=0.05)
    if convolution == SECOND:
        dispatch_ns = median(duration for _, duration in calls[1:])
        assert own_ns > 20 * dispatch_ns, "the event alone would be a rate that no such machine has"


def test_the_two_convolutions_are_most_of_the_program() -> None:
    timed = [row for row in judged().document.ops if row.timing == "kernel"]
    total = sum(row.wall_share or 0.0 for row in timed)
    convolutions = sum(row.wall_share or 0.0 for row in timed if row.category == "convolution")
    assert convolutions > 0.74 * total
    assert {row.name.rpartition("/")[2] for row in timed if row.category == "convolution"} == {FIRST, SECOND}


def test_operations_and_rates_are_those_of_the_instructions() -> None:
    roof = judged().document.roofline
    assert roof is not None
    points = {point.op.rpartition("/")[2]: point for point in roof.points}
    for convolution, flops in FLOPS.items():
        row = row_of(convolution)
        assert row.flops == flops
        assert flops / (row.self_ns or 1) * 1e9 < roof.roof.flops_per_s, "a rate that the machine has"
        assert 0.3 < (row.roof_share or 0.0) < 1.0
        assert points[convolution].flops == flops


def test_the_instructions_are_of_the_op_that_holds_the_program() -> None:
    """They carry JAX's names, which no op of TensorFlow has; all of the time is explained all the same."""
    (holder,) = (row.name for row in judged().document.ops if row.executed_as == "XlaCallModule")
    assert row_of(FIRST).origin == row_of("wrapped_tanh").origin == (holder,)
    assert judged().quality.join_rate == 1.0
    assert "GL003" not in {finding.code for finding in judged().findings}


def test_a_call_is_without_what_it_called() -> None:
    (holder,) = (row for row in judged().document.ops if row.executed_as == "XlaCallModule")
    shown = [row for row in judged().document.ops if row.wall_share is not None]
    assert (holder.self_ns or 0) < (row_of(FIRST).self_ns or 0)
    assert sum(row.wall_share or 0.0 for row in shown) <= 1.0


# -- rates that cannot be ------------------------------------------------------------------------------------------


def dispatched_only() -> Facts:
    """The evidence of a profile in which the work of convolutions was not seen, as one without marks of their ends."""
    assert judged().facts is not None
    evidence = judged().facts.evidence
    assert evidence.profile is not None
    kernels = [
        kernel._replace(end_ns=kernel.start_ns + 3_000) if kernel.hlo_op in FLOPS else kernel
        for kernel in evidence.profile.kernels
        if not (kernel.hlo_op in FLOPS and kernel.resumed)
    ]
    return Facts(replace(evidence, profile=replace(evidence.profile, kernels=tuple(kernels))))


def test_a_rate_above_what_the_machine_can_do_is_an_alarm_and_no_time_is_shown() -> None:
    facts = dispatched_only()
    why = facts(why_impossible)
    assert why is not None
    told = re.match(
        r"\S+/conv_general_dilated\.\d would compute at ([\d.]+) TFLOP/s, (\d+) times what this machine", why
    )
    assert told is not None, why
    # 37.7 MFLOP in 3 us are 12.6 TFLOP/s, 18.9 MFLOP are 6.29
    assert told[1] in ("12.6", "6.29")
    shown = judge(facts.evidence)
    assert shown.step is None
    assert all(row.self_ns is None for row in shown.document.ops)


def test_the_same_program_at_its_own_times_is_no_alarm() -> None:
    assert judged().facts is not None
    assert judged().facts(why_impossible) is None
