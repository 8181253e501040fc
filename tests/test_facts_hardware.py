"""What is known of the hardware, and what products ran as: by the profile's kernels where it has any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from real_inputs import RealInputs

from graphlens.facts.core import Facts
from graphlens.facts.work import hardware
from graphlens.facts.work.hardware import KnownGpu
from graphlens.ir.analysis import Finding, Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import DeviceEvent, Profile, ProfiledDevice, Span
from graphlens.loaders.xplane import read_profile
from graphlens.rules import find, judge
from graphlens.testing.sketch import sketch

V100 = {"compute_cap_major": 7, "compute_cap_minor": 0, "memory_size": 16 << 30}


def profile_of(*kernels: tuple[str, str, str], **properties: Any) -> Profile:
    """Return one step of 1 ms a kernel on GPU:1; GPU:0 is listed and empty."""
    events = [
        DeviceEvent(kernel, node, op, index * 1_000_000, (index + 1) * 1_000_000, 1, "Compute")
        for index, (kernel, node, op) in enumerate(kernels)
    ]
    step = Span("1", 0, len(kernels) * 1_000_000, 0, 1)
    devices = [ProfiledDevice(name, "", "GPU", properties or V100, (step,)) for name in ("GPU:0", "GPU:1")]
    return Profile(devices=tuple(devices), kernels_on_device=tuple(events))


def facts_of(*kernels: tuple[str, str, str], **properties: Any) -> Facts:
    profile = profile_of(*kernels, **properties)
    return Facts(Evidence(Target("profile", "profile"), profile=profile, profile_path="profile"))


def full_precision(facts: Facts) -> list[Finding]:
    return judge(facts, [find("GL502")])[0]


KERNEL = ("volta_sgemm_128x64_nn", "layer/MatMul", "MatMul")


def test_gpus_that_worked_are_known_by_the_profile() -> None:
    assert facts_of(KERNEL)(hardware.gpus) == (KnownGpu("GPU:1", (7, 0), 16 << 30),)
    assert facts_of()(hardware.gpus) == ()


def test_the_numbers_of_another_maker_are_no_compute_capability() -> None:
    (gpu,) = facts_of(KERNEL, device_vendor="AMD", **V100)(hardware.gpus)
    assert (gpu.capability, gpu.has_tensor_cores, gpu.memory_bytes) == (None, False, 16 << 30)


def test_gpus_of_the_recording_are_known_by_its_environment() -> None:
    evidence = sketch("x = _Arg() float32[8] @GPU:0\ny = Relu(x) float32[8] @GPU:0 not-seen")
    details = {"/physical_device:GPU:0": {"compute_capability": "(8, 6)"}, "/physical_device:GPU:1": {}}
    (gpu,) = Facts(replace(evidence, environment={"device_details": details}))(hardware.gpus)
    assert (gpu.name, gpu.capability, gpu.has_tf32) == ("GPU:0", (8, 6), True)


def test_features_and_memory_are_those_of_the_recording() -> None:
    facts = Facts(sketch("cpu: amx_bf16 avx2\nmemory: 100 MiB\nx = Placeholder() float32[8]"))
    assert facts(hardware.cpu_features) == {"amx_bf16", "avx2"}
    assert hardware.memory_bytes(facts, "CPU") == 100 << 20
    unknown = Facts(sketch("x = Placeholder() float32[8]"))
    assert unknown(hardware.cpu_features) is None
    assert hardware.memory_bytes(unknown, "CPU") is None


def test_kernels_say_what_a_product_ran_as_without_any_graph() -> None:
    (finding,) = full_precision(
        facts_of(
            KERNEL,
            ("volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_nn", "other/MatMul", "MatMul"),
            ("splitKreduce_kernel", "third/MatMul", "MatMul"),
            ("void Eigen::internal::EigenMetaKernel<float>", "layer/Relu", "Relu"),
        )
    )
    assert finding.nodes == ("layer/MatMul",)
    assert finding.evidence["kernels"] == {"volta_sgemm_128x64_nn": 1}
    assert finding.saving.origin == "bound"
    assert finding.saving.share == pytest.approx(7 / 8 / 4)  # a quarter of the step, an eighth of it remains


def test_a_product_of_several_kernels_is_half_precision_when_one_is() -> None:
    kernels = [("volta_h884gemm_64x64_nn", "a/MatMul", "MatMul"), ("volta_sgemm_32x32_nn", "a/MatMul", "MatMul")]
    assert full_precision(facts_of(*kernels)) == []


def test_the_public_profile_of_bert_on_v100_has_no_product_in_full_precision(shared_real: RealInputs) -> None:
    """It was cut down to dropout and small ops: eight V100 are listed, two of them worked, none multiplied."""
    path = shared_real / "gpu_bert_8xV100.xplane.pb"
    profile = read_profile(path.read_bytes())
    facts = Facts(Evidence(Target(str(path), "profile"), profile=profile, profile_path=str(path)))
    assert [(gpu.name, gpu.capability) for gpu in facts(hardware.gpus)] == [("GPU:4", (7, 0)), ("GPU:6", (7, 0))]
    assert not any("gemm" in kernel.name or "MatMul" in kernel.op for kernel in profile.kernels_on_device)
    findings, statuses = judge(facts, [find("GL502")])
    assert (findings, statuses[0].status) == ([], "passed")
