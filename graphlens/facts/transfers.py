"""Tensors that cross devices inside the step: pairs of send and receive, with their bytes and their wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import networkx as nx

from graphlens.ir.devices import Copy, CopyReason
from graphlens.ir.graph import data_consumers, in_edges, op_of

if TYPE_CHECKING:
    from graphlens.facts.core import Facts


def copies(facts: Facts) -> tuple[Copy, ...]:
    """Return one entry per transfer of the executed graph, by falling bytes; empty when nothing was executed."""
    if facts.executed is None:
        return ()
    found = [_copy(facts, facts.executed, send, receive) for send, receive in _pairs(facts.executed)]
    return tuple(sorted(found, key=lambda copy: (-(copy.bytes or 0), copy.src, copy.dst)))


def transfer_ops(graph: nx.MultiDiGraph, copy: Copy) -> tuple[str, ...]:
    """Return the send and receive ops of ``copy``, so that their time can be found."""
    return tuple(
        name
        for send, receive in _pairs(graph)
        if _producer(graph, send)[0] == copy.src and op_of(graph, receive).device == copy.dst_device
        for name in (send, receive)
    )


def _pairs(graph: nx.MultiDiGraph) -> Iterator[tuple[str, str]]:
    for send, receive, edge in graph.edges(data="edge"):
        if edge.kind == "transfer":
            yield send, receive


def _copy(facts: Facts, graph: nx.MultiDiGraph, send: str, receive: str) -> Copy:
    src, port = _producer(graph, send)
    outputs = op_of(graph, src).outputs
    consumers = data_consumers(graph, receive)
    path = facts.critical_path
    return Copy(
        src=src,
        dst=consumers[0] if consumers else receive,
        src_device=op_of(graph, send).device,
        dst_device=op_of(graph, receive).device,
        bytes=outputs[port].nbytes if port is not None and port < len(outputs) else None,
        ns=_wait_ns(facts, send, receive),
        reason=_reason(facts, src, consumers),
        on_critical_path=bool({src, *consumers} & set(path.ops)) if path else None,
    )


def _producer(graph: nx.MultiDiGraph, send: str) -> tuple[str, int | None]:
    inputs = in_edges(graph, send)
    return (inputs[0][0], inputs[0][1].src_port) if inputs else (send, None)


def _wait_ns(facts: Facts, send: str, receive: str) -> int | None:
    seen = [timing.self_ns for name in (send, receive) if (timing := facts.timing(name))]
    return sum(seen) if seen else None


def _reason(facts: Facts, src: str, consumers: list[str]) -> CopyReason | None:
    """Say why the tensor crosses, where the traced graph tells it: a device was asked for by name."""
    if facts.traced is None:
        return None
    requested = [
        op_of(facts.traced, origin).device for name in (src, *consumers) for origin in facts.origins.get(name, ())
    ]
    return "explicit device" if any(requested) else None
