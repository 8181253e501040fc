"""The pairs of send and receive of an executed graph: which tensor goes from which memory to which."""

from __future__ import annotations

from dataclasses import dataclass

from graphlens.facts.crossing import Memory, is_accelerator
from graphlens.ir.devices import CopyKind, short_device
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.table import Table


@dataclass(frozen=True, slots=True)
class Pair:
    """A send and its receive.

    Attributes
    ----------
    src, port
        The op that makes the tensor and at which output; of a control dependency, the op that is waited for.
    readers
        The ops that read it on the other side, with the input at which they do; of a control dependency, those that
        wait.
    edge
        The name under which the runtime hands the tensor over.
    tensor
        Data type and shape, as far as known; ``None`` for a control dependency.
    """

    send: Op
    receive: Op
    kind: CopyKind
    src: str
    port: int | None
    readers: tuple[tuple[str, int | None], ...]
    edge: str
    tensor: TensorSpec | None

    @property
    def accelerators(self) -> frozenset[str]:
        """The devices that may report the copy, as ``GPU:0``: both of them between two; none between processors."""
        ends = (self.receive.device, self.send.device)
        return frozenset(short_device(device) for device in ends if is_accelerator(device))

    @property
    def nbytes(self) -> int | None:
        """Size of the tensor; a control dependency has none."""
        if self.kind == "control":
            return 0
        return self.tensor.nbytes if self.tensor else None

    def is_read_by(self, op: str) -> bool:
        """Whether ``op`` is known to read the tensor."""
        return any(op == reader for reader, _ in self.readers)


def pairs_of(graph: Table) -> tuple[Pair, ...]:
    """Return the pairs of send and receive of an executed graph, in its order."""
    return tuple(
        _pair(graph, graph.op(send), graph.op(receive))
        for send, receive, edge in graph.edges()
        if edge.kind == "transfer"
    )


def memory_of(transfer: Op) -> Memory:
    """Return where a send takes its tensor from, or a receive puts it."""
    return "device" if is_accelerator(transfer.device) and not transfer.type.startswith("_Host") else "host"


def _pair(graph: Table, send: Op, receive: Op) -> Pair:
    src, port = _producer(graph, send.name)
    readers = _readers(graph, receive.name)
    edge = str(send.attrs.get("tensor_name", ""))
    awaited = _awaited(graph, src)
    if awaited:
        waiting = tuple((after, None) for reader, _ in readers for after in graph.successors(reader))
        return Pair(send, receive, "control", awaited, None, waiting or readers, edge, None)
    kind: CopyKind = f"{memory_of(send)}-to-{memory_of(receive)}"  # type: ignore[assignment]  # all four are kinds
    return Pair(send, receive, kind, src, port, readers, edge, _tensor(graph, send, src, port))


def _producer(graph: Table, send: str) -> tuple[str, int | None]:
    inputs = graph.in_edges(send)
    return (inputs[0][0], inputs[0][1].src_port) if inputs else (send, None)


def _readers(graph: Table, receive: str) -> tuple[tuple[str, int | None], ...]:
    edges = graph.out_edges(receive)
    return tuple((reader, edge.dst_port) for reader, edge in edges if edge.kind != "control")


def _awaited(graph: Table, src: str) -> str | None:
    """Return the op that a control dependency waits for: the partitioner sends an empty constant in its place."""
    constant = graph.op(src).constant
    if constant is None or constant.nbytes != 0:
        return None
    return next(iter(graph.control_inputs(src)), None)


def _tensor(graph: Table, send: Op, src: str, port: int | None) -> TensorSpec | None:
    outputs = graph.op(src).outputs
    if port is not None and port < len(outputs):
        return outputs[port]
    dtype = send.attrs.get("T")
    return TensorSpec(dtype) if isinstance(dtype, str) else None
