"""What rules say of copies beyond their cases: each copy in one rule only, and fixes that a simulation has tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphlens.facts.copies.transfers import copies, transfers
from graphlens.facts.core import Facts
from graphlens.facts.time.ledger import step_time
from graphlens.ir.devices import CopyCount, Counterfactual
from graphlens.ir.edits import Ops, PlaceOps
from graphlens.ir.run import CopyEvent, ProfiledDevice
from graphlens.rules import find
from graphlens.rules.copies.copies import saving_of
from graphlens.testing.sketch import sketch

# A fed input, an op without a kernel, a table and a copy of unknown cause, on one accelerator.
EVERYTHING = """
image = _Arg() float32[65536]
image/_1 = _Send(image) 1us
image/_2 = _Recv(image/_1) float32[65536] 30us @GPU:0
a = Relu(image/_2) float32[65536] 10us @GPU:0
a/_3 = _Send(a) 1us @GPU:0
a/_4 = _Recv(a/_3) float32[65536] 30us
nms = CombinedNonMaxSuppression(a/_4) float32[16] 50us
nms/_5 = _Send(nms) 1us
nms/_6 = _Recv(nms/_5) float32[16] 9us @GPU:0
b = Tanh(nms/_6) float32[16] 5us @GPU:0
b/_7 = _Send(b) 1us @GPU:0
b/_8 = _Recv(b/_7) float32[16] 9us
find = LookupTableFindV2(b/_8) int64[16] 5us
find/_9 = _Send(find) 1us
find/_10 = _Recv(find/_9) int64[16] 9us @GPU:0
c = Cast(find/_10) float32[16] 5us @GPU:0
up = MemcpyH2D() 6us @GPU:0 {bytes: 112}
d = Tanh(c) float32[16] 10us @GPU:0
"""
SIMULATED = """
static
x = Placeholder() float32[8]
modelled:
c = MemcpyD2H() 12us {src: x, dst: y, bytes: 4, reason: shape arithmetic, detail: y reads a shape, at_fault: y}
"""


def test_a_copy_belongs_to_one_rule_only() -> None:
    facts = Facts(sketch(EVERYTHING))
    named = [
        copy["tensor"] or copy["bytes"]
        for code in ("GL101", "GL102", "GL104")
        for finding in find(code)(facts)
        for copy in finding.evidence["copies"]
    ]
    assert sorted(map(str, named)) == ["112", "a", "b", "find", "image", "nms"]
    assert len(facts(copies)) == len(named)


def test_a_finding_for_each_cause() -> None:
    titles = [finding.title for finding in find("GL101")(Facts(sketch(EVERYTHING)))]
    assert [title.rpartition(": ")[2] for title in titles] == ["strings and tables", "cause unknown"]


@pytest.mark.parametrize("after", [CopyCount(3, 0), CopyCount(7, 6)], ids=["fewer copies", "as many"])
def test_a_change_that_the_simulation_tried_is_the_fix_when_it_helps(after: CopyCount) -> None:
    evidence = sketch(SIMULATED)
    tried = Counterfactual("static-batch", "x as [8]", CopyCount(7, 6), after, "a snippet")
    assert evidence.placement is not None
    placement = replace(evidence.placement, counterfactuals=(tried,))
    (finding,) = find("GL101")(Facts(replace(evidence, placement=placement)))
    assert finding.evidence["simulated_changes"][0]["change"] == "x as [8]"
    helped = after.device_to_host == 0
    assert finding.fix.summary.endswith("(simulated: 13 copies → 3 copies)") == helped
    assert (finding.fix.snippet == "a snippet") == helped


def test_dropping_a_device_is_an_edit_for_a_run_on_these_devices_only() -> None:
    text = """
    traced:
    x = Placeholder() float32[8]
    b = Tanh(x) float32[8] @CPU:0
    executed:
    x = _Arg() float32[8] @GPU:0
    x/_1 = _Send(x) 1us @GPU:0
    x/_2 = _Recv(x/_1) float32[8] 9us
    b = Tanh(x/_2) float32[8] 10us
    """
    own = sketch(text)
    (here,) = find("GL101")(Facts(own))
    (elsewhere,) = find("GL101")(Facts(replace(own, profile_path="logdir")))
    assert here.fix.edits == (PlaceOps(Ops(("b",)), device=""),)
    assert (elsewhere.fix.edits, elsewhere.fix.safety) == ((), "manual")


@pytest.mark.parametrize(("dtype", "advice"), [("int32", "Keep index tensors int64"), ("float32", "Let Grappler run")])
def test_only_indexes_can_be_of_another_type(dtype: str, advice: str) -> None:
    text = f"""
    x = _Arg() float32[8] @GPU:0
    n = Mul(x) {dtype}[1] 5us @GPU:0
    n/_1 = _Send(n) 1us @GPU:0
    n/_2 = _HostRecv(n/_1) {dtype}[1] 9us @GPU:0
    y = Tile(x, n/_2) float32[8] 5us @GPU:0
    """
    (finding,) = find("GL101")(Facts(sketch(text)))
    assert finding.fix.summary.startswith(advice)


def test_copies_of_several_devices_run_side_by_side() -> None:
    """Two devices lose 30 and 10 us to copies that nothing hides: without them the step is 30 us shorter, not 40."""
    facts = with_copies((0, 10, 40), (1, 10, 20))
    assert facts(step_time) is not None
    assert len(facts(transfers)) == 2
    assert saving_of(facts, facts(transfers)).share == pytest.approx(30_000 / facts(step_time).median_ns)


def test_copies_of_one_device_that_overlap_are_waited_for_once() -> None:
    """Of a step of 100 us the device copies from 10 to 60, twice at once for a while: no share is above what passed."""
    facts = with_copies((0, 10, 50), (0, 20, 60))
    assert facts(step_time) is not None
    assert saving_of(facts, facts(transfers)).share == pytest.approx(50_000 / facts(step_time).median_ns)


def with_copies(*copies: tuple[int, int, int]) -> Facts:
    """Facts of steps in which no device computes, and devices copy from one microsecond to another."""
    evidence = sketch("x = Placeholder() float32[8]\ny = Relu(x) float32[8] 100us")
    assert evidence.profile is not None
    events = tuple(
        CopyEvent(
            "host-to-device", "", "", step.start_ns + 1000 * first, step.start_ns + 1000 * last, device, "copies", 8,
            f"a{first}",
        )
        for step in evidence.profile.steps
        for device, first, last in copies
    )  # fmt: skip
    devices = tuple(ProfiledDevice(f"GPU:{number}", kind="GPU") for number in range(2))
    return Facts(replace(evidence, profile=replace(evidence.profile, devices=devices, copies=events)))


@pytest.mark.parametrize(("other_host", "idle"), [("a", 1), ("b", 0)], ids=["same machine", "another machine"])
def test_a_device_is_unused_beside_those_of_its_own_machine(other_host: str, idle: int) -> None:
    evidence = sketch("x = _Arg() float32[8] @GPU:0\ny = Relu(x) float32[8] 100us @GPU:0")
    assert evidence.profile is not None
    (device,) = evidence.profile.devices
    devices = (replace(device, host="a"), replace(device, name="GPU:1", host=other_host, steps=()))
    facts = Facts(replace(evidence, profile=replace(evidence.profile, devices=devices)))
    assert [finding.title for finding in find("GL106")(facts)] == ["1 accelerator of 2 ran no kernel"] * idle
