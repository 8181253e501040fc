"""What TensorFlow did with a function on the fake GPU, by raw messages: where ops went, what was sent and copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fake_gpu.run import BEFORE_PLACER, PLACED, Run

from graphlens.loaders.schema import xspace

_CONTROL_LOOP = "_cloop"  # the partitioner's own ops, which keep the other side of a loop going


class Sent(NamedTuple):
    """One pair of send and receive; ``port`` is -1 for a control dependency, whose memories say nothing.

    ``readers`` are ``(op, input)`` on the receiving side, with input -1 for a control dependency.
    """

    src: str
    port: int
    src_device: str
    dst_device: str
    src_on_host: bool
    dst_on_host: bool
    readers: frozenset[tuple[str, int]]

    @property
    def kind(self) -> str:
        """What a copy of it is called."""
        if self.port < 0:
            return "control"
        return "-to-".join("host" if on_host else "device" for on_host in (self.src_on_host, self.dst_on_host))


def functions(run: Run) -> list[str]:
    """Return the functions that the program called; what ops of tf.data call, each at its own devices, is left out."""
    graphs = [run.graph(BEFORE_PLACER, name) for name in run.functions]
    called = {attr.func.name for graph in graphs for node in graph.node for attr in node.attr.values()}
    return [name for name in run.functions if name not in called]


def placement(run: Run, function: str) -> dict[str, str]:
    """Return where TensorFlow placed each op, as ``CPU`` or ``GPU``."""
    return {node.name: _type(node.device) for node in run.graph(PLACED, function).node}


def sent(run: Run, function: str) -> set[Sent]:
    """Return what TensorFlow sends between the partitions of a function, and between the memories of one."""
    pairs = sent_between(run.partitions(function).values())
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def sent_between(parts: Iterable[Any]) -> list[Sent]:
    """Return the pairs of send and receive in the partitions of one function."""
    parts = list(parts)
    sends = {_key(node): (node, part) for part in parts for node in part.node if node.op in ("_Send", "_HostSend")}
    received = [(node, part) for part in parts for node in part.node if node.op in ("_Recv", "_HostRecv")]
    assert len(sends) == len(received)
    return [_pair(*sends[_key(node)], node, part) for node, part in received]


def _key(node: Any) -> bytes:
    return node.attr["tensor_name"].s


def _type(device: str) -> str:
    return device.rpartition("device:")[2].partition(":")[0]


def _pair(send: Any, sender: Any, receive: Any, receiver: Any) -> Sent:
    src_device, dst_device = (_type(send.attr[side].s.decode()) for side in ("send_device", "recv_device"))
    dummy = next((node for node in sender.node if node.name == send.input[0] and "/ctrl/" in node.name), None)
    if dummy is not None:
        # A control dependency is sent as a constant that waits for the op, and arrives at an Identity.
        (arrival,) = (node.name for node in receiver.node if list(node.input) == [receive.name])
        waiting = frozenset((name, -1) for name, text, _ in _inputs(receiver) if text == f"^{arrival}")
        return Sent(dummy.input[0].removeprefix("^"), -1, src_device, dst_device, True, True, waiting)
    src, _, port = send.input[0].partition(":")
    return Sent(
        src,
        int(port or 0),
        src_device,
        dst_device,
        src_device == "CPU" or send.op == "_HostSend",
        dst_device == "CPU" or receive.op == "_HostRecv",
        frozenset((name, index) for name, text, index in _inputs(receiver) if text == receive.name)
        | frozenset((name, -1) for name, text, _ in _inputs(receiver) if text == f"^{receive.name}"),
    )


def _inputs(graph: Any) -> Iterator[tuple[str, str, int]]:
    """Every input of every op as ``(op, text, number)``, without those of the partitioner's own loops."""
    for node in graph.node:
        if not node.name.startswith(_CONTROL_LOOP):
            for index, text in enumerate(node.input):
                yield node.name, text, index


# -- copies that ran -----------------------------------------------------------------------------------------------

_EDGE = re.compile(r":_(?:Host)?(?:Send|Recv)#from=(?P<src>[^,#]*),to=")
_SIZE = re.compile(r"\bsize:(\d+)\b")
_DIRECTIONS = {"MemcpyH2D": "host-to-device", "MemcpyD2H": "device-to-host"}


class Copied(NamedTuple):
    """The copies of one profile by direction and by the op that made the tensor; fetches are from ``""``."""

    events: Counter[tuple[str, str]]
    bytes: Counter[tuple[str, str]]


def copied(profile: bytes) -> Copied:
    """Return what was copied between host and device while ``profile`` was recorded."""
    found = Copied(Counter(), Counter())
    for plane in xspace().FromString(profile).planes:
        stats = {number: metadata.name for number, metadata in plane.stat_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            direction = _DIRECTIONS.get(plane.event_metadata[event.metadata_id].name)
            if direction:
                told = {stats[stat.metadata_id]: stat.str_value for stat in event.stats}
                edge, size = _EDGE.search(told.get("annotation", "")), _SIZE.search(told["memcpy_details"])
                key = (direction, edge["src"] if edge else "")
                found.events[key] += 1
                found.bytes[key] += int(size[1]) if size else 0
    return found
