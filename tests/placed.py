"""What TensorFlow did with a function on the fake GPU, read from its dumps: where its ops went, and what is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fake_gpu.run import BEFORE_PLACER, PLACED, Run

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
    parts = run.partitions(function).values()
    sends = {_key(node): (node, part) for part in parts for node in part.node if node.op in ("_Send", "_HostSend")}
    received = [(node, part) for part in parts for node in part.node if node.op in ("_Recv", "_HostRecv")]
    assert len(sends) == len(received)
    return {_pair(*sends[_key(node)], node, part) for node, part in received}


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
