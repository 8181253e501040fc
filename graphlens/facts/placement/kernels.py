"""Which kernels TensorFlow has for an op on a device, by its own registry, shipped as data per TensorFlow version."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from graphlens.errors import UsageError
from graphlens.ir import stablehlo
from graphlens.ir.nodes import Op

DeviceType = Literal["GPU", "CPU"]
GPU: Final[DeviceType] = "GPU"
CPU: Final[DeviceType] = "CPU"
# A kernel for any device that has none of its own: `Shape`, `Identity`, what only handles host memory.
DEFAULT: Final = "DEFAULT"
LABEL: Final = "_kernel"
CUDA: Final = "CUDA"  # as a program of StableHLO says it, too

_FOLDER: Final = Path(__file__).parents[2] / "data"
_FILE: Final = re.compile(r"kernels-gpu-tf(\d+\.\d+)\.json\.gz$")


class Kernel(NamedTuple):
    """One row of the registry: a kernel, what it takes, and which of its arguments live in host memory."""

    device: str
    constraints: tuple[tuple[str, frozenset[str]], ...]
    host_arguments: frozenset[str]
    priority: int
    label: str

    def refuses(self, attrs: Mapping[str, Any]) -> Mapping[str, str]:
        """Return attribute -> dtype of the constraints that an op does not meet, none when it meets all."""
        found = {}
        for name, allowed in self.constraints:
            value = attrs.get(name)
            dtypes = value if isinstance(value, tuple) else (value,)
            wrong = [dtype for dtype in dtypes if value is None or (allowed and dtype not in allowed)]
            if wrong:
                found[name] = str(wrong[0])
        return found


def at_fault(refusals: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Return attribute -> dtype for which there is no kernel, from what each kernel refuses an op for.

    An attribute that one of the kernels takes as it is is innocent; where each is taken by some kernel, it is their
    combination that none takes.

    >>> dict(at_fault([{"T": "string"}, {"T": "string", "Tidx": "int32"}]))
    {'T': 'string'}
    >>> dict(at_fault([{"T": "int8"}, {"Tidx": "int32"}]))
    {'T': 'int8', 'Tidx': 'int32'}
    """
    if not refusals or not all(refusals):
        return {}
    everywhere = set(refusals[0]).intersection(*refusals[1:])
    return {
        name: dtype for refused in refusals for name, dtype in refused.items() if name in everywhere or not everywhere
    }


@dataclass(frozen=True, slots=True)
class KernelTable:
    """The kernels of one TensorFlow version, built for CPUs and NVIDIA GPUs."""

    version: str
    ops: Mapping[str, tuple[Kernel, ...]]
    _found: dict[tuple[Any, ...], Kernel | None] = field(default_factory=dict, repr=False, compare=False)
    _constrained: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def kernel(self, op: Op, device: DeviceType) -> Kernel | None:
        """Return the kernel that runs ``op`` on ``device``; ``None`` when there is none.

        A device's own kernels come before those for any device, and higher priorities before lower ones.
        """
        if _is_refused(op, device):
            return None
        key = (op.type, device, op.attrs.get(LABEL), *map(op.attrs.get, self._attributes(op.type)))
        if key not in self._found:
            rows = self.ops.get(op.type, ())
            self._found[key] = _best(rows, op, device) or _best(rows, op, DEFAULT)
        return self._found[key]

    def _attributes(self, op_type: str) -> tuple[str, ...]:
        """Return the attributes on which the choice of a kernel depends."""
        found = self._constrained.get(op_type)
        if found is None:
            names = {name for row in self.ops.get(op_type, ()) for name, _ in row.constraints}
            found = self._constrained[op_type] = tuple(sorted(names))
        return found

    def knows(self, op: Op) -> bool:
        """Whether the registry holds any kernel for this type of op: it holds none of ops from other libraries."""
        return op.type in self.ops

    def refused(self, op: Op, device: DeviceType) -> Mapping[str, str]:
        """Return attribute -> value for which ``device`` has no kernel, where these are what it fails for."""
        if _is_refused(op, device):
            return {"platforms": "/".join(op.attrs["platforms"])}
        rows = [row for row in self.ops.get(op.type, ()) if row.device in (device, DEFAULT)]
        return at_fault([row.refuses(op.attrs) for row in rows if row.label == op.attrs.get(LABEL, "")])


def _is_refused(op: Op, device: DeviceType) -> bool:
    """Whether an op holds a program that was compiled for other devices: the registry's kernel would refuse to run."""
    return device == GPU and op.type == stablehlo.MODULE_OP and stablehlo.refuses(op.attrs, CUDA)


def _best(rows: tuple[Kernel, ...], op: Op, device: str) -> Kernel | None:
    label = op.attrs.get(LABEL, "")
    fitting = [row for row in rows if row.device == device and row.label == label and not row.refuses(op.attrs)]
    return max(fitting, key=lambda row: row.priority, default=None)


# -- the tables that are shipped -----------------------------------------------------------------------------------


def versions() -> tuple[str, ...]:
    """Return the TensorFlow versions (``2.21``) for which there is a table."""
    found = [match[1] for path in _FOLDER.iterdir() if (match := _FILE.search(path.name))]
    return tuple(sorted(found, key=lambda version: [int(part) for part in version.split(".")]))


def table_for(tensorflow: str) -> KernelTable:
    """Return the table for the version ``tensorflow`` (``2.21.0``), whose patch level does not matter.

    Raises
    ------
    UsageError
        When there is none: kernels come and go between versions, and another one's would be a guess.
    """
    minor = ".".join(tensorflow.split(".")[:2])
    if minor not in versions():
        raise UsageError(
            f"placement cannot be predicted for TensorFlow {minor}: GraphLens has the kernels of "
            f"{', '.join(versions())}; record the model with one of these"
        )
    return _read(minor)


@lru_cache(maxsize=2)
def _read(minor: str) -> KernelTable:
    ops = json.loads(gzip.decompress((_FOLDER / f"kernels-gpu-tf{minor}.json.gz").read_bytes()))["ops"]
    return KernelTable(minor, {name: tuple(map(_kernel, rows)) for name, rows in ops.items()})


def _kernel(row: list[Any]) -> Kernel:
    device, constraints, host, priority, label = row
    taken = tuple((name, frozenset(dtypes)) for name, dtypes in constraints)
    return Kernel(device, taken, frozenset(host), priority, label)
