"""Which tensors of a placed graph cross devices or memories: TensorFlow's partitioner, simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graphlens.facts.placement.frames import conditions, loops
from graphlens.facts.placement.kernels import CPU, GPU, DeviceType, KernelTable
from graphlens.facts.placement.netlist import INT32, RESOURCE, STRING, Netlist, Slot, Wire
from graphlens.facts.placement.placer import ALL_RULES, Rules
from graphlens.ir.devices import CopyKind
from graphlens.ir.nodes import Op
from graphlens.ir.ops import LOOPS, PLAIN_CALLS

ALWAYS_ON_HOST: Final = frozenset({STRING, RESOURCE})
# Calls have kernels but no memory types of their own (`IsFunctionCallOp` in TensorFlow's memory_types.cc).
_CALLS: Final = PLAIN_CALLS | LOOPS | {"SymbolicGradient"}
_KINDS: Final[Mapping[tuple[bool, bool], CopyKind]] = {
    (True, False): "host-to-device",
    (False, True): "device-to-host",
    (True, True): "host-to-host",
    (False, False): "device-to-device",
}


@dataclass(frozen=True, slots=True)
class Transfer:
    """One tensor (``src_port`` -1: a control dependency) that is sent from one side to the other, once for all readers.

    ``src_on_host`` and ``dst_on_host`` say in which memory it lies: an op on the GPU may take an argument from host
    memory.  ``readers`` are ``(op, input)`` on the other side, in the order of the graph; there are none where only the
    partitioner's own loop reads it.
    """

    src: str
    src_port: int
    src_device: DeviceType
    dst_device: DeviceType
    src_on_host: bool
    dst_on_host: bool
    kind: CopyKind
    dtype: str | None
    readers: tuple[tuple[str, int], ...]

    @property
    def crosses_bus(self) -> bool:
        """Whether it is a copy between host and device memory, and not only a wait or a hand-over."""
        return self.kind in ("host-to-device", "device-to-host")


def transfers(
    netlist: Netlist, devices: Mapping[str, DeviceType], kernels: KernelTable, rules: Rules = ALL_RULES
) -> tuple[Transfer, ...]:
    """Return what is sent between the two sides, in the order of the readers.

    Parameters
    ----------
    devices
        Op -> where it is; every op of the graph has to be in it.
    """
    memories = _Memories(netlist, devices, kernels, rules)
    found: dict[tuple[object, ...], list[Wire]] = {}
    for position, wire in enumerate(netlist.wires):
        if memories.needs_transfer(wire):
            key = (wire.src, wire.src_port, memories.device(wire.dst), memories.takes_on_host(wire))
            found.setdefault(key if rules.deduplication else (*key, position), []).append(wire)
    loops_followed = _followed(netlist, memories.devices) if rules.loops else []
    followed = [one for one in loops_followed if (one[0], 0, one[1], True) not in found]
    return (*(memories.transfer(wires) for wires in found.values()), *(memories.decision(*one) for one in followed))


def _followed(netlist: Netlist, devices: Sequence[DeviceType]) -> list[tuple[int, DeviceType]]:
    """Return the conditions of loops that cross sides, each with the side that has to be told how they decide.

    Where an edge inside a loop leads to another device, the partitioner adds a loop of its own there, which goes round
    as often as the first one; so it does for the loops around it.
    """
    loops_of = loops(netlist)
    found: dict[tuple[tuple[str, ...], DeviceType], None] = {}
    for wire in netlist.wires:
        loop, device = loops_of[wire.dst], devices[wire.dst]
        if devices[wire.src] != device and loops_of[wire.src] == loop:
            found.update({(loop[:depth], device): None for depth in range(1, len(loop) + 1)})
    deciding = conditions(netlist, loops_of)
    told = [(deciding[loop], device) for loop, device in found if loop in deciding]
    return [(condition, device) for condition, device in told if devices[condition] != device]


class _Memories:
    """In which memory each argument of each op lies, worked out when first asked."""

    def __init__(self, netlist: Netlist, devices: Mapping[str, DeviceType], kernels: KernelTable, rules: Rules) -> None:
        self.netlist = netlist
        self.kernels = kernels
        self.rules = rules
        self.devices = [devices[op.name] for op in netlist.ops]
        self.inputs: list[tuple[bool, ...] | None] = [None] * len(netlist.ops)
        self.outputs: list[tuple[bool, ...] | None] = [None] * len(netlist.ops)

    def device(self, number: int) -> DeviceType:
        return self.devices[number]

    def needs_transfer(self, wire: Wire) -> bool:
        if self.devices[wire.src] != self.devices[wire.dst]:
            return True
        if wire.dst_port < 0 or self.devices[wire.src] == CPU:
            return False
        return self.gives_on_host(wire) != self.takes_on_host(wire)

    def gives_on_host(self, wire: Wire) -> bool:
        if wire.src_port < 0:
            return True
        if self.outputs[wire.src] is None:
            self.outputs[wire.src] = self._on_host(wire.src, self.netlist.outputs[wire.src], "_output_hostmem")
        return _at(self.outputs[wire.src], wire.src_port, self.devices[wire.src])

    def takes_on_host(self, wire: Wire) -> bool:
        if wire.dst_port < 0:
            return True
        if self.inputs[wire.dst] is None:
            self.inputs[wire.dst] = self._on_host(wire.dst, self.netlist.inputs[wire.dst], "_input_hostmem")
        return _at(self.inputs[wire.dst], wire.dst_port, self.devices[wire.dst])

    def _on_host(self, number: int, slots: tuple[Slot, ...], marked: str) -> tuple[bool, ...]:
        op = self.netlist.ops[number]
        if self.devices[number] == CPU:
            return (True,) * len(slots)
        named, int32_too = self._host_arguments(op)
        listed = op.attrs.get(marked) or ()
        return tuple(
            slot.argument in named or slot.dtype in ALWAYS_ON_HOST or (int32_too and slot.dtype == INT32) or i in listed
            for i, slot in enumerate(slots)
        )

    def _host_arguments(self, op: Op) -> tuple[frozenset[str], bool]:
        """Return the arguments that a kernel keeps on the host, and whether int32 stays there for want of a kernel."""
        kernel = self.kernels.kernel(op, GPU)
        has_memory_types = kernel is not None and op.type not in _CALLS
        if kernel is None or not has_memory_types:
            return frozenset(), not op.attrs.get("_XlaMustCompile")
        return (kernel.host_arguments if self.rules.host_arguments else frozenset()), False

    def transfer(self, wires: list[Wire]) -> Transfer:
        first = wires[0]
        is_tensor = first.src_port >= 0
        source, reader = self.gives_on_host(first), self.takes_on_host(first)
        return Transfer(
            src=self.netlist.ops[first.src].name,
            src_port=first.src_port,
            src_device=self.devices[first.src],
            dst_device=self.devices[first.dst],
            src_on_host=source,
            dst_on_host=reader,
            kind=_KINDS[source, reader] if is_tensor else "control",
            dtype=self.netlist.given(first).dtype if is_tensor else None,
            readers=tuple((self.netlist.ops[wire.dst].name, wire.dst_port) for wire in wires),
        )

    def decision(self, condition: int, device: DeviceType) -> Transfer:
        """Return what tells ``device`` whether a loop goes round once more; it is read in host memory."""
        told = self.transfer([Wire(condition, 0, condition, 0)])
        return replace(told, dst_device=device, dst_on_host=True, kind=_KINDS[told.src_on_host, True], readers=())


def _at(known: tuple[bool, ...] | None, port: int, device: DeviceType) -> bool:
    """An argument that nobody registered lies where its op is."""
    return known[port] if known is not None and port < len(known) else device == CPU
