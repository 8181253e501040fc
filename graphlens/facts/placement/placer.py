"""Where TensorFlow would place each op of a graph on a machine with one GPU, and why: its Placer, simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from graphlens.facts.placement import groups as colocation
from graphlens.facts.placement.groups import Groups
from graphlens.facts.placement.kernels import CPU, DeviceType, KernelTable
from graphlens.facts.placement.netlist import Netlist, Wire
from graphlens.ir.ops import SHAPE_READERS

IDENTITIES: Final = frozenset({"Identity", "RefIdentity"})

# argument: the runtime fixed it; no-kernel: the device has none; group: it goes with another op; requested: the program
# says so; follows-input, follows-readers: a heuristic of the placer; default: the first device that has a kernel.
Cause = Literal["argument", "no-kernel", "group", "requested", "follows-input", "follows-readers", "default"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a simulation follows: all of them, except in tests which show that each one matters."""

    colocation: bool = True  # resources, references and `_class` keep ops together
    requests: bool = True  # explicit devices
    metadata: bool = True  # Shape, Size and Rank stay with their input
    identity: bool = True  # so does an Identity between two ops of one request
    generators: bool = True  # constants go to their readers, where these agree
    host_arguments: bool = True  # arguments that a kernel takes or gives in host memory
    loops: bool = True  # the condition of a loop is told to the other side, if the loop crosses
    deduplication: bool = True  # a tensor crosses once for all of its readers on the other side


ALL_RULES: Final = Rules()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one op goes, and why; ``culprit`` is the op that decided, if it is another one."""

    device: DeviceType
    cause: Cause
    culprit: str = ""


def place(
    netlist: Netlist, kernels: KernelTable, assigned: Mapping[str, DeviceType], rules: Rules = ALL_RULES
) -> dict[str, Placed]:
    """Return where every op goes, by name.

    Parameters
    ----------
    assigned
        The devices that the runtime fixes before it places the rest: those of the arguments.
    """
    groups = colocation.singletons(netlist, kernels, assigned, requests=rules.requests)
    if rules.colocation:
        colocation.join_resources(groups)
        colocation.join_classes(groups)
    return _Placer(netlist, groups, assigned, rules).run()


class _Placer:
    """The state of one placement; every decision depends on those before it, as in TensorFlow."""

    def __init__(self, netlist: Netlist, groups: Groups, assigned: Mapping[str, DeviceType], rules: Rules) -> None:
        self.netlist = netlist
        self.groups = groups
        self.assigned = assigned
        self.rules = rules
        self.placed: list[Placed | None] = [None] * len(netlist.ops)

    def run(self) -> dict[str, Placed]:
        generators = []
        for number, op in enumerate(self.netlist.ops):
            if op.name in self.assigned:
                self._settle(number, Placed(self.assigned[op.name], "argument"))
            elif self._is_generator(number):
                generators.append(number)
            else:
                self._settle(number, self._beside_input(number) or self._first_choice(number))
        for number in generators:
            self._settle(number, self._beside_readers(number) or self._first_choice(number))
        return {op.name: placed for op, placed in zip(self.netlist.ops, self.placed, strict=True) if placed}

    def _settle(self, number: int, placed: Placed) -> None:
        self.placed[number] = placed
        group = self.groups.of(number)
        if group.assigned.type is None:
            group.asked_by = group.asked_by or self.netlist.ops[number].name
        group.assign(placed.device)

    def _is_generator(self, number: int) -> bool:
        if any(wire.dst_port >= 0 for wire in self.netlist.into[number]):
            return False
        outputs = self.netlist.outputs[number]
        return len(outputs) == 1 and not outputs[0].is_ref

    # -- the three choices ----------------------------------------------------------------------------------------

    def _beside_input(self, number: int) -> Placed | None:
        wires = self.netlist.into[number]
        follows = self._is_metadata(number) or self._is_plain_identity(number)
        source = self.placed[wires[0].src] if follows and wires else None
        if source is None or source.device not in self.groups.of(number).devices():
            return None
        return Placed(source.device, "follows-input", self.netlist.ops[wires[0].src].name)

    def _is_metadata(self, number: int) -> bool:
        # `IsMetadata` in TensorFlow's graph.cc: they look at a tensor's shape, not at its content, and stay with it.
        return self.rules.metadata and self.netlist.ops[number].type in SHAPE_READERS

    def _is_plain_identity(self, number: int) -> bool:
        """One in, one out (control dependencies count, and so does having no reader), between ops of one request."""
        op, into, out_of = self.netlist.ops[number], self.netlist.into[number], self.netlist.out_of[number]
        if not self.rules.identity or op.type not in IDENTITIES or op.device or op.name in self.assigned:
            return False
        if len(into) != 1 or len(out_of) > 1:
            return False
        return self._request(into[0].src) == (self._request(out_of[0].dst) if out_of else "")

    def _request(self, number: int) -> str:
        op = self.netlist.ops[number]
        return "" if op.name in self.assigned else op.device

    def _beside_readers(self, number: int) -> Placed | None:
        readers: tuple[Wire, ...] = self.netlist.out_of[number]
        placed = [self.placed[wire.dst] for wire in readers]
        found = {item.device if item else None for item in placed}
        if not self.rules.generators or len(found) != 1 or placed[0] is None:
            return None
        if placed[0].device not in self.groups.of(number).devices():
            return None
        return Placed(placed[0].device, "follows-readers", self.netlist.ops[readers[0].dst].name)

    def _first_choice(self, number: int) -> Placed:
        group = self.groups.of(number)
        device = group.devices()[0]
        if device != CPU:
            return Placed(device, "default")
        return Placed(device, *self._why_on_host(number))

    def _why_on_host(self, number: int) -> tuple[Cause, str]:
        """Say why an op is not on the GPU although nothing else drew it to the host."""
        name, group = self.netlist.ops[number].name, self.groups.of(number)
        limiting = group.limited_by.get("GPU")
        if limiting is not None:
            return ("no-kernel", "") if limiting == name else ("group", limiting)
        if group.asked_by == name:
            return "requested", ""
        return ("group", group.asked_by) if group.asked_by else ("default", "")
