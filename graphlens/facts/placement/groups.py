"""Ops that have to be placed together, and what is asked of each group: TensorFlow's colocation graph.

A group holds what its members support, the device that the runtime gave to one of them (assigned), the device of the
resource that they share, and the device that the program asks for (requested), each possibly in part (``GPU`` of any
number).  Merging two groups follows `colocation_graph.cc` step by step, with soft placement on as functions have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from graphlens.facts.placement.kernels import CPU, GPU, DeviceType, KernelTable
from graphlens.facts.placement.netlist import RESOURCE, VARIANT, Netlist, Wire
from graphlens.ir.nodes import Op

_DEVICE: Final = re.compile(r"(?:^|/)(?:device:)?([A-Za-z_]+):(\d+|\*)$|(?:^|/)(?:device:)?([A-Za-z_]+)$")
_NO_DEVICE: Final = re.compile(r"^/?(job|replica|task):")
_DATASET: Final = re.compile(r"Dataset(V\d+)?$|^DatasetFromGraph$")
_CLASS: Final = "_class"
_GROUP_PREFIX: Final = "loc:@"

# Ops that pass resources on instead of using them, so they need not be where the resource is
# (REGISTER_INPUT_COLOCATION_EXEMPTION in TensorFlow's sources).
_PASS_RESOURCES_ON: Final = frozenset(
    """PartitionedCall StatefulPartitionedCall RemoteCall If StatelessIf While StatelessWhile Case StatelessCase
    MapDataset ParallelMapDataset ParallelMapDatasetV2 MapAndBatchDataset FilterDataset FlatMapDataset
    InterleaveDataset ParallelInterleaveDatasetV2 ParallelInterleaveDatasetV3 ParallelInterleaveDatasetV4
    LegacyParallelInterleaveDatasetV2 GeneratorDataset ReduceDataset ScanDataset TakeWhileDataset
    GroupByReducerDataset GroupByWindowDataset DeleteMultiDeviceIterator""".split()
)


class DeviceName(NamedTuple):
    """A device as far as it is named; on one machine the type and the number are all that counts."""

    type: str | None = None
    number: int | None = None

    def agrees_with(self, other: DeviceName) -> bool:
        """Whether one device can bear both names."""
        return _agree(self.type, other.type) and _agree(self.number, other.number)

    def merged_with(self, other: DeviceName) -> DeviceName:
        """Return both names as one; where they contradict each other, that part is dropped."""
        if not _agree(self.type, other.type):
            return DeviceName()
        number = (self.number if self.number is not None else other.number) if _agree(*_numbers(self, other)) else None
        return DeviceName(self.type or other.type, number)

    def specified_by(self, other: DeviceName) -> DeviceName:
        """Return this name with every part replaced that ``other`` has."""
        return DeviceName(other.type or self.type, other.number if other.number is not None else self.number)


ANYWHERE: Final = DeviceName()
PRESENT: Final[Mapping[DeviceType, DeviceName]] = {GPU: DeviceName(GPU, 0), CPU: DeviceName(CPU, 0)}


def _agree(left: object, right: object) -> bool:
    return left is None or right is None or left == right


def _numbers(left: DeviceName, right: DeviceName) -> tuple[int | None, int | None]:
    return left.number, right.number


def device_name(text: str) -> DeviceName:
    """Read a device string as a graph holds it.

    >>> device_name("/job:localhost/replica:0/task:0/device:GPU:0"), device_name("/gpu:1"), device_name("/job:worker")
    (DeviceName(type='GPU', number=0), DeviceName(type='GPU', number=1), DeviceName(type=None, number=None))
    """
    last = text.rpartition("/")[2]
    match = None if _NO_DEVICE.match(last) else _DEVICE.search(text)
    if match is None:
        return ANYWHERE
    kind, number = match[1] or match[3], match[2]
    return DeviceName(kind.upper(), int(number) if number and number != "*" else None)


@dataclass(slots=True)
class Group:
    """What is known of ops that are placed together.

    ``supported`` is device -> priority (a kernel may say that it prefers to be chosen); ``limited_by`` is device -> the
    op for which the group cannot be there; ``asked_by`` the op whose request or resource decided.
    """

    supported: dict[DeviceType, int]
    assigned: DeviceName = ANYWHERE
    resource: DeviceName = ANYWHERE
    requested: DeviceName = ANYWHERE
    limited_by: dict[DeviceType, str] = field(default_factory=dict)
    asked_by: str = ""
    rank: int = 0

    def devices(self) -> list[DeviceType]:
        """Return where the group can go, the first choice first; never empty."""
        kept = self._without_request(self.assigned, self.resource), self._without_request(self.assigned)
        for name in (self.requested, *kept, ANYWHERE):
            found = [device for device in self._by_preference() if name.agrees_with(PRESENT[device])]
            if found:
                return found
        return [CPU]

    def _without_request(self, *kept: DeviceName) -> DeviceName:
        """The request is dropped where no device can follow it, but for what the runtime or a resource fixed."""
        typed = any(name.type for name in kept)
        numbered = any(name.number is not None for name in kept)
        return DeviceName(self.requested.type if typed else None, self.requested.number if numbered else None)

    def _by_preference(self) -> list[DeviceType]:
        return sorted(self.supported, key=lambda device: (-self.supported[device], device != GPU))

    def assign(self, device: DeviceType) -> None:
        """Note that a member was placed: the others follow."""
        self.assigned = self.resource = self.requested = PRESENT[device]


@dataclass(slots=True)
class Groups:
    """All groups of one graph, as a forest in which every op knows its parent."""

    netlist: Netlist
    members: list[Group]
    parents: list[int]

    def of(self, number: int) -> Group:
        """Return the group of op ``number``."""
        return self.members[self.root(number)]

    def root(self, number: int) -> int:
        """Return the number that stands for the group of op ``number``."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    # -- merging --------------------------------------------------------------------------------------------------

    def join_by_resource(self, src: int, dst: int) -> None:
        """An op that uses a resource (or a reference) is where the resource is, whatever it asks for itself."""
        source, destination = self.of(src), self.of(dst)
        if not source.requested.agrees_with(destination.requested):
            asked = source.requested.specified_by(destination.assigned).specified_by(destination.resource)
            destination.requested, destination.asked_by = asked, source.asked_by
        self.join(src, dst)

    def join(self, left: int, right: int) -> bool:
        """Merge the groups of two ops, unless no device could hold both; returns whether they are one group now."""
        left, right = self.root(left), self.root(right)
        if left == right:
            return True
        if self.members[left].rank < self.members[right].rank:
            left, right = right, left
        kept, merged = self.members[left], self.members[right]
        if not _merge_names(kept, merged) or not _merge_support(kept, merged):
            return False
        kept.rank += kept.rank == merged.rank
        self.parents[right] = left
        return True


def _merge_names(kept: Group, other: Group) -> bool:
    """Merge what is asked of two groups; ``False``, and nothing changed, when the runtime fixed both differently."""
    if not (kept.assigned.agrees_with(other.assigned) and kept.resource.agrees_with(other.resource)):
        return False
    kept.asked_by = kept.asked_by if kept.requested != ANYWHERE else other.asked_by
    kept.assigned = kept.assigned.merged_with(other.assigned)
    kept.resource = kept.resource.merged_with(other.resource)
    asked = kept.requested.merged_with(other.requested)
    kept.requested = asked.specified_by(kept.assigned).specified_by(kept.resource)
    return True


def _merge_support(kept: Group, other: Group) -> bool:
    """Keep the devices that both groups support; ``False``, and nothing changed, when there is none."""
    common = [device for device in kept.supported if device in other.supported]
    if not common:
        return False
    kept.limited_by = {**other.limited_by, **kept.limited_by}
    kept.supported = _priorities(kept, other, common)
    return True


def _priorities(kept: Group, other: Group, common: Sequence[DeviceType]) -> dict[DeviceType, int]:
    ours = {device: kept.supported[device] for device in common}
    theirs = {device: other.supported[device] for device in common}
    if not any(theirs.values()):
        return ours
    if not any(ours.values()):
        return theirs
    same = sorted(common, key=lambda d: (-ours[d], d)) == sorted(common, key=lambda d: (-theirs[d], d))
    return ours if same else dict.fromkeys(common, 0)


# -- building ------------------------------------------------------------------------------------------------------


def singletons(netlist: Netlist, kernels: KernelTable, assigned: Mapping[str, DeviceType], *, requests: bool) -> Groups:
    """Return one group per op, before anything is joined."""
    members = [_group(netlist, number, kernels, assigned, requests) for number in range(len(netlist.ops))]
    return Groups(netlist, members, list(range(len(members))))


def _group(
    netlist: Netlist, number: int, kernels: KernelTable, assigned: Mapping[str, DeviceType], requests: bool
) -> Group:
    op = netlist.ops[number]
    group = Group(supported(op, kernels))
    group.limited_by = {device: op.name for device in (GPU, CPU) if device not in group.supported}
    if op.name in assigned:
        group.assigned = group.requested = PRESENT[assigned[op.name]]
        group.asked_by = op.name
    elif requests and op.device and (asked := device_name(op.device)) != ANYWHERE:
        group.requested, group.asked_by = asked, op.name
        if _makes_resource(netlist, number):
            group.resource = asked
    return group


def supported(op: Op, kernels: KernelTable) -> dict[DeviceType, int]:
    """Return the devices that have a kernel for ``op``, with its priority; what nobody registered runs on the host."""
    found: dict[DeviceType, int] = {}
    for device in (GPU, CPU):
        kernel = kernels.kernel(op, device)
        if kernel is not None:
            found[device] = kernel.priority
    return found or {CPU: 0}


def _makes_resource(netlist: Netlist, number: int) -> bool:
    outputs = netlist.outputs[number]
    return not netlist.inputs[number] and len(outputs) == 1 and (outputs[0].is_ref or outputs[0].dtype == RESOURCE)


def join_resources(groups: Groups) -> None:
    """Join what resources, references and datasets tie together."""
    for wire in groups.netlist.wires:
        if wire.dst_port >= 0 and _ties(groups.netlist, wire):
            groups.join_by_resource(wire.src, wire.dst)


def _ties(netlist: Netlist, wire: Wire) -> bool:
    taken = netlist.taken(wire)
    if taken.dtype == RESOURCE or taken.is_ref:
        return netlist.ops[wire.dst].type not in _PASS_RESOURCES_ON
    return taken.dtype == VARIANT and all(_is_dataset(netlist.ops[end]) for end in (wire.src, wire.dst))


def _is_dataset(op: Op) -> bool:
    return bool(_DATASET.search(op.type))


def join_classes(groups: Groups) -> None:
    """Join what the graph wants together (``_class`` holds ``loc:@name``), as far as one device can hold it."""
    first: dict[str, int] = {}
    for number, op in enumerate(groups.netlist.ops):
        for wanted in (*_wanted(op), op.name):
            if wanted in first:
                groups.join(number, first[wanted])
            else:
                first[wanted] = number


def _wanted(op: Op) -> list[str]:
    listed = op.attrs.get(_CLASS)
    if not isinstance(listed, tuple):
        return []
    return [item.removeprefix(_GROUP_PREFIX) for item in listed if str(item).startswith(_GROUP_PREFIX)]
