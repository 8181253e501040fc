"""What is known of the hardware that ran, or would run, the ops: generation and memory of GPUs, features of the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from graphlens.facts.roofline import short_device

if TYPE_CHECKING:
    from graphlens.facts.core import Facts

# From this compute capability on NVIDIA's GPUs have tensor cores (Volta), and from that one on they use them for
# float32 as well, as TensorFloat-32 (Ampere), which TensorFlow allows unless it is told not to.
TENSOR_CORES_SINCE: Final = (7, 0)
TF32_SINCE: Final = (8, 0)
AMX: Final = "amx_bf16"  # the processor's own matrix unit for bfloat16, as Linux names it

_CAPABILITY = re.compile(r"(\d+)\D+(\d+)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: its name (``GPU:4``), and its compute capability and memory where the evidence tells them."""

    name: str
    capability: tuple[int, int] | None = None
    memory_bytes: int | None = None

    @property
    def has_tensor_cores(self) -> bool:
        """Whether it is known to multiply float16 on units of their own."""
        return self.capability is not None and self.capability >= TENSOR_CORES_SINCE

    @property
    def has_tf32(self) -> bool:
        """Whether it is known to multiply float32 on them as well, with ten bits of mantissa."""
        return self.capability is not None and self.capability >= TF32_SINCE


def gpus(facts: Facts) -> tuple[Gpu, ...]:
    """Return the GPUs that did some of the step's work, as far as profile and recording tell of them."""
    profile = facts.evidence.profile
    busy = {kernel.device for kernel in profile.kernels_on_device} if profile else set()
    profiled = [profile.devices[position] for position in sorted(busy)] if profile else []
    found = {one.name: _profiled(one.name, dict(one.properties)) for one in profiled if one.kind == "GPU"}
    for one in _recorded(facts):
        known = found.get(one.name)
        if known is None or known.capability is None:
            found[one.name] = Gpu(one.name, one.capability, known.memory_bytes if known else None)
    return tuple(found.values())


def _profiled(name: str, properties: dict[str, object]) -> Gpu:
    """Return what a profile says of a GPU; the numbers that AMD's carry there count something else."""
    if str(properties.get("device_vendor", "Nvidia")).lower() != "nvidia":
        properties = {key: value for key, value in properties.items() if not key.startswith("compute_cap")}
    major, minor = properties.get("compute_cap_major"), properties.get("compute_cap_minor")
    memory = properties.get("memory_size")
    return Gpu(
        name,
        (major, minor) if isinstance(major, int) and isinstance(minor, int) else None,
        memory if isinstance(memory, int) and memory > 0 else None,
    )


def _recorded(facts: Facts) -> Iterator[Gpu]:
    """Yield the GPUs of the recording machine on which ops of the executed graph ran."""
    details = facts.evidence.environment.get("device_details")
    if not isinstance(details, dict) or facts.evidence.executed is None:
        return
    used = {short_device(op.device) for _, op in facts.graph.nodes(data="op")}
    for device, said in details.items():
        name = str(device).rpartition("physical_device:")[2]
        numbers = _CAPABILITY.search(str(said.get("compute_capability", ""))) if isinstance(said, dict) else None
        if name in used and numbers:
            yield Gpu(name, (int(numbers[1]), int(numbers[2])))


def cpu_features(facts: Facts) -> frozenset[str] | None:
    """Return what the recording machine's processor can do, as far as the recorder looks; ``None``: not recorded."""
    features = facts.evidence.environment.get("cpu_features")
    return frozenset(map(str, features)) if isinstance(features, (list, tuple)) else None


def memory_bytes(facts: Facts, device: str) -> int | None:
    """Return how much memory ``device`` has (``CPU``: the recording machine)."""
    if device.startswith("CPU"):
        recorded = facts.evidence.environment.get("memory_bytes")
        return recorded if isinstance(recorded, int) and recorded > 0 else None
    return next((gpu.memory_bytes for gpu in gpus(facts) if gpu.name == device), None)
