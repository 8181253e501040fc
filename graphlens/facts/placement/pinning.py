"""Constants that Grappler's option ``pin_to_host_optimization`` leaves on the host, by the kernels of a GPU.

Grappler moves every small constant to the host and takes it back when a reader wants it in device memory, which it
looks up among the kernels of the TensorFlow that runs it.  A build for processors lacks most GPU kernels, so it takes
too many back; this repeats that last step with the kernels of the build for GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from graphlens.facts.placement.kernels import CPU, GPU, DeviceType, KernelTable
from graphlens.facts.placement.netlist import Netlist
from graphlens.facts.placement.registry import GpuKernels
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONSTANTS

# `IsTensorSmall` in TensorFlow's pin_to_host_optimizer.cc; strings are on the host already.
_SMALL_DTYPES: Final = frozenset({"int32", "int64", "float32"})
_MOST_ELEMENTS: Final = 64


def with_pinned_constants(
    netlist: Netlist, devices: Mapping[str, DeviceType], kernels: KernelTable
) -> dict[str, DeviceType]:
    """Return ``devices`` with the constants on the host that every reader takes from there."""
    registry = GpuKernels(kernels)
    moved: dict[str, DeviceType] = {
        op.name: CPU
        for number, op in enumerate(netlist.ops)
        if op.type in CONSTANTS and devices[op.name] == GPU and _is_small(op)
        if all(
            devices[netlist.ops[wire.dst].name] == CPU
            or registry.host_argument(netlist.ops[wire.dst], "input", wire.dst_port)
            for wire in netlist.out_of[number]
            if wire.dst_port >= 0
        )
    }
    return {**devices, **moved}


def _is_small(op: Op) -> bool:
    spec = op.outputs[0] if op.outputs else None
    return (
        spec is not None
        and spec.dtype in _SMALL_DTYPES
        and spec.elements is not None
        and spec.elements <= _MOST_ELEMENTS
    )
