"""The kernel table as the one that says why tensors cross (``facts.crossing``) asks it, and what it says of one op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphlens.facts.crossing import Side
from graphlens.facts.placement.kernels import DEFAULT, GPU, KernelTable
from graphlens.facts.placement.netlist import slots_of
from graphlens.ir.nodes import Op
from graphlens.units import few

_MOST_TYPES: Final = 6  # what a line has room for


@dataclass(frozen=True, slots=True)
class GpuKernels:
    """The GPU kernels of one TensorFlow version."""

    table: KernelTable
    device: str = GPU

    def supports(self, op: Op) -> bool | None:
        """Tell whether there is a kernel for the op and its types; ``None`` for an op that the table lacks."""
        return self.table.kernel(op, GPU) is not None if self.table.knows(op) else None

    def host_argument(self, op: Op, side: Side, port: int) -> str | None:
        """Return the name of the argument at ``port`` when the kernel keeps it in host memory."""
        kernel, slots = self.table.kernel(op, GPU), slots_of(op, side)
        if kernel is None or not 0 <= port < len(slots):
            return None
        argument = slots[port].argument
        return argument if argument in kernel.host_arguments else None

    def refused(self, op: Op) -> Mapping[str, str]:
        """Return attribute -> dtype for which there is no kernel, where dtypes are what it fails for."""
        return self.table.refused(op, GPU)

    def supported_types(self, op: Op) -> str:
        """Say which types there are kernels for, as ``T: float32, float16``; empty when there is none at all.

        Of the attributes at fault, where ``op`` has their types.
        """
        rows = [row for row in self.table.ops.get(op.type, ()) if row.device in (GPU, DEFAULT)]
        refused = self.refused(op) if op.attrs else {}
        allowed: dict[str, set[str]] = {}
        for row in rows:
            for name, dtypes in row.constraints:
                allowed.setdefault(name, set()).update(dtypes)
        told = {name: dtypes for name, dtypes in sorted(allowed.items()) if name in refused or not refused}
        return "; ".join(f"{name}: {few(sorted(dtypes), _MOST_TYPES)}" for name, dtypes in told.items()) or (
            "any" * bool(rows)
        )
