"""From a simulated placement to what a report says of it: ops, islands on the host, copies with reason and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from graphlens.facts.crossing import UNKNOWN, Cause, Crossing, End, cause_of, shape_ops
from graphlens.facts.placement.arguments import ON_HOST
from graphlens.facts.placement.counts import Executions
from graphlens.facts.placement.crossings import Transfer, transfers
from graphlens.facts.placement.gpus import Gpu
from graphlens.facts.placement.kernels import CPU, GPU, DeviceType, KernelTable
from graphlens.facts.placement.netlist import Netlist, netlist_of
from graphlens.facts.placement.placer import Placed
from graphlens.facts.placement.registry import GpuKernels
from graphlens.ir.devices import Copy, CopyCount, Island, PlacedOp
from graphlens.ir.graph import Function
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import CONDITIONALS, CONSTANTS, CONTROL_FLOW, FED, LOOPS
from graphlens.ir.run import ReplayRecord

_FULL_NAME: Final = "/job:localhost/replica:0/task:0/device:{}:0"
# They do no work of their own: alone on the host they are no island.
_PASSIVE: Final = (
    FED | CONSTANTS | CONTROL_FLOW | {"_Retval", "NoOp", "Identity", "IdentityN", "VarHandleOp", "ControlTrigger"}
)


@dataclass(frozen=True)
class Simulated:
    """One graph on a machine with a GPU.

    Attributes
    ----------
    before, placed
        The graph as the placer gets it, and where its ops go.
    after
        What remains after the graph optimizer, with the shapes that are known; the same as ``before`` without one.
    devices
        Where the ops of ``after`` are.
    """

    before: Netlist
    placed: Mapping[str, Placed]
    after: Function
    devices: Mapping[str, DeviceType]
    kernels: KernelTable

    @cached_property
    def netlist(self) -> Netlist:
        """The graph whose copies are counted."""
        return netlist_of(self.after)

    @cached_property
    def sent(self) -> tuple[Transfer, ...]:
        """What goes from one side to the other in it."""
        return transfers(self.netlist, self.devices, self.kernels)

    @cached_property
    def shapes(self) -> frozenset[str]:
        """The ops that compute with shapes alone."""
        return shape_ops(self.after.graph)

    def op(self, name: str) -> Op:
        """Return an op of ``after``, or of ``before`` where the optimizer removed it."""
        number = self.netlist.index.get(name)
        return self.netlist.ops[number] if number is not None else self.before.ops[self.before.index[name]]


def full_name(device: DeviceType) -> str:
    """Return a device's name as executed graphs have it."""
    return _FULL_NAME.format(device)


# -- reasons -------------------------------------------------------------------------------------------------------


def requested(simulated: Simulated, name: str) -> str:
    """Return the device that the program asks for; empty when it does not, or the runtime fixed it."""
    number, placed = simulated.before.index.get(name), simulated.placed.get(name)
    if number is None or placed is None or placed.cause == "argument":
        return ""
    return simulated.before.ops[number].device


def holder(simulated: Simulated, name: str) -> Op | None:
    """Return the op whose group keeps ``name`` where it is, if there is one."""
    placed = simulated.placed.get(name)
    if placed is None or placed.cause != "group" or not placed.culprit:
        return None
    return simulated.op(placed.culprit)


def _end(simulated: Simulated, name: str, port: int, device: DeviceType, on_host: bool) -> End:
    return End(
        op=simulated.op(name),
        memory="host" if on_host else "device",
        device=full_name(device),
        port=port,
        requested=requested(simulated, name),
        held_by=holder(simulated, name),
    )


def host_cause(simulated: Simulated, name: str) -> Cause:
    """Return why an op is on the host, by the same logic that says why tensors cross."""
    placed = simulated.placed.get(name)
    if placed is not None and placed.cause in ("follows-input", "follows-readers"):
        return Cause(None, f"it stays with {placed.culprit}", placed.culprit)
    alone = Crossing(_end(simulated, name, -1, CPU, True), End(Op("", ""), "device", full_name(GPU)))
    cause = cause_of(alone, GpuKernels(simulated.kernels))
    if cause is not UNKNOWN:
        return cause
    held = holder(simulated, name)
    return Cause(None, f"it has to be where {held.name} ({held.type}) is", held.name) if held else UNKNOWN


def why_on_host(simulated: Simulated, name: str) -> str:
    """Say in words why an op is on the host."""
    placed, op = simulated.placed.get(name), simulated.op(name)
    if placed is None:
        return "the graph optimizer added it there"
    if placed.device == GPU:
        return "the graph optimizer moved it there"
    if op.type in FED:
        dtype = str(op.attrs.get("T") or op.attrs.get("dtype"))
        return f"{dtype} values are kept in host memory" if dtype in ON_HOST else "what it refers to is on the host"
    if placed.cause == "argument":
        return "it passes on an argument that is kept in host memory"
    return host_cause(simulated, name).detail or ""


# -- copies --------------------------------------------------------------------------------------------------------


def copies(simulated: Simulated, gpu: Gpu, replay: Mapping[str, ReplayRecord]) -> tuple[Copy, ...]:
    """Return what crosses in one step, the copies over PCIe by falling time, then what is only handed over."""
    executions = Executions(simulated.netlist, replay)
    found = [_copy(simulated, item, gpu, executions) for item in simulated.sent]
    return tuple(sorted(found, key=lambda copy: (copy.ns is None, -(copy.ns or 0), copy.src, copy.dst)))


def _copy(simulated: Simulated, sent: Transfer, gpu: Gpu, executions: Executions) -> Copy:
    tensor = _tensor(simulated.op(sent.src), sent) if sent.src_port >= 0 else None
    calls = executions.of(sent.src)
    cause = _cause(simulated, sent, tensor)
    nbytes = tensor.nbytes if tensor is not None else None
    timed = sent.crosses_bus and nbytes is not None and calls is not None
    return Copy(
        src=sent.src,
        dst=sent.readers[0][0] if sent.readers else sent.src,
        src_device=full_name(sent.src_device),
        dst_device=full_name(sent.dst_device),
        bytes=nbytes,
        ns=calls * gpu.copy_ns(nbytes) if timed and calls is not None and nbytes is not None else None,
        reason=cause.reason,
        kind=sent.kind,
        origin="modelled",
        detail=cause.detail,
        calls_per_step=calls,
        tensor=str(tensor) if tensor is not None else None,
        at_fault=cause.at_fault,
    )


def _cause(simulated: Simulated, sent: Transfer, tensor: TensorSpec | None) -> Cause:
    """Return why a tensor crosses; a control dependency has no reason of its own."""
    if tensor is None:
        return UNKNOWN
    if not sent.readers:
        return Cause(None, f"the loop has ops on the {sent.dst_device} too, which has to know when it ends", sent.src)
    reader, port = sent.readers[0]
    src = _end(simulated, sent.src, sent.src_port, sent.src_device, sent.src_on_host)
    dst = _end(simulated, reader, port, sent.dst_device, sent.dst_on_host)
    return cause_of(Crossing(src, dst, tensor, sent.src in simulated.shapes), GpuKernels(simulated.kernels))


def between_ops(simulated: Simulated, found: Iterable[Copy]) -> tuple[Copy, ...]:
    """Return the copies of a graph that was not lowered, without those of what stands beside its inlined bodies."""
    return tuple(copy for copy in found if not any(_stands_in(simulated.op(end)) for end in (copy.src, copy.dst)))


def _stands_in(op: Op) -> bool:
    return any(call.role != "call" and op.type in CONDITIONALS | LOOPS for call in op.calls)


def _tensor(op: Op, sent: Transfer) -> TensorSpec:
    if sent.src_port < len(op.outputs):
        return op.outputs[sent.src_port]
    return TensorSpec(sent.dtype or "unknown")


def count(found: Iterable[Copy]) -> CopyCount:
    """Count copies over PCIe per step; one of a loop counts once an iteration, one of an unknown loop once."""
    over_bus = [copy for copy in found if copy.kind in ("host-to-device", "device-to-host")]
    times = Counter[str]()
    for copy in over_bus:
        times[str(copy.kind)] += 1 if copy.calls_per_step is None else round(copy.calls_per_step)
    sizes = [
        None if copy.bytes is None or copy.calls_per_step is None else copy.bytes * copy.calls_per_step
        for copy in over_bus
    ]
    durations = [copy.ns for copy in over_bus]
    return CopyCount(
        host_to_device=times["host-to-device"],
        device_to_host=times["device-to-host"],
        bytes=None if None in sizes else round(sum(size or 0 for size in sizes)),
        ns=None if None in durations else sum(ns or 0 for ns in durations),
    )


# -- ops and islands -----------------------------------------------------------------------------------------------


def placed_ops(simulated: Simulated) -> tuple[PlacedOp, ...]:
    """Return where each op of the optimized graph is, in the order of the graph."""
    return tuple(
        PlacedOp(
            op.name,
            op.type,
            f"{simulated.devices[op.name]}:0",
            why_on_host(simulated, op.name) if simulated.devices[op.name] == CPU else "",
        )
        for op in simulated.netlist.ops
    )


def islands(simulated: Simulated, found: Sequence[Copy]) -> tuple[Island, ...]:
    """Return the ops next to each other that stay on the host, those with most copies first."""
    groups = [_island(simulated, names, found) for names in _components(simulated)]
    return tuple(sorted(groups, key=lambda island: (-island.copies, island.ops)))


def _components(simulated: Simulated) -> Iterator[list[str]]:
    """Yield the working ops of every group on the host, in the order of the graph."""
    netlist = simulated.netlist
    import networkx as nx

    on_host = nx.Graph()
    on_host.add_nodes_from(op.name for op in netlist.ops if simulated.devices[op.name] == CPU)
    names = [op.name for op in netlist.ops]
    pairs = ((names[wire.src], names[wire.dst]) for wire in netlist.wires if wire.dst_port >= 0)
    on_host.add_edges_from(pair for pair in pairs if pair[0] in on_host and pair[1] in on_host)
    for part in nx.connected_components(on_host):
        working = [name for name in part if simulated.op(name).type not in _PASSIVE]
        if working:
            yield sorted(working, key=netlist.index.__getitem__)


def _island(simulated: Simulated, names: list[str], found: Sequence[Copy]) -> Island:
    """Say why by the first op that has a reason of its own; the others are there because of it."""
    causes = [cause for name in names if (cause := host_cause(simulated, name)).reason is not None]
    cause = causes[0] if causes else host_cause(simulated, names[0])
    inside = set(names)
    touching = [copy for copy in found if copy.src in inside or copy.dst in inside]
    over_bus = sum(copy.kind in ("host-to-device", "device-to-host") for copy in touching)
    why = cause.detail or why_on_host(simulated, names[0])
    return Island(tuple(names), why, cause.reason, over_bus)
