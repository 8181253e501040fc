"""The parts of an analysis that speak of devices: copies, lanes, replicas, what-if placement, the roofline, memory.

They are parts of the analysis document (:mod:`graphlens.ir.analysis`): fields may be added, never renamed; ``None``
means unknown, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from graphlens.ir.run import Origin

CopyKind = Literal["host-to-device", "device-to-host", "device-to-device", "host-to-host", "control"]

# Why a tensor crosses: a closed list.  ``None`` in a copy means that the evidence does not tell.
CopyReason = Literal[
    "no kernel for this device and dtype",
    "int32/host-memory argument",
    "shape arithmetic",
    "explicit device",
    "string/resource op",
    "Python op",
    "constant on the host",
    "feed",
    "fetch",
    "cross-replica",
    "kept in host memory",
]

LANE_BINS: Final = 240  # resolution of a lane: what a report's width can show

# The runtime's full device name ends in the part that tells devices apart on one machine.
_DEVICE = re.compile(r"(?:device:)?([A-Za-z_]+:\d+)$")


def short_device(device: str) -> str:
    """Return ``CPU:0`` of ``/job:localhost/replica:0/task:0/device:CPU:0``; text that names no device stays as it is.

    Programs may write a device in small letters; it is the same one.

    >>> short_device("/job:localhost/replica:0/task:0/device:GPU:1"), short_device("/gpu:0"), short_device("x")
    ('GPU:1', 'GPU:0', 'x')
    """
    match = _DEVICE.search(device)
    return match[1].upper() if match else device


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor that crosses devices, or the memories of one device, inside the step.

    Attributes
    ----------
    src, dst
        The op that makes the tensor and the first one that reads it on the other side.
    bytes
        Size of the tensor; of several executions that differ, the mean.
    ns
        Time of one step's executions: of the transfer itself where the profile has it, else of send and wait.
    reason, detail, at_fault
        Why it crosses, in words which op, argument or attribute is at fault, and the name of that op.
    origin
        ``measured`` for copies that ran, ``modelled`` for those of a simulated placement.
    calls_per_step
        Executions per step (a copy in a loop runs once per iteration); 0 for a copy outside of the steps.
    tensor
        Data type and shape, as ``float32[8,128]``.
    stream
        The stream or thread that it ran on.
    overlap_share
        Share of its time during which the device computed as well.
    events, event_bytes
        The device's own memcpy events in the whole profile that are this copy, and their bytes (``None`` where one
        does not tell its size); 0 events for a copy that is only known from the graph.
    """

    src: str
    dst: str
    src_device: str
    dst_device: str
    bytes: int | None = None
    ns: int | None = None
    reason: CopyReason | None = None
    on_critical_path: bool | None = None
    kind: CopyKind | None = None
    origin: Origin = "measured"
    detail: str | None = None
    calls_per_step: float | None = None
    tensor: str | None = None
    stream: str | None = None
    overlap_share: float | None = None
    events: int = 0
    event_bytes: int | None = None
    at_fault: str | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """How busy one side of a device was over the profile: ``busy`` has ``LANE_BINS`` shares from 0 to 1."""

    kind: Literal["compute", "copy-in", "copy-out", "copy-within", "collective"]
    busy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of the profile, the empty ones included.

    Attributes
    ----------
    name, host, kind
        ``GPU:4``, the machine that it belongs to (empty when the profile names none), and ``CPU``, ``GPU``, ``TPU``, ….
    kernels, kernel_ns, busy_ns
        Executions of kernels in the profile, their summed time, and the time during which at least one computed.
    wait_ns
        The part of ``kernel_ns`` in which an instruction of the device's own program only waited for a copy.
    flops
        Floating-point operations of all executions; ``None`` where the profile tells none of a kernel that computes.
    span_ns
        From the first event of the device to its last one.
    steps, step_ns
        Steps that the profile marks on this device, and their median length.
    copies, copy_bytes, copy_ns
        Copies to and from the device in the profile.
    replica
        The number of the replica that ran on it, where the names of its ops say so.
    properties
        What the profile says of the hardware (compute capability, memory bandwidth, …).
    """

    name: str
    host: str = ""
    kind: str = ""
    kernels: int = 0
    kernel_ns: int | None = None
    busy_ns: int | None = None
    span_ns: int | None = None
    steps: int | None = None
    step_ns: int | None = None
    copies: int = 0
    copy_bytes: int | None = None
    copy_ns: int | None = None
    replica: int | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    wait_ns: int | None = None
    flops: int | None = None


@dataclass(frozen=True, slots=True)
class HostRow:
    """One machine of the profile: its steps, and what its devices did in sum."""

    name: str
    devices: int = 0
    steps: int | None = None
    step_ns: int | None = None
    busy_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica of a distributed step: where it ran, and how long its device was busy for it."""

    number: int
    host: str
    device: str
    kernels: int | None = None
    busy_ns: int | None = None
    step_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Hosts and replicas of the profile.

    ``imbalance`` is the busiest device's busy time over the mean of all devices of the run, less 1 (0: balanced);
    ``words`` says in a sentence which devices did the work.
    """

    hosts: tuple[HostRow, ...] = ()
    replicas: tuple[ReplicaRow, ...] = ()
    imbalance: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class CopyCount:
    """Copies of one step by direction, with their bytes and modelled time (``None`` where a size is unknown)."""

    host_to_device: int
    device_to_host: int
    device_to_device: int = 0
    bytes: int | None = None
    ns: int | None = None


@dataclass(frozen=True, slots=True)
class Island:
    """Ops next to each other that stay on the host although the step runs on the device, and why."""

    ops: tuple[str, ...]
    why: str
    reason: CopyReason | None = None
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A change that was made to a copy of the graph, and the copies of its simulated placement before and after."""

    change: Literal["static-batch", "pin-to-host", "move-device", "lookup-outside"]
    words: str
    before: CopyCount
    after: CopyCount
    snippet: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class PlacedOp:
    """One op of a simulated placement; ``why`` says why it is not on the device, empty when it is."""

    name: str
    op: str
    device: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """What a machine with ``device`` would place where: simulated, never measured.

    ``table`` names the TensorFlow version whose kernels were assumed, ``stage`` the graph that was placed (``executed``
    from a run on this machine's CPU, ``traced`` when nothing was executed), ``not_covered`` what the model leaves out,
    ``assumed`` what it takes for granted of this program.
    """

    device: str
    table: str
    stage: Literal["executed", "traced"]
    ops_on_device: int
    ops_on_host: int
    copies: CopyCount
    ops: tuple[PlacedOp, ...] = ()
    islands: tuple[Island, ...] = ()
    counterfactuals: tuple[Counterfactual, ...] = ()
    not_covered: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    origin: Origin = "modelled"


@dataclass(frozen=True, slots=True)
class Roof:
    """What one device of this machine can do at best, measured beside the model: operations and bytes per second.

    ``flops_per_s`` is that of products of large square matrices in ``dtype``, ``bytes_per_s`` that of a sum in place of
    tensors larger than the caches, read and written bytes together.  ``threads`` are those that TensorFlow gives one
    op (``None`` for an accelerator).
    """

    flops_per_s: float
    bytes_per_s: float
    dtype: str = "float32"
    threads: int | None = None
    origin: Origin = "measured"
    device: str = ""


@dataclass(frozen=True, slots=True)
class RoofPoint:
    """One op under the roof: its operations, bytes and time per step, and what it reached of what is attainable.

    ``flops`` is 0 for ops that only move data: they have no place on the roof's slope, but a ``share`` of it.
    ``share`` is the time that the op would take at the roof (of its operations or its bytes, whichever takes longer)
    over the time that it took.  It is above 1 where tensors came from a cache, which is faster than the memory.
    """

    op: str
    type: str
    flops: int
    bytes: int
    ns: int
    share: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The roof and the ops under it, by falling time."""

    roof: Roof
    points: tuple[RoofPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """A tensor that is alive at the peak."""

    op: str
    tensor: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Live tensors of the step in the order in which ops ran: an estimate, since the allocator was not asked.

    Views (``Reshape``, ``Identity``) share a buffer, and elementwise ops overwrite an input that nobody reads after
    them, as TensorFlow does.  What kernels allocate for themselves is not in it.  ``curve`` holds the most live bytes
    in each of at most ``LANE_BINS`` equal stretches of that order; ``alive`` are the largest tensors at the peak, by
    falling bytes; ``weights_bytes``, the variables and constants, come on top; ``unknown`` counts ops whose output size
    is not known and which are left out.  ``device`` is the one whose memory it is (``CPU`` for all of a host).
    """

    peak_bytes: int
    at_op: str
    curve: tuple[int, ...]
    alive: tuple[LiveTensor, ...] = ()
    weights_bytes: int | None = None
    unknown: int = 0
    origin: Origin = "modelled"
    device: str = ""
