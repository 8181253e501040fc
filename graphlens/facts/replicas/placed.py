"""Which replica an op of a host is part of: by the device that ran it, else by the scope that TensorFlow puts it in."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from graphlens.facts.flat.names import Names, replica_of
from graphlens.ir.devices import short_device
from graphlens.ir.run import Collective
from graphlens.ir.table import Table


@dataclass(frozen=True, eq=False)
class Placed:
    """The replicas of one host, numbered from 0, and the device of each (empty where no graph tells it)."""

    devices: Sequence[str]
    graph: Table | None
    names: Names
    by_device: Mapping[str, int]

    @staticmethod
    def of(graph: Table | None, names: Names, ran: Iterable[tuple[str, str]]) -> Placed:
        """Return the replicas of ``graph``, or where that tells of none those that the names of what ran speak of.

        The first replica's ops have no scope of their own: a device whose ops are in none is its.
        """
        by_device = _by_device(graph) if graph is not None else {}
        if len(by_device) > 1:
            devices = dict(zip(by_device.values(), by_device, strict=True))
            return Placed([devices[number] for number in sorted(devices)], graph, names, by_device)
        return Placed([""] * _count({replica_of(node) for node, _ in ran}), None, names, {})

    def replica(self, node: str, op: str) -> int:
        """Return the replica of what an event calls ``node``."""
        found = self.names.find(node, op) if self.graph is not None else None
        if found is not None and self.graph is not None:
            return self.by_device.get(short_device(self.graph.op(found).device), 0)
        return min(replica_of(node) or 0, len(self.devices) - 1)

    def of_instance(self, parts: Sequence[Collective]) -> Sequence[int]:
        """Return the replica of each part of one exchange.

        Where no graph tells devices: TensorFlow makes the ops of one exchange in the order of replicas.
        """
        if self.graph is not None:
            return [self.replica(part.node, part.op) for part in parts]
        order = sorted(range(len(parts)), key=lambda at: _in_order(parts[at].node))
        return [order.index(at) % len(self.devices) for at in range(len(parts))]

    def in_order(self, nodes: Iterable[str], op: str) -> Mapping[str, int]:
        """Return the replicas of the ops that ask for the elements of one step."""
        distinct = sorted(set(nodes), key=_in_order)
        if self.graph is not None:
            return {node: self.replica(node, op) for node in distinct}
        return {node: position % len(self.devices) for position, node in enumerate(distinct)}


def _in_order(node: str) -> tuple[str, int]:
    """Return what puts names in the order in which TensorFlow numbered them.

    >>> _in_order("adam/CollectiveReduceV2_11"), _in_order("adam/CollectiveReduceV2")
    (('adam/CollectiveReduceV2_', 11), ('adam/CollectiveReduceV2_', 0))
    """
    match = re.search(r"_(\d+)$", node)
    return (node[: match.start() + 1], int(match[1])) if match else (f"{node}_", 0)


def _by_device(graph: Table) -> Mapping[str, int]:
    """Return the replica of each device: where most ops of its scope are, and for the first most ops of no scope."""
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for name, op in graph.items():
        if op.device:
            votes[replica_of(name) or 0][short_device(op.device)] += 1
    found: dict[str, int] = {}
    for number in sorted(votes, reverse=True):
        free = Counter({device: count for device, count in votes[number].items() if device not in found})
        if free:
            found[free.most_common(1)[0][0]] = number
    return dict(sorted(found.items(), key=lambda item: item[1])) if len(found) == len(votes) else {}


def _count(named: Collection[int | None]) -> int:
    """Return how many replicas there are, by the numbers in names; TensorFlow leaves none out, and a user's scope may.

    >>> _count({None, 1, 2, 3}), _count({None, 70_000_000_000}), _count({None})
    (4, 1, 1)
    """
    return next(number for number in count(1) if number not in named)
