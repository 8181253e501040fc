"""The replicas of a step side by side: what each does in it, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.ir.analysis import Document
from graphlens.ir.replicas import RemoteCalls, Replicas, ReplicaStep
from graphlens.report.phases import percent
from graphlens.report.words import NOT_SEEN
from graphlens.units import format_bytes, format_count, format_ns, format_share

# More rows than these are read by nobody: of many replicas those that take longest by themselves are shown.
MOST_ROWS: Final = 32

_STRATEGIES: Final = {
    "mirrored": "replicas on one machine",
    "multi-worker": "replicas on several machines",
    "parameter-server": "workers of parameter servers",
}
_PARTS: Final = (
    ("work", "works", "op0"),
    ("communication", "exchanges", "around0"),
    ("waiting", "waits for others", "around2"),
    ("other", "between its ops", "unattributed"),
)


@dataclass(frozen=True, slots=True)
class PartView:
    """A part of a replica's step; ``start`` and ``width`` are percent of the longest step of all."""

    words: str
    tone: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica: what it is called, where it runs, its times, and the parts of its step."""

    name: str
    where: str
    step: str
    cells: tuple[str, ...]
    awaited: str
    rows: str
    parts: tuple[PartView, ...]
    is_slowest: bool


@dataclass(frozen=True, slots=True)
class ReplicasView:
    """The replicas; ``facts`` are what holds for all of them, ``legend`` the tones of the parts."""

    line: str
    words: str
    facts: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...]
    rows: tuple[ReplicaView, ...]
    note: str
    remote: tuple[tuple[str, ...], ...]


def replicas_view(document: Document) -> ReplicasView | None:
    """Return the replicas; ``None`` where the step has none."""
    found = document.replicas
    if found is None or not found.replicas:
        return None
    shown = _shown(found)
    most_ns = max(row.step_ns for row in found.replicas)
    left_out = len(found.replicas) - len(shown)
    return ReplicasView(
        line=_line(found),
        words=found.words,
        facts=tuple(_facts(found)),
        legend=tuple((words, tone) for _, words, tone in _PARTS),
        rows=tuple(_row(row, most_ns, row.number == found.slowest) for row in shown),
        note=f"{format_count(left_out)} more that take less by themselves are in the JSON" if left_out else "",
        remote=tuple(map(_remote, found.remote)),
    )


def _shown(found: Replicas) -> Sequence[ReplicaStep]:
    if len(found.replicas) <= MOST_ROWS:
        return found.replicas
    return sorted(found.replicas, key=lambda row: -(row.work_ns + row.other_ns))[:MOST_ROWS]


def _line(found: Replicas) -> str:
    """Say it in one line: how many there are, and the most important of what is known."""
    alone = len(found.replicas) == 1
    count = "one replica of several" if alone else f"{format_count(len(found.replicas))} {_STRATEGIES[found.strategy]}"
    words = "; ".join(filter(None, (found.words, _waiting_for_workers(found.remote))))
    return f"{count}: {words}" if words else count


def _waiting_for_workers(remote: Sequence[RemoteCalls]) -> str:
    told = [one for one in remote if one.step_ns is not None]
    if not told:
        return ""
    call_ns, step_ns = (round(sum(getattr(one, part) for one in told) / len(told)) for part in ("call_ns", "step_ns"))
    return f"the coordinator waits {format_ns(call_ns)} for a step, of which the worker takes {format_ns(step_ns)}"


def _facts(found: Replicas) -> Sequence[tuple[str, str]]:
    step_ns = sum(row.step_ns for row in found.replicas) / len(found.replicas)
    told = [("Exchanges in a step", f"{found.collectives:.4g}")]
    if found.bytes is not None:
        told.append(("Handed over", format_bytes(found.bytes)))
    if found.collective_ns is not None:
        least = "" if found.least_of == "replicas" else " at most: one replica alone was recorded"
        told.append(("They cost", f"{format_ns(found.collective_ns)}{least}"))
    for words, ns in (("Not hidden by work", found.exposed_ns), ("Waiting for others", found.waiting_ns)):
        if ns is not None:
            told.append((words, f"{format_ns(ns)}, {format_share(ns / step_ns) if step_ns else '0 %'} of a step"))
    if found.imbalance is not None:
        told.append(("Imbalance of work", format_share(found.imbalance)))
    return told


def _row(row: ReplicaStep, most_ns: int, is_slowest: bool) -> ReplicaView:
    times = [getattr(row, f"{part}_ns") for part, _, _ in _PARTS]
    parts, start_ns = [], 0
    for ns, (_, words, tone) in zip(times, _PARTS, strict=True):
        if ns:
            told = f"{words} {format_ns(ns)}"
            parts.append(PartView(told, tone, percent(start_ns, most_ns), percent(ns, most_ns)))
        start_ns += ns
    return ReplicaView(
        name=f"replica {row.number}",
        where=f"{row.host} {row.device}".strip(),
        step=format_ns(row.step_ns),
        cells=tuple(map(format_ns, times)),
        awaited=NOT_SEEN if row.awaited_ns is None else format_ns(row.awaited_ns),
        rows=_rows(row),
        parts=tuple(parts),
        is_slowest=is_slowest,
    )


def _rows(row: ReplicaStep) -> str:
    if row.rows is None:
        return NOT_SEEN
    empty = f", none in {format_count(row.empty_steps)} steps" if row.empty_steps else ""
    return f"{format_count(row.rows)}{empty}"


def _remote(calls: RemoteCalls) -> tuple[str, ...]:
    times = (calls.call_ns, calls.step_ns, calls.overhead_ns)
    return (
        calls.worker or "a worker that was not recorded",
        format_count(calls.calls),
        format_count(calls.joined),
        *(NOT_SEEN if ns is None else format_ns(ns) for ns in times),
    )
