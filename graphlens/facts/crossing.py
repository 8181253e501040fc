"""Why a tensor crosses between memories: one logic for copies that ran and for those of a simulated placement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Protocol

from graphlens.facts.flat.names import replica_of
from graphlens.ir.devices import CopyKind, CopyReason
from graphlens.ir.graph import data_inputs, topological_order
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import CONSTANTS, FED, PYTHON, RETURNS, SHAPE_READERS, VARIABLE_READS, family, runtime_type
from graphlens.ir.table import Table

Memory = Literal["host", "device"]
Side = Literal["input", "output"]

_QUEUES: Final = re.compile(r"^IteratorGetNext|Dequeue|^OptionalGetValue$|^Unstage$")
# Tensors that only the host holds, and families of ops that work on them.
_HOST_TYPES: Final = frozenset({"string", "resource"})
_HOST_FAMILIES: Final = frozenset({"string", "input"})
_NO_DEVICES: Final = frozenset({"JOB", "REPLICA", "TASK"})  # parts of a device's name that say where, not what


class Kernels(Protocol):
    """What TensorFlow's registry says of the kernels of one type of accelerator."""

    @property
    def device(self) -> str:
        """The type of the accelerator, as ``GPU``."""

    def supports(self, op: Op) -> bool | None:
        """Tell whether there is a kernel for the op and its types; ``None`` for an op that the table lacks."""

    def host_argument(self, op: Op, side: Side, port: int) -> str | None:
        """Return the name of the argument at ``port`` when the kernel keeps it in host memory."""

    def refused(self, op: Op) -> Mapping[str, str]:
        """Return attribute -> dtype for which there is no kernel, where dtypes are what it fails for."""

    def supported_types(self, op: Op) -> str:
        """Say which types there are kernels for, as ``T: float32, float16``; empty when there is none at all."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a crossing.

    Attributes
    ----------
    op, port
        The op that makes or reads the tensor, and at which output or input (``None``: not known).
    memory, device
        Where it keeps the tensor, and the device that it runs on.
    requested
        The device that the program asked for, empty when it did not.
    held_by
        The op of the same group (colocated ops, or those around one variable) that keeps it on its device.
    """

    op: Op
    memory: Memory
    device: str
    port: int | None = None
    requested: str = ""
    held_by: Op | None = None


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that goes from one memory to another; ``is_shape`` says that it was computed of shapes alone."""

    src: End
    dst: End
    tensor: TensorSpec | None = None
    is_shape: bool = False

    @property
    def kind(self) -> CopyKind:
        """The direction of the copy."""
        return f"{self.src.memory}-to-{self.dst.memory}"  # type: ignore[return-value]  # all four are kinds

    @property
    def is_with_accelerator(self) -> bool:
        """Whether one of the ends is on an accelerator: the processor has a kernel for whatever ran on it."""
        return is_accelerator(self.src.device) or is_accelerator(self.dst.device)

    @property
    def host_ends(self) -> tuple[End, ...]:
        """The ends that keep the tensor in host memory, the reader first: it is the one that asks for it."""
        return tuple(end for end in (self.dst, self.src) if end.memory == "host")


class Cause(NamedTuple):
    """Why a tensor crosses: the reason, which op or argument is at fault in words, and the name of that op."""

    reason: CopyReason | None = None
    detail: str | None = None
    at_fault: str | None = None


UNKNOWN: Final = Cause()


def cause_of(crossing: Crossing, kernels: Kernels | None = None) -> Cause:
    """Return why ``crossing`` happens: the first cause that the evidence proves; none is guessed.

    Without ``kernels``, causes that only the registry tells stay unknown.
    """
    for check in _CHECKS:
        cause = check(crossing, kernels)
        if cause is not None:
            return cause
    return UNKNOWN


def shape_ops(graph: Table) -> frozenset[str]:
    """Return the ops whose value is computed of shapes (and constants) alone."""
    found: set[str] = set()
    known: set[str] = set()  # constants and what is in `found`
    for name in topological_order(graph):
        op = graph.op(name)
        if op.type in SHAPE_READERS:
            found.add(name)
        elif op.type not in CONSTANTS:
            inputs = data_inputs(graph, name)
            if op.calls or not inputs or not known.issuperset(inputs):
                continue
            if not found.isdisjoint(inputs):
                found.add(name)
        known.add(name)
    return frozenset(found)


def device_kind(device: str) -> str:
    """Return the type of a device, empty when its name does not tell.

    >>> device_kind("/job:localhost/replica:0/task:0/device:GPU:1"), device_kind("/cpu:0"), device_kind("")
    ('GPU', 'CPU', '')
    """
    kind = device.rpartition("/")[2].removeprefix("device:").partition(":")[0].upper()
    return "" if kind in _NO_DEVICES else kind


def is_accelerator(device: str) -> bool:
    """Tell whether a device is known to be no processor."""
    return device_kind(device) not in ("", "CPU")


# -- causes, in the order in which they are tried -----------------------------------------------------------------


def _fetch(crossing: Crossing, _: Kernels | None) -> Cause | None:
    op = crossing.dst.op
    if crossing.dst.memory != "host" or op.type not in RETURNS:
        return None
    return Cause("fetch", f"the caller gets it in host memory ({op.name})", op.name)


def _feed(crossing: Crossing, _: Kernels | None) -> Cause | None:
    op = crossing.src.op
    if crossing.src.memory != "host":
        return None
    if op.type in FED:
        return Cause("feed", f"the caller hands {op.name} over in host memory", op.name)
    if _QUEUES.search(op.type):
        return Cause("feed", f"{op.name} ({op.type}) hands it over in host memory each step", op.name)
    return None


def _replicas(crossing: Crossing, _: Kernels | None) -> Cause | None:
    """Two devices of one type, and names that say which replica each end belongs to."""
    src, dst = crossing.src, crossing.dst
    # All replicas but the first one have a number in their names.
    numbers = [replica_of(end.op.name) or 0 for end in (src, dst)]
    alike = device_kind(src.device) == device_kind(dst.device) and src.device != dst.device
    if not alike or numbers[0] == numbers[1]:
        return None
    words = f"{dst.op.name} of replica {numbers[1]} reads what replica {numbers[0]} made"
    return Cause("cross-replica", words, dst.op.name)


def _python(crossing: Crossing, _: Kernels | None) -> Cause | None:
    for end in crossing.host_ends:
        if end.op.type in PYTHON:
            return Cause("Python op", f"{end.op.name} ({end.op.type}) runs Python, on the host", end.op.name)
    return None


def _string(crossing: Crossing, _: Kernels | None) -> Cause | None:
    for end in crossing.host_ends:
        op = end.op
        if family(op.type) in _HOST_FAMILIES or any(spec.dtype in _HOST_TYPES for spec in _tensors(crossing, op)):
            words = f"{op.name} ({op.type}) works on strings, tables or resources, which only the host holds"
            return Cause("string/resource op", words, op.name)
    return None


def _tensors(crossing: Crossing, op: Op) -> Iterator[TensorSpec]:
    if crossing.tensor is not None:
        yield crossing.tensor
    yield from op.outputs


def _no_kernel(crossing: Crossing, kernels: Kernels | None) -> Cause | None:
    if kernels is None or not crossing.is_with_accelerator:
        return None
    for end in crossing.host_ends:
        for op in (end.op, end.held_by):
            if op is not None and not is_accelerator(end.device) and _lacks_kernel(op, kernels):
                return Cause("no kernel for this device and dtype", _missing(end.op, op, kernels), op.name)
    return None


def _lacks_kernel(op: Op, kernels: Kernels) -> bool:
    """Whether the registry knows the op, and no kernel for it; of an op whose types are unknown, none for any type."""
    generic = _as_written(op)
    if generic.type.startswith("_"):  # made where the op already was, of ops that were placed before
        return False
    return kernels.supports(generic) is False and (bool(op.attrs) or not kernels.supported_types(generic))


def _as_written(op: Op) -> Op:
    """Return the op without the type and the label of oneDNN, which rewrites what runs on the processor."""
    generic = runtime_type(op.type)
    if generic == op.type:
        return op
    return replace(op, type=generic, attrs={name: value for name, value in op.attrs.items() if name != "_kernel"})


def _missing(end: Op, op: Op, kernels: Kernels) -> str:
    generic = _as_written(op)
    types = kernels.supported_types(generic)
    refused = ", ".join(f"{name}={dtype}" for name, dtype in kernels.refused(generic).items()) if op.attrs else ""
    what = f"for {refused or 'its types'} (there is one for {types})" if types else "for any type"
    held = "" if op.name == end.name else f", and {end.name} has to be where it is"
    return f"{op.name} ({runtime_type(op.type)}) has no {kernels.device} kernel {what}{held}"


def _explicit(crossing: Crossing, _: Kernels | None) -> Cause | None:
    """The host was asked for by name; between devices of one type, either of them was."""
    src, dst = crossing.src, crossing.dst
    if src.device == dst.device:
        return None
    alike = device_kind(src.device) == device_kind(dst.device)
    # Between equals, the one that was taken off the first device, where everything goes by default.
    for end in sorted((dst, src), key=_is_on_first) if alike else crossing.host_ends:
        if end.requested and (alike or not is_accelerator(end.requested)):
            return Cause("explicit device", f"{end.op.name} is placed on {end.requested} by name", end.op.name)
    return None


def _is_on_first(end: End) -> bool:
    return not end.requested or end.requested.endswith(":0")


def _shape(crossing: Crossing, _: Kernels | None) -> Cause | None:
    if not crossing.is_shape:
        return None
    src = crossing.src.op
    return Cause(
        "shape arithmetic", f"{src.name} ({src.type}) computes a shape, which is known only at run time", src.name
    )


def _host_argument(crossing: Crossing, kernels: Kernels | None) -> Cause | None:
    """An op on the accelerator keeps this argument in host memory, or would do so there."""
    if not crossing.is_with_accelerator:
        return None
    for end in crossing.host_ends:
        side: Side = "input" if end is crossing.dst else "output"
        argument = (
            kernels.host_argument(_as_written(end.op), side, end.port) if kernels and end.port is not None else None
        )
        if _is_int32_variable(crossing, end):
            words = f"{end.op.name} reads a variable of int32, and these are kept in host memory"
            return Cause("int32/host-memory argument", words, end.op.name)
        if argument or is_accelerator(end.device):
            return Cause("int32/host-memory argument", _kept(crossing, end, side, argument), end.op.name)
    return None


def _is_int32_variable(crossing: Crossing, end: End) -> bool:
    return end.op.type in VARIABLE_READS and crossing.tensor is not None and crossing.tensor.dtype == "int32"


def _kept(crossing: Crossing, end: End, side: Side, argument: str | None) -> str:
    verb = "reads" if side == "input" else "gives"
    what = f"{side} `{argument}`" if argument else f"this {side}"
    dtype = f" ({crossing.tensor.dtype})" if crossing.tensor is not None else ""
    return f"{end.op.name} ({end.op.type}) {verb} {what}{dtype} in host memory, also on an accelerator"


def _constant(crossing: Crossing, _: Kernels | None) -> Cause | None:
    op = crossing.src.op
    if crossing.src.memory != "host" or op.type not in CONSTANTS:
        return None
    return Cause("constant on the host", f"the constant {op.name} is kept in host memory", op.name)


def _variable(crossing: Crossing, _: Kernels | None) -> Cause | None:
    """Who put the variable on the host is not in the graph that reads it."""
    op = crossing.src.op
    if crossing.src.memory != "host" or op.type not in VARIABLE_READS:
        return None
    return Cause(None, f"{op.name} reads a variable that is on the host", op.name)


_CHECKS: Final[tuple[Callable[[Crossing, Kernels | None], Cause | None], ...]] = (
    _fetch,
    _feed,
    _replicas,
    _python,
    _string,
    _no_kernel,
    _explicit,
    _shape,
    _constant,
    _host_argument,
    _variable,
)
