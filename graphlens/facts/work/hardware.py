"""What is known of the hardware that ran, or would run, the ops: GPUs, peaks that a profile states, the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.placement.gpus import GPUS
from graphlens.facts.work.kernel_work import alike_kernels
from graphlens.ir.devices import Roof, short_device

# From this compute capability on NVIDIA's GPUs have tensor cores (Volta), and from that one on they use them for
# float32 as well, as TensorFloat-32 (Ampere), which TensorFlow allows unless it is told not to.
TENSOR_CORES_SINCE: Final = (7, 0)
TF32_SINCE: Final = (8, 0)
AMX: Final = "amx_bf16"  # the processor's own matrix unit for bfloat16, as Linux names it

# What planes of devices call their peaks, and the units.
_PEAKS: Final = {"peak_teraflops_per_second": 1e12, "peak_hbm_bw_gigabytes_per_second": 1e9}

_CAPABILITY = re.compile(r"(\d+)\D+(\d+)")


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A GPU: its name (``GPU:4``), and its compute capability and memory where the evidence tells them.

    ``assumed`` is one that the machine does not have: a what-if placement is for it, and it is called by its model.
    """

    name: str
    capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    assumed: bool = False

    @property
    def has_tensor_cores(self) -> bool:
        """Whether it is known to multiply float16 on units of their own."""
        return self.capability is not None and self.capability >= TENSOR_CORES_SINCE

    @property
    def has_tf32(self) -> bool:
        """Whether it is known to multiply float32 on them as well, with ten bits of mantissa."""
        return self.capability is not None and self.capability >= TF32_SINCE


@fact
def gpus(facts: Facts) -> tuple[KnownGpu, ...]:
    """Return the GPUs that did some of the step's work, as far as profile and recording tell, and the assumed one."""
    profile = facts.evidence.profile
    busy = {kernels.device for kernels in facts(alike_kernels)}
    profiled = [profile.devices[position] for position in sorted(busy)] if profile else []
    found = {one.name: _profiled(one.name, dict(one.properties)) for one in profiled if one.kind == "GPU"}
    for one in _recorded(facts):
        known = found.get(one.name)
        if known is None or known.capability is None:
            found[one.name] = KnownGpu(one.name, one.capability, known.memory_bytes if known else None)
    return (*found.values(), *_assumed(facts))


def _assumed(facts: Facts) -> Iterator[KnownGpu]:
    placement = facts.evidence.placement
    model = GPUS.get(placement.device) if placement else None
    if model is not None:
        yield KnownGpu(model.name, _capability(model.compute_capability), assumed=True)


def _profiled(name: str, properties: dict[str, object]) -> KnownGpu:
    """Return what a profile says of a GPU; the numbers that AMD's carry there count something else."""
    if str(properties.get("device_vendor", "Nvidia")).lower() != "nvidia":
        properties = {key: value for key, value in properties.items() if not key.startswith("compute_cap")}
    major, minor = properties.get("compute_cap_major"), properties.get("compute_cap_minor")
    memory = properties.get("memory_size")
    return KnownGpu(
        name,
        (major, minor) if isinstance(major, int) and isinstance(minor, int) else None,
        memory if isinstance(memory, int) and memory > 0 else None,
    )


def _recorded(facts: Facts) -> Iterator[KnownGpu]:
    """Yield the GPUs of the recording machine on which ops of the executed graph ran."""
    details = facts.evidence.environment.get("device_details")
    if not isinstance(details, dict) or facts.evidence.executed is None:
        return
    used = {short_device(op.device) for op in facts(judged_graph).ops()}
    for device, said in details.items():
        name = str(device).rpartition("physical_device:")[2]
        capability = _capability(str(said.get("compute_capability", ""))) if isinstance(said, dict) else None
        if name in used and capability:
            yield KnownGpu(name, capability)


@fact
def stated_roof(facts: Facts) -> Roof | None:
    """Return the peaks that the profile states of the first device that ran kernels; ``None`` where it states none.

    They are those of the data sheet: of a TPU's matrix unit in bfloat16, and of its memory.  All devices of a profile
    are of one kind.
    """
    profile = facts.evidence.profile
    for number in sorted({kernels.device for kernels in facts(alike_kernels)}):
        device = profile.devices[number]  # type: ignore[union-attr]  # it is the profile of the kernels
        peaks = [device.properties.get(name) for name in _PEAKS]
        if all(isinstance(peak, (int, float)) and peak > 0 for peak in peaks):
            flops_per_s, bytes_per_s = (
                float(str(peak)) * unit for peak, unit in zip(peaks, _PEAKS.values(), strict=True)
            )
            return Roof(flops_per_s, bytes_per_s, "bfloat16", origin="static", device=device.name)
    return None


def _capability(text: str) -> tuple[int, int] | None:
    """Read a compute capability, written as ``7.5`` or as ``(7, 5)``."""
    numbers = _CAPABILITY.search(text)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


@fact
def cpu_features(facts: Facts) -> frozenset[str] | None:
    """Return what the recording machine's processor can do, as far as the recorder looks; ``None``: not recorded."""
    features = facts.evidence.environment.get("cpu_features")
    return frozenset(map(str, features)) if isinstance(features, (list, tuple)) else None


def memory_bytes(facts: Facts, device: str) -> int | None:
    """Return how much memory ``device`` has (``CPU``: the recording machine)."""
    if device.startswith("CPU"):
        recorded = facts.evidence.environment.get("memory_bytes")
        return recorded if isinstance(recorded, int) and recorded > 0 else None
    return next((gpu.memory_bytes for gpu in facts(gpus) if gpu.name == device), None)
