"""Why a copy happens that only the device tells of, as far as its own words and what is known of the ops prove it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Final, NamedTuple

from graphlens.facts.crossing import UNKNOWN, Cause, Crossing, End, Kernels, Memory, Side, cause_of
from graphlens.facts.flat.names import Names
from graphlens.facts.placement.netlist import slots_of
from graphlens.ir.devices import CopyReason
from graphlens.ir.instructions import COPY_DONE, COPY_START
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONSTANTS, TRANSFERS
from graphlens.ir.run import CopyEvent, Instruction
from graphlens.ir.table import Table

OFFLOADED: Final[CopyReason] = "kept in host memory"

# TensorFlow names the tensor of a send `edge_12_PRODUCER`, or `memtype_12_PRODUCER` between the memories of one device.
_EDGE: Final = re.compile(r"^(?P<kind>edge|memtype)_\d+_(?P<src>.+)$")
# Arguments and results of a function that was told to run on another device (process_function_library_runtime.cc).
_CALL_EDGE: Final = re.compile(r"^(?P<side>arg|ret)_(?P<number>\d+)$")
# Code that uploads the value of a constant, outside of any op.
_UPLOADS: Final = CONSTANTS | {"MakeTensorFromProto", "_EagerConst"}
# What an op's own code does when it copies.
_OWN_COPY: Final = {
    "host-to-device": "itself uploads what its kernel needs",
    "device-to-host": "itself reads back what its kernel wrote",
    "device-to-device": "itself copies within the device",
}
_FETCHED: Final = re.compile(r"^_retval_(?P<src>.+)_\d+_\d+$")


def ends_of(event: CopyEvent) -> tuple[str, str]:
    """Return the names of the ops at both ends as far as the event tells, else empty ones.

    >>> event = CopyEvent("device-to-host", "", "", 0, 1, 0, "s", edge="edge_12_Conv2D_1")
    >>> ends_of(event)
    ('Conv2D_1', '')
    """
    edge = _EDGE.match(event.edge)
    src, dst = event.src or (edge["src"] if edge else ""), event.dst
    if event.op == COPY_START:
        return src, dst
    if event.node and event.op not in TRANSFERS:
        # The op's own code copies: into the device for its kernel, or back from what the kernel wrote.
        # Of a call on another device, the argument is copied for it, as `arg_0`.
        if event.kind == "host-to-device" or event.edge.startswith("arg_"):
            dst = dst or event.node
        elif event.kind == "device-to-host":
            src = src or event.node
    return src, dst


def memories_of(event: CopyEvent) -> tuple[Memory, Memory]:
    """Return which memories a copy reads and writes; the device's own where the event does not tell."""
    src, _, dst = (event.kind or "device-to-device").partition("-to-")
    return ("host" if src == "host" else "device"), ("host" if dst == "host" else "device")


@dataclass(frozen=True)
class Known:
    """What a profile and a graph tell of the ops that events name.

    Attributes
    ----------
    graph, names
        The judged graph, and the meaning of an event's names in it.
    types
        Op -> its type, of all ops that the profile or the graph tells of.
    shapes
        Ops of the graph whose value is computed of shapes alone.
    requested
        Returns the device that the program asks for, for an op of the graph.
    instructions
        What is known of the instructions of compiled programs.
    """

    graph: Table
    names: Names
    types: Mapping[str, str]
    shapes: frozenset[str]
    requested: Callable[[str], str]
    instructions: Mapping[str, Instruction] = field(default_factory=dict)

    @cached_property
    def fetched(self) -> frozenset[str]:
        """The ops that the caller asks for: a v1 session names what it returns ``_retval_OP_0_0``."""
        matches = map(_FETCHED.match, self.types)
        return frozenset(match["src"] for match in matches if match)

    def op(self, name: str) -> Op:
        """Return the op of that name, with its type alone where no graph has it."""
        found = self.names.find(name)
        return self.graph.op(found) if found else Op(name, self.types.get(name, ""))

    def reads(self, src: str, dst: str) -> list[Wire]:
        """Return the edges by which ``dst`` may read a tensor of ``src``, or any op where ``dst`` is unknown."""
        start, end = self.names.find(src), self.names.find(dst) if dst else None
        if start is None or (dst and end is None):
            return []
        return [
            Wire(reader, edge.src_port, edge.dst_port)
            for reader, edge in self.graph.out_edges(start)
            if edge.kind == "data" and end in (None, reader)
        ]


class Wire(NamedTuple):
    """One way in which a tensor is read."""

    reader: str
    src_port: int | None
    dst_port: int | None


def cause_of_event(event: CopyEvent, device: str, known: Known, kernels: Kernels | None) -> Cause:
    """Return why the copy of ``event`` happens, as far as its own words and the ops of the profile prove it."""
    if event.kind is None:
        return Cause(None, f"the profile does not say which way this copy on {device} goes", event.node or None)
    return _by_its_words(event, known) or _by_its_ends(event, device, known, kernels)


def _by_its_words(event: CopyEvent, known: Known) -> Cause | None:
    """Return the cause that the event itself tells: code that copies outside of sends and receives, and fetches."""
    if event.op == COPY_START:
        return _of_program(event, known)
    src = ends_of(event)[0]
    call = _CALL_EDGE.match(event.edge)
    if event.kind == "host-to-device" and event.op in _UPLOADS:
        return Cause("constant on the host", f"a constant's value is uploaded ({event.op})", event.node or None)
    if call:
        return _of_call(event, call["side"], call["number"])
    if event.kind == "device-to-host" and src in known.fetched:
        return Cause("fetch", f"the caller asks for {src}", src)
    if event.node and event.op not in TRANSFERS:
        return Cause(None, f"{event.node} ({event.op}) {_OWN_COPY[event.kind or '']}", event.node)
    return None


def _of_program(event: CopyEvent, known: Known) -> Cause:
    """Return the cause of a copy that a compiled program makes itself: the memory in which it was told to keep a value.

    XLA lays out arguments, results and what lies between in host memory only where the program asks for it.
    """
    if event.kind == "host-to-device":
        reader = f"; {_written(event.dst, known)} reads it on the device" if event.dst else ""
        what = _argument(event.src, known)
        return Cause(OFFLOADED, f"{what} is kept in host memory{reader}", event.dst or event.src or None)
    if event.kind == "device-to-host":
        maker = f"; {_written(event.src, known)} makes it on the device" if event.src else ""
        what = _result(event.node, known)
        return Cause(OFFLOADED, f"{what} is kept in host memory{maker}", event.src or None)
    return Cause(None, "the compiled program moves it between memories of the device", event.src or None)


def _argument(name: str, known: Known) -> str:
    """Name what is copied: an argument of the program by what its author called it, else the instruction."""
    op = known.op(name) if name in known.graph else Op(name, "")
    if op.type != "parameter":
        return name or "a value"
    module = name.rpartition("/")[0]
    return f"argument {op.attrs.get('op_name') or op.attrs.get('parameter_number', '')} of {module}"


def _result(start: str, known: Known) -> str:
    """Name what becomes of a copy: a result of the program by its number, where its graph tells that."""
    wire = result_of(start, known.graph)
    return f"result {wire.dst_port} of {start.rpartition('/')[0]}" if wire else "a result"


def result_of(start: str, graph: Table) -> Wire | None:
    """Return by which way a copy becomes a result of its program; ``None`` where it does not, or no graph tells."""
    awaited = [name for name in (graph.successors(start) if start in graph else ()) if _type(graph, name) == COPY_DONE]
    for reader, edge in (wire for name in awaited for wire in graph.out_edges(name)):
        if _type(graph, reader) == "tuple" and not graph.has_readers(reader):
            return Wire(reader, edge.src_port, edge.dst_port)
    return None


def _type(graph: Table, name: str) -> str:
    return graph.op(name).type


def _written(name: str, known: Known) -> str:
    """Name an instruction with the op that it was made of, and the line that wrote that, where they are known."""
    told = known.instructions.get(name, Instruction())
    file, _, line = told.source.rpartition(":")
    where = ", ".join(filter(None, (told.op_name, f"{PurePath(file).name}:{line}" if file else "")))
    return f"{name.rpartition('/')[2]} ({where})" if where else name


def _by_its_ends(event: CopyEvent, device: str, known: Known, kernels: Kernels | None) -> Cause:
    """Return the one cause that is known of all ways in which the tensor is read; several leave it unknown."""
    causes = {cause.reason: cause for item in _crossings(event, device, known) if (cause := cause_of(item, kernels))}
    explained = [cause for reason, cause in causes.items() if reason]
    if len(explained) == 1:
        return explained[0]
    return next(iter(causes.values())) if len(causes) == 1 else UNKNOWN


def _of_call(event: CopyEvent, side: str, number: str) -> Cause:
    what = f"{'argument' if side == 'arg' else 'result'} {number} of a function that runs on another device"
    if event.op != "RemoteCall":
        return Cause(None, f"it is {what}")
    return Cause("explicit device", f"{event.node} (RemoteCall) is told its device: {what}", event.node)


def _crossings(event: CopyEvent, device: str, known: Known) -> Iterator[Crossing]:
    """Yield what the event may be, as far as it names its ends: one crossing for each way in which the tensor is read.

    Between the memories of one device (``memtype``, or a send or receive in host memory) both ends are on it; else
    nothing says where the host's end is.
    """
    edge = _EDGE.match(event.edge)
    is_within = event.op in ("_HostRecv", "_HostSend") or (edge is not None and edge["kind"] == "memtype")
    src, dst = ends_of(event)
    src_memory, dst_memory = memories_of(event)

    def end(op: Op, memory: Memory, side: Side, port: int | None) -> End:
        # Which argument it is needs no telling where there is only one.
        only = 0 if len(slots_of(op, side)) == 1 else port
        return End(op, memory, device if memory == "device" or is_within else "", only, known.requested(op.name))

    producer = known.op(src)
    for reader, src_port, dst_port in known.reads(src, dst) or [Wire(dst, None, None)]:
        ends = end(producer, src_memory, "output", src_port), end(known.op(reader), dst_memory, "input", dst_port)
        tensor = producer.outputs[src_port] if src_port is not None and src_port < len(producer.outputs) else None
        yield Crossing(*ends, tensor, producer.name in known.shapes)
