"""Hosts and replicas of a distributed step, with their busy times side by side."""

from __future__ import annotations

from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.devices import HostRow, ReplicaRow
from graphlens.report.words import NOT_SEEN
from graphlens.units import UNKNOWN, format_count, format_ns, format_share


@dataclass(frozen=True, slots=True)
class PartRow:
    """One host or replica: its name, formatted cells, and the bar of its busy time in per mille of the busiest."""

    name: str
    cells: tuple[str, ...]
    busy: str
    width: float


@dataclass(frozen=True, slots=True)
class DistributionView:
    """How the work was spread over machines and replicas."""

    words: str
    imbalance: str | None
    hosts: tuple[PartRow, ...]
    replicas: tuple[PartRow, ...]


def distribution_view(document: Document) -> DistributionView | None:
    """Return hosts and replicas, or ``None`` where there is one of each and nothing to compare."""
    distribution = document.distribution
    if distribution is None:
        return None
    hosts, replicas = distribution.hosts, distribution.replicas
    if len(hosts) < 2 and len(replicas) < 2 and not distribution.words:
        return None
    most_ns = max((row.busy_ns or 0 for row in hosts), default=0)
    most_of_replicas_ns = max((row.busy_ns or 0 for row in replicas), default=0)
    return DistributionView(
        words=distribution.words,
        imbalance=None if distribution.imbalance is None else format_share(distribution.imbalance),
        hosts=tuple(_host(row, most_ns) for row in hosts) if len(hosts) > 1 else (),
        replicas=tuple(_replica(row, most_of_replicas_ns) for row in replicas) if len(replicas) > 1 else (),
    )


def _host(row: HostRow, most_ns: int) -> PartRow:
    cells = (format_count(row.devices), format_count(row.steps), _time(row.step_ns))
    return PartRow(row.name or UNKNOWN, cells, _time(row.busy_ns), _per_mille(row.busy_ns, most_ns))


def _replica(row: ReplicaRow, most_ns: int) -> PartRow:
    where = f"{row.host} {row.device}".strip()
    cells = (where, format_count(row.kernels), _time(row.step_ns))
    return PartRow(f"replica {row.number}", cells, _time(row.busy_ns), _per_mille(row.busy_ns, most_ns))


def _per_mille(part_ns: int | None, whole_ns: int) -> float:
    return round(1000 * (part_ns or 0) / whole_ns, 1) if whole_ns else 0.0


def _time(ns: int | None) -> str:
    return NOT_SEEN if ns is None else format_ns(ns)
