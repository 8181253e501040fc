"""What the accelerators of a sketch report: a kernel per op, a copy per tensor that is received from another memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from graphlens.ir.devices import Copy, CopyCount, Placement
from graphlens.ir.nodes import Op
from graphlens.ir.ops import RECEIVES, SENDS
from graphlens.ir.run import CopyEvent, DeviceEvent, ProfiledDevice

# The types of lines that are no op but a copy of which only the device tells.
MEMCPYS: Final[Mapping[str, Any]] = {
    "MemcpyH2D": "host-to-device",
    "MemcpyD2H": "device-to-host",
    "MemcpyD2D": "device-to-device",
}


class Timed(NamedTuple):
    """One execution of one op."""

    op: Op
    start_ns: int
    end_ns: int


class Reported(NamedTuple):
    """What the devices report."""

    devices: tuple[ProfiledDevice, ...] = ()
    kernels: tuple[DeviceEvent, ...] = ()
    copies: tuple[CopyEvent, ...] = ()


class Wiring(NamedTuple):
    """The ops of the sketch, and what each reads, as written."""

    ops: Mapping[str, Op]
    inputs: Mapping[str, tuple[str, ...]]

    def sent(self, receive: Op) -> Op | None:
        """Return the send that a receive reads."""
        return next((self.ops[name] for name in self.inputs[receive.name] if name in self.ops), None)

    def first_input(self, op: Op) -> str:
        """Return the name of the op that ``op`` reads first, empty when it reads nothing."""
        return next(map(_without_port, self.inputs[op.name]), "")

    def first_reader(self, op: Op) -> str:
        """Return the name of the first op that reads ``op``, empty when none does."""
        return next((name for name, read in self.inputs.items() if op.name in map(_without_port, read)), "")


def reported(events: Sequence[Timed], wiring: Wiring, properties: Mapping[str, object]) -> Reported:
    """Return what the accelerators report of ``events``; nothing when all of them are processors.

    ``properties`` is what the profile says of each accelerator.
    """
    names = list(dict.fromkeys(_short(event.op.device) for event in events if _is_accelerator(event.op.device)))
    kernels, copies = [], []
    for event in events:
        op = event.op
        if op.type in MEMCPYS:
            copies.append(_line(event, names.index(_short(op.device))))
        elif op.type in RECEIVES:
            copies += _received(event, wiring, names)
        elif _is_accelerator(op.device) and op.type not in SENDS:
            kernels.append(_kernel(event, names.index(_short(op.device))))
    devices = tuple(ProfiledDevice(name, kind=name.partition(":")[0], properties=properties) for name in names)
    return Reported(devices, tuple(kernels), tuple(copies))


def modelled(op: Op, ns: int | None, src_device: str, dst_device: str) -> Copy:
    """Return the copy of a simulated placement that a line ``MemcpyH2D() … {src: a, dst: b}`` describes."""
    attrs = op.attrs
    return Copy(
        src=str(attrs.get("src", "")),
        dst=str(attrs.get("dst", "")),
        src_device=src_device,
        dst_device=dst_device,
        bytes=attrs.get("bytes"),
        ns=ns,
        reason=attrs.get("reason"),
        kind=MEMCPYS[op.type],
        origin="modelled",
        detail=attrs.get("detail"),
        at_fault=attrs.get("at_fault"),
        calls_per_step=float(attrs.get("calls", 1)),
    )


def placement(device: str, copies: Iterable[Copy]) -> Placement:
    """Return the simulated placement whose copies are given; of its ops the sketch says nothing."""
    kinds = [copy.kind for copy in copies]
    count = CopyCount(kinds.count("host-to-device"), kinds.count("device-to-host"), kinds.count("device-to-device"))
    return Placement(device, "2.21", "executed", 0, 0, count)


def _kernel(event: Timed, device: int) -> DeviceEvent:
    op = event.op
    return DeviceEvent(
        str(op.attrs.get("kernel", op.type.lower())), op.name, op.type, event.start_ns, event.end_ns, device, "Compute"
    )


def _line(event: Timed, device: int) -> CopyEvent:
    """Return the copy that a line of its own describes."""
    attrs, kind = event.op.attrs, MEMCPYS[event.op.type]
    names = {key: str(attrs.get(key, "")) for key in ("node", "op", "src", "dst", "edge")}
    return CopyEvent(
        kind=kind,
        start_ns=event.start_ns,
        end_ns=event.end_ns,
        device=device,
        stream=kind,
        nbytes=attrs.get("bytes"),
        **names,
    )


def _received(event: Timed, wiring: Wiring, names: Sequence[str]) -> Iterator[CopyEvent]:
    """Yield the copy that a receive waits for, unless both ends are in host memory."""
    op = event.op
    send = wiring.sent(op)
    if send is None or not (_in_device_memory(op) or _in_device_memory(send)):
        return
    kind: Any = "-to-".join("device" if _in_device_memory(end) else "host" for end in (send, op))
    device = op.device if _is_accelerator(op.device) else send.device
    yield CopyEvent(
        kind=kind,
        node=op.name,
        op=op.type,
        start_ns=event.start_ns,
        end_ns=event.end_ns,
        device=names.index(_short(device)),
        stream=kind,
        nbytes=op.outputs[0].nbytes if op.outputs else None,
        src=wiring.first_input(send),
        dst=wiring.first_reader(op),
    )


def _in_device_memory(op: Op) -> bool:
    return _is_accelerator(op.device) and not op.type.startswith("_Host")


def _without_port(name: str) -> str:
    return name.lstrip("^").partition(":")[0]


def _is_accelerator(device: str) -> bool:
    return _short(device).partition(":")[0] not in ("", "CPU")


def _short(device: str) -> str:
    return device.rpartition("/")[2].removeprefix("device:")
