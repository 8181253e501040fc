"""Accelerators of a profile: how busy each was, who did the work, and what an op cost on it."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_inputs import REAL

from graphlens.facts.clock.devices import binned, merged
from graphlens.facts.clock.steps import steps_of
from graphlens.facts.clock.sweep import pairs
from graphlens.facts.copies.device_facts import device_rows, distribution
from graphlens.facts.core import Facts
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.quality import quality
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import (
    THREADS_OF_A_HOST,
    CopyDirection,
    CopyEvent,
    DeviceEvent,
    OpEvent,
    Profile,
    ProfiledDevice,
    Span,
)
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile


def facts_of(profile: Profile) -> Facts:
    return Facts(Evidence(Target("a profile", "xplane"), profile=profile, profile_path="a profile"))


def kernel(device: int, start_ns: int, end_ns: int, node: str = "a", op: str = "MatMul") -> DeviceEvent:
    return DeviceEvent("gemm", node, op, start_ns, end_ns, device, "Stream #1(Compute)")


def copy(device: int, start_ns: int, end_ns: int, kind: CopyDirection | None = "host-to-device", nbytes=8) -> CopyEvent:
    return CopyEvent(kind, "", "", start_ns, end_ns, device, "Stream #2(Memcpy)", nbytes)


def gpus(count: int, *hosts: str) -> tuple[ProfiledDevice, ...]:
    return tuple(ProfiledDevice(f"GPU:{number}", host, "GPU") for host in hosts or ("",) for number in range(count))


stretches = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 20)).map(lambda b: (b[0], b[0] + b[1])), max_size=12)


@given(stretches)
def test_busy_time_is_that_in_which_anything_runs(spans):
    assert sum(end - start for start, end in merged(spans)) == len(
        {at for start, end in spans for at in range(start, end)}
    )


@given(stretches)
def test_a_lane_shows_the_covered_share_of_each_part(spans):
    covered = Counter(at // 22 for at in {at for start, end in spans for at in range(start, end)})
    assert binned(pairs(spans), (0, 110), 5) == pytest.approx([covered[part] / 22 for part in range(5)], abs=1e-3)


def test_a_device_row_counts_kernels_and_copies_apart():
    (row,) = facts_of(
        Profile(
            devices=gpus(1),
            kernels_on_device=(kernel(0, 0, 60), kernel(0, 40, 100)),
            copies=(copy(0, 50, 120), copy(0, 120, 140, "device-to-host", 40)),
        )
    )(device_rows)
    assert (row.kernels, row.kernel_ns, row.busy_ns, row.span_ns) == (2, 120, 100, 140)
    assert (row.copies, row.copy_bytes, row.copy_ns) == (2, 48, 90)
    assert [lane.kind for lane in row.lanes] == ["compute", "copy-in", "copy-out"]
    assert (row.steps, row.step_ns) == (None, None), "the profile marks none"


def test_a_size_that_is_not_known_makes_the_sum_unknown():
    (row,) = facts_of(Profile(devices=gpus(1), copies=(copy(0, 0, 1), copy(0, 1, 2, None, None))))(device_rows)
    assert (row.copies, row.copy_bytes) == (2, None)


@pytest.mark.parametrize(
    ("told", "flops"),
    [
        ([("loop fusion", 100), ("loop fusion", 50)], 150),
        ([("loop fusion", 100), ("copy-done", None), ("transpose", None)], 100),  # what waits or moves computes nothing
        ([("loop fusion", 100), ("custom-call", None)], None),  # a part is no sum
        ([("loop fusion", None)], None),
        ([("copy-start", 0)], 0),
    ],
)
def test_operations_of_a_device_are_known_where_everything_that_computes_tells_its_own(told, flops):
    kernels = tuple(
        kernel(0, 10 * at, 10 * at + 5)._replace(name=f"op.{at}", category=category, flops=own)
        for at, (category, own) in enumerate(told)
    )
    (row,) = facts_of(Profile(devices=gpus(1), kernels_on_device=kernels))(device_rows)
    assert row.flops == flops


def test_collectives_have_a_lane_of_their_own():
    nccl = kernel(0, 10, 20)._replace(name="ncclKernel_AllReduce_RING_LL_Sum_float")
    (row,) = facts_of(Profile(devices=gpus(1), kernels_on_device=(kernel(0, 0, 10), nccl)))(device_rows)
    assert [lane.kind for lane in row.lanes] == ["compute", "collective"]


@pytest.mark.parametrize(
    ("busy_ns", "words", "imbalance"),
    [
        ((100, 100), "all two devices were busy for the same time", 0.0),
        ((100, 50), "GPU:0 was busy 2.0 times as long as GPU:1", 1 / 3),
        ((0, 100), "GPU:1 did all the work, GPU:0 was idle", 1.0),
        ((100, 98, 0, 0), "GPU:0 and GPU:1 did all the work, GPU:2 and GPU:3 were idle", 100 / 49.5 - 1),
        ((0, 0), "no device did any work", None),
    ],
)
def test_who_did_the_work_in_words(busy_ns, words, imbalance):
    kernels = tuple(kernel(device, 0, ns) for device, ns in enumerate(busy_ns) if ns)
    found = facts_of(Profile(devices=gpus(len(busy_ns)), kernels_on_device=kernels))(distribution)
    assert found.words == words
    assert found.imbalance == pytest.approx(imbalance) if imbalance is not None else found.imbalance is None


def test_a_profile_of_one_device_has_no_distribution():
    assert facts_of(Profile(devices=gpus(1), kernels_on_device=(kernel(0, 0, 9),)))(distribution) is None


def test_the_replica_of_a_device_is_that_of_its_kernels():
    kernels = (kernel(0, 0, 9, "a"), kernel(1, 0, 9, "grad/replica_1/a"), kernel(1, 9, 10, ""))
    found = facts_of(Profile(devices=gpus(3), kernels_on_device=kernels))(distribution)
    assert [(row.number, row.device) for row in found.replicas] == [(0, "GPU:0"), (1, "GPU:1")]


def test_hosts_with_accelerators_are_rows_of_their_own_and_part_of_the_devices_names():
    found = facts_of(
        Profile(devices=gpus(1, "a", "b"), kernels_on_device=(kernel(0, 0, 90), kernel(1, 0, 30)), hosts=("a", "b"))
    )(distribution)
    assert [(row.name, row.devices, row.busy_ns) for row in found.hosts] == [("a", 1, 90), ("b", 1, 30)]
    assert found.words == "a GPU:0 was busy 3.0 times as long as b GPU:0"


def test_machines_without_accelerators_are_compared_by_their_own_ops():
    ops = (OpEvent("x", "MatMul", 0, 40, 40, 1), OpEvent("x", "MatMul", 0, 10, 10, 1 + THREADS_OF_A_HOST))
    steps = (Span("s", 0, 50, 1, 1), Span("s", 5, 60, 1 + THREADS_OF_A_HOST, 1))
    found = facts_of(Profile(ops=ops, steps=steps, hosts=("a", "b")))(distribution)
    assert [(row.name, row.devices, row.busy_ns, row.steps, row.step_ns) for row in found.hosts] == [
        ("a", 0, 40, 1, 50),
        ("b", 0, 10, 1, 55),
    ]
    assert found.words == "a was busy 4.0 times as long as b"


@cache
def bert() -> Facts:
    return facts_of(read_profile((REAL / "gpu_bert_8xV100.xplane.pb").read_bytes()))


# -- steps --------------------------------------------------------------------------------------------------------


def test_steps_of_devices_count_where_the_host_has_no_markers():
    devices = (
        ProfiledDevice("GPU:0", steps=(Span("0", 0, 50, 1, 0), Span("1", 50, 90, 1, 1))),
        ProfiledDevice("GPU:1", steps=(Span("0", 5, 60, 1, 0), Span("1", 60, 95, 1, 1))),
    )
    found = steps_of(Profile(devices=devices, functions=(Span("FunctionRun", 0, 10, 1),)))
    assert [(span.start_ns, span.end_ns) for span in found.windows] == [(0, 50), (50, 95)]


def steps_on_two(first: tuple[int, int], second: tuple[int, int]) -> Profile:
    """Two devices that each call one stretch of theirs step 0."""
    spans = (first, second)
    devices = tuple(
        ProfiledDevice(f"GPU:{number}", steps=(Span("0", start, end, 1, 0),))
        for number, (start, end) in enumerate(spans)
    )
    return Profile(devices=devices, kernels_on_device=tuple(kernel(number, *span) for number, span in enumerate(spans)))


def test_steps_of_one_number_that_are_far_apart_are_two():
    found = steps_of(steps_on_two((0, 50), (900, 960)))
    assert [(span.start_ns, span.end_ns) for span in found.windows] == [(0, 50), (900, 960)]
    assert found.notes == ("what GPU:0 and GPU:1 call step 0 is two steps, of 50 ns and 60 ns: they lie 850 ns apart",)


def test_the_stages_of_a_pipeline_are_one_step():
    """The second device begins when the first has ended, or soon after."""
    for second in ((50, 110), (90, 150)):
        found = steps_of(steps_on_two((0, 50), second))
        assert [(span.start_ns, span.end_ns) for span in found.windows] == [(0, second[1])]
        assert not found.notes


def test_steps_that_every_device_numbers_apart_are_told_by_their_first():
    devices = tuple(
        ProfiledDevice(
            f"GPU:{number}", steps=tuple(Span(str(at), at * 50 + base, at * 50 + base + 50, 1, at) for at in (0, 1))
        )
        for number, base in enumerate((0, 900))
    )
    found = steps_of(Profile(devices=devices))
    assert [span.start_ns for span in found.windows] == [50, 900, 950]  # the first of four is left out
    assert found.notes == (
        "what GPU:0 and GPU:1 call step 0 is two steps, of 50 ns and 50 ns: they lie 850 ns apart (and 1 step alike)",
    )


def test_the_two_gpus_of_a_real_profile_that_worked_628_ms_apart_have_two_steps():
    """By the file alone: each GPU that has a step has one, both numbered 0."""
    space = xspace().FromString((REAL / "gpu_bert_8xV100.xplane.pb").read_bytes())
    told = {}
    for plane in space.planes:
        for line in (line for line in plane.lines if line.name == "Steps"):
            (event,) = line.events
            start_ns = line.timestamp_ns + event.offset_ps // 1000
            told[plane.name] = start_ns, start_ns + event.duration_ps // 1000
    assert sorted(told) == ["/device:GPU:4", "/device:GPU:6"]
    (first, second) = (told[name] for name in sorted(told))
    facts = bert()
    assert facts(step_time).n == 2
    assert facts(attribution).wall_ns == pytest.approx([end - start for start, end in (first, second)], abs=1)
    assert facts(quality).notes == (
        "what GPU:4 and GPU:6 call step 0 is two steps, of 19.9 ms and 21.3 ms: they lie 628 ms apart",
    )
    (rest,) = (row.ns for row in facts(ledger) if row.kind == "unattributed")
    assert rest < 0.05 * facts(step_time).median_ns, "what lies between the two is in no step"


def test_a_profile_without_steps_is_one_step_and_says_so():
    facts = facts_of(Profile(devices=gpus(1), kernels_on_device=(kernel(0, 100, 160), kernel(0, 180, 200))))
    assert facts(step_time).median_ns == 100
    assert facts(quality).steps is None
    assert facts(quality).notes == ("the profile marks no steps: all of it (100 ns) counts as one",)
    assert [(row.category, row.ns) for row in facts(ledger)] == [("matmul", 80), ("unattributed", 20)]


# -- ops ----------------------------------------------------------------------------------------------------------


def test_an_op_takes_the_time_of_its_kernels_and_shows_its_launch_apart():
    profile = Profile(
        ops=(OpEvent("net/a", "MatMul", 0, 5, 5, 1), OpEvent("net/b", "Reshape", 5, 8, 3, 1)),
        steps=(Span("step", 0, 100, 1),),
        devices=gpus(2),
        kernels_on_device=(kernel(1, 10, 40, "net/a"), kernel(1, 40, 60, "net/a"), kernel(1, 60, 70, "")),
    )
    rows = {row.name: row for row in facts_of(profile)(op_rows)}
    assert (rows["net/a"].self_ns, rows["net/a"].host_ns, rows["net/a"].timing) == (50, 5, "kernel")
    assert (rows["net/a"].calls_per_step, rows["net/a"].device, rows["net/a"].wall_share) == (1, "GPU:1", 0.55)
    assert (rows["net/b"].self_ns, rows["net/b"].host_ns, rows["net/b"].timing) == (3, None, "profile")
    assert (rows["gemm"].self_ns, rows["gemm"].op) == (10, "Kernel (matmul)"), "a kernel of which no op is known"


def test_the_imbalance_of_eight_real_gpus_is_found():
    found = bert()(distribution)
    assert found.words == ("GPU:4 and GPU:6 did all the work, GPU:1 received 19 copies only, five devices were idle")
    assert found.imbalance == pytest.approx(3.0, abs=0.01), "two of eight work: four times the mean, less one"
    assert [(row.number, row.device, row.kernels) for row in found.replicas] == [(4, "GPU:4", 665), (6, "GPU:6", 665)]


def test_the_ledger_of_a_real_gpu_profile_sums_to_its_step():
    facts = bert()
    assert sum(row.ns for row in facts(ledger)) == facts(step_time).median_ns
    assert facts(quality).join_rate is None
    assert any(reason.startswith("no graph was given") for reason in facts(quality).reasons)
    kernels = sum(row.self_ns for row in facts(op_rows) if row.timing == "kernel")
    assert kernels == sum(device.kernel_ns for device in facts(device_rows)), "all kernels lie in a step, each in one"
