"""Profiles of several hosts: each has steps of its own, and what ran on one is never booked to a step of another."""

from __future__ import annotations

from graphlens.facts.clock import hosts
from graphlens.facts.clock.steps import steps_of
from graphlens.facts.copies.device_facts import distribution
from graphlens.facts.core import Facts
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.quality import quality
from graphlens.ir.analysis import Target
from graphlens.ir.devices import HostRow
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import THREADS_OF_A_HOST, DeviceEvent, OpEvent, Profile, ProfiledDevice, Span
from graphlens.rules import all_rules, judge, select

B = THREADS_OF_A_HOST  # the first thread of the second host


def step(number: int, start: int, end: int, thread: int = 0) -> Span:
    return Span("train", start, end, thread, number)


def op(node: str, start: int, end: int, thread: int = 0) -> OpEvent:
    return OpEvent(node, "MatMul", start, end, end - start, thread)


# Two programs that overlap in time and are not in step: steps of 10 us on `a`, of 40 us on `b`.
TWO = Profile(
    steps=(step(7, 0, 10_000), step(100, 2_000, 42_000, B), step(8, 10_000, 20_000)),
    ops=(op("dense", 1_000, 9_000), op("dense", 3_000, 33_000, B), op("dense", 11_000, 19_000)),
    hosts=("a", "b"),
)


def facts_of(profile: Profile) -> Facts:
    return Facts(Evidence(Target("logs", "xplane"), profile=profile, profile_path="logs"))


def test_every_host_has_its_own_steps() -> None:
    found = steps_of(TWO)
    assert {host: len(spans) for host, spans in found.by_host.items()} == {"a": 2, "b": 1}
    assert [span.step_id for span in found.windows] == [7, 8, 100]
    assert found.notes == ("the step is that of 2 hosts together; its median is 10.0 us on a and 40.0 us on b",)


def test_hosts_in_turn_never_overlap() -> None:
    apart = hosts.in_turn(TWO)
    assert [span.step_id for span in apart.steps] == [7, 8, 100]
    assert [span.end_ns - span.start_ns for span in apart.steps] == [10_000, 10_000, 40_000]
    assert apart.steps[1].end_ns <= apart.steps[2].start_ns
    assert apart.ops[-1].start_ns - apart.steps[-1].start_ns == 1_000
    alone = Profile(steps=TWO.steps, hosts=("a",))
    assert hosts.in_turn(alone) is alone


def test_each_step_gets_the_time_of_its_own_host() -> None:
    """In one timeline the op of `b` would have filled the steps of `a`, and each would have had two executions."""
    facts = facts_of(TWO)
    assert facts(attribution).wall_ns == (10_000, 10_000, 40_000)
    timing = facts(attribution).timings["dense"]
    assert (timing.self_ns, timing.calls_per_step) == (8_000, 1.0)
    assert facts(attribution).active_ns["dense"] == 8_000 + 8_000 + 30_000


def test_a_host_that_differs_is_no_unstable_timing() -> None:
    times = {"a": [10, 10, 11, 10, 10, 10], "b": [40, 41, 40, 40, 41, 40]}
    facts = facts_of(_repeated(times))
    assert facts(quality).stability is not None
    assert facts(quality).stability < 0.1
    findings, _ = judge(facts, select(all_rules(), ["GL002"]))
    assert findings == []


def test_an_unstable_host_is_named() -> None:
    times = {"a": [10, 10, 11, 10, 10, 10, 10], "b": [40, 90, 40, 95, 41, 40, 90]}
    (finding,), _ = judge(facts_of(_repeated(times)), select(all_rules(), ["GL002"]))
    assert finding.title.endswith("on b")
    assert finding.evidence["steps"] == 6  # a slow first one is left out


def _repeated(times_us: dict[str, list[int]]) -> Profile:
    """A profile whose hosts have steps of these lengths, one after the other."""
    steps = []
    for position, lengths in enumerate(times_us.values()):
        now = 0
        for number, length in enumerate(lengths):
            steps.append(step(number, now, now + length * 1000, position * THREADS_OF_A_HOST))
            now += length * 1000
    return Profile(steps=tuple(sorted(steps, key=lambda span: span.start_ns)), hosts=tuple(times_us))


def test_a_host_without_steps_beside_one_with_steps_is_noted() -> None:
    profile = Profile(steps=TWO.steps[:1], ops=TWO.ops, hosts=("a", "b"))
    found = steps_of(profile)
    assert list(found.by_host) == ["a"]
    assert found.notes == ("the profile marks no steps on b: what it did is in no step",)


def test_devices_belong_to_their_hosts() -> None:
    devices = (
        ProfiledDevice("GPU:0", "a", steps=(Span("0", 0, 50, 1, 0),)),
        ProfiledDevice("GPU:0", "b", steps=(Span("0", 900, 990, 1, 0),)),
    )
    kernels = (DeviceEvent("k", "", "", 5, 10, 0, "1"), DeviceEvent("k", "", "", 905, 950, 1, "1"))
    profile = Profile(devices=devices, kernels_on_device=kernels, hosts=("a", "b"))
    one, other = hosts.each(profile)
    assert (one.kernels_on_device, other.kernels_on_device) == (kernels[:1], kernels[1:])
    assert [len(device.steps) for device in other.devices] == [0, 1]
    facts = facts_of(profile)
    assert facts(attribution).wall_ns == (50, 90)
    assert facts(distribution) is not None
    assert facts(distribution).hosts == (
        HostRow("a", devices=1, steps=1, step_ns=50, busy_ns=5),
        HostRow("b", devices=1, steps=1, step_ns=90, busy_ns=45),
    )
