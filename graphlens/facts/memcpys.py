"""The copies that a device reports itself: joined to their send and receive, else grouped by what they name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from graphlens.facts.crossing import Cause, Crossing, End, Kernels, Memory, Side, cause_of
from graphlens.facts.pairs import Pair
from graphlens.facts.placement.netlist import slots_of
from graphlens.ir.graph import Op
from graphlens.ir.ops import TRANSFERS
from graphlens.ir.run import CopyEvent, Profile

# TensorFlow names the tensor of a send `edge_12_PRODUCER`, or `memtype_12_PRODUCER` between the memories of one device.
_EDGE: Final = re.compile(r"^(?P<kind>edge|memtype)_\d+_(?P<src>.+)$")
# Arguments and results of a function that was told to run on another device (process_function_library_runtime.cc).
_CALL_EDGE: Final = re.compile(r"^(?P<side>arg|ret)_(?P<number>\d+)$")
# Code that uploads the value of a constant, outside of any op.
_UPLOADS: Final = frozenset({"MakeTensorFromProto", "Const", "HostConst", "_EagerConst"})
# What an op's own code does when it copies.
_OWN_COPY: Final = {
    "host-to-device": "itself uploads what its kernel needs",
    "device-to-host": "itself reads back what its kernel wrote",
    "device-to-device": "itself copies within the device",
}
_FETCHED: Final = re.compile(r"^_retval_(?P<src>.+)_\d+_\d+$")


@dataclass(frozen=True, slots=True)
class Joined:
    """Every event once: with its pair (``of_pairs``, in their order), or in a group of events that name the same."""

    of_pairs: Sequence[Sequence[CopyEvent]]
    alone: Sequence[Sequence[CopyEvent]]


def join(profile: Profile, pairs: Sequence[Pair]) -> Joined:
    """Join the memcpy events to ``pairs`` where what they name means exactly one; nothing is guessed."""
    index = _index(pairs)
    of_pairs: list[list[CopyEvent]] = [[] for _ in pairs]
    alone: dict[tuple[object, ...], list[CopyEvent]] = defaultdict(list)
    for event in profile.copies:
        position = _pair_of(event, profile.devices[event.device].name, pairs, index)
        if position is not None:
            of_pairs[position].append(event)
        else:
            key = (event.kind, event.device, event.node, event.op, event.src, event.dst, event.edge)
            alone[key].append(event)
    return Joined(of_pairs, tuple(alone.values()))


def _index(pairs: Iterable[Pair]) -> Mapping[str, list[int]]:
    """List the positions of pairs under every name by which an event may call them, that of the tensor included."""
    index: dict[str, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        for name in {pair.send.name, pair.receive.name, pair.edge, pair.src} - {""}:
            index[name.partition("@")[0]].append(position)  # the loader marks equal names of two devices with @
    return index


def _pair_of(event: CopyEvent, device: str, pairs: Sequence[Pair], index: Mapping[str, list[int]]) -> int | None:
    for name in filter(None, (event.node, event.edge, event.src)):
        found = [position for position in index.get(name, ()) if _agree(event, device, pairs[position])]
        if len(found) == 1:
            return found[0]
    return None


def _agree(event: CopyEvent, device: str, pair: Pair) -> bool:
    """Whether nothing that both tell differs."""
    return (
        event.kind in (None, pair.kind)
        and device.upper() == pair.accelerator
        and (not event.edge or not pair.edge or event.edge == pair.edge)
        and (not event.src or event.src == pair.src)
        and (not event.dst or not pair.readers or pair.is_read_by(event.dst))
    )


# -- what a group of events says ----------------------------------------------------------------------------------


def ends_of(event: CopyEvent) -> tuple[str, str]:
    """Return the names of the ops at both ends as far as the event tells, else empty ones.

    >>> event = CopyEvent("device-to-host", "", "", 0, 1, 0, "s", edge="edge_12_Conv2D_1")
    >>> ends_of(event)
    ('Conv2D_1', '')
    """
    edge = _EDGE.match(event.edge)
    src, dst = event.src or (edge["src"] if edge else ""), event.dst
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


class Known(NamedTuple):
    """The types of all ops that the profile or a graph tells of, and the ops whose output the caller asks for."""

    types: Mapping[str, str]
    fetched: frozenset[str]


def known_ops(types: Mapping[str, str]) -> Known:
    """Return what the names and types of ops say; a v1 session names what it returns ``_retval_OP_0_0``."""
    matches = map(_FETCHED.match, types)
    return Known(types, frozenset(match["src"] for match in matches if match))


def cause_of_event(event: CopyEvent, device: str, known: Known, kernels: Kernels | None) -> Cause:
    """Return why the copy of ``event`` happens, as far as its own words and the ops of the profile prove it."""
    if event.kind is None:
        return Cause(None, f"the profile does not say which way this copy on {device} goes", event.node or None)
    src, dst = ends_of(event)
    call = _CALL_EDGE.match(event.edge)
    if event.kind == "host-to-device" and event.op in _UPLOADS:
        return Cause("constant on the host", f"a constant's value is uploaded ({event.op})", event.node or None)
    if call:
        return _of_call(event, call["side"], call["number"])
    if event.kind == "device-to-host" and src in known.fetched:
        return Cause("fetch", f"the caller asks for {src}", src)
    if event.node and event.op not in TRANSFERS:
        return Cause(None, f"{event.node} ({event.op}) {_OWN_COPY[event.kind]}", event.node)
    return cause_of(_crossing(event, device, src, dst, known.types), kernels)


def _of_call(event: CopyEvent, side: str, number: str) -> Cause:
    what = f"{'argument' if side == 'arg' else 'result'} {number} of a function that runs on another device"
    if event.op != "RemoteCall":
        return Cause(None, what)
    return Cause("explicit device", f"{event.node} (RemoteCall) is told its device: {what}", event.node)


def _crossing(event: CopyEvent, device: str, src: str, dst: str, types: Mapping[str, str]) -> Crossing:
    """Build the crossing that the event names.

    Between the memories of one device (``memtype``, or a send or receive in host memory) both ends are on it; else
    nothing says where the host's end is.
    """
    edge = _EDGE.match(event.edge)
    is_within = event.op in ("_HostRecv", "_HostSend") or (edge is not None and edge["kind"] == "memtype")

    def end(name: str, memory: Memory, side: Side) -> End:
        op = Op(name, types.get(name, ""))
        # Which argument it is needs no telling where there is only one.
        port = 0 if len(slots_of(op, side)) == 1 else None
        return End(op, memory, device if memory == "device" or is_within else "", port)

    src_memory, dst_memory = memories_of(event)
    return Crossing(end(src, src_memory, "output"), end(dst, dst_memory, "input"))
