"""The GPUs that a placement can be predicted for: what their makers publish of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from graphlens.errors import UsageError

# One direction of 16 lanes, after the line code (PCI-SIG: 8, 16 and 32 GT/s a lane, 128b/130b).
_PCIE_3: Final = 15.75e9
_PCIE_4: Final = 31.5e9
_PCIE_5: Final = 63.0e9

# What a copy of a few bytes takes on the stream: 2.0 us to the device and 2.5 to 4.5 us from it, the medians of the 214
# small copies in the public profile of BERT on eight V100 (tensorflow/profiler, demo).  What the host spends on
# starting the copy and on waiting for it comes on top and is not modelled.
PCIE_LATENCY_NS: Final = 2_500


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU.

    Attributes
    ----------
    compute_capability
        What TensorFlow calls its architecture; the graph optimizer's choice of layout depends on it.
    pcie_bytes_per_s
        Rate of the link in one direction, at best: modelled times are lower bounds.
    """

    name: str
    compute_capability: str
    pcie_bytes_per_s: float

    def copy_ns(self, nbytes: int) -> int:
        """Return what copying ``nbytes`` over PCIe takes at least."""
        return PCIE_LATENCY_NS + round(nbytes / self.pcie_bytes_per_s * 1e9)


# Sources, one datasheet each (peaks of sparse products are halved where a sheet gives only these):
# A100: "NVIDIA A100 Tensor Core GPU" datasheet, column A100 40GB SXM.  H100: "NVIDIA H100 Tensor Core GPU" datasheet,
# column H100 SXM.  L4: "NVIDIA L4 Tensor Core GPU" datasheet.  T4: "NVIDIA T4" datasheet.  V100: "NVIDIA V100 Tensor
# Core GPU" datasheet, column V100 SXM2 (16 GB).
GPUS: Final[Mapping[str, Gpu]] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            Gpu("A100", "8.0", _PCIE_4),
            Gpu("H100", "9.0", _PCIE_5),
            Gpu("L4", "8.9", _PCIE_4),
            Gpu("T4", "7.5", _PCIE_3),
            Gpu("V100", "7.0", _PCIE_3),
        )
    }
)
# What `gpu` alone means: the most common one of the architecture from which on TensorFlow keeps the layout of inference
# graphs as it was written.
USUAL: Final = "A100"


def gpu_named(asked: str) -> Gpu:
    """Return the GPU that ``--assume-device`` names: ``gpu`` or ``gpu:T4``, in any case.

    Raises
    ------
    UsageError
        For any other device.
    """
    kind, _, name = asked.partition(":")
    gpu = GPUS.get((name or USUAL).upper())
    if kind.lower() != "gpu" or gpu is None:
        known = ", ".join(f"gpu:{name}" for name in GPUS)
        raise UsageError(f"--assume-device {asked}: there is gpu (the same as gpu:{USUAL}), {known}")
    return gpu
