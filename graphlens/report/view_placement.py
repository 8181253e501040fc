"""The what-if placement in words and formatted numbers: always a model, never a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.devices import CopyCount, Counterfactual, Island, PlacedOp, Placement
from graphlens.report.scopes import Scope, scope_of
from graphlens.units import counted, format_bytes, format_count, format_ns

ISLAND_LIMIT = 50
# Ops on the host that are listed one by one; the islands say the same in groups.
HOST_OP_LIMIT = 100
# Names of one island; the JSON has all.
ISLAND_OPS = 50

CHANGES = {
    "static-batch": "fixed batch size",
    "pin-to-host": "pin to host",
    "move-device": "move an explicit device",
    "lookup-outside": "look-up outside the model",
}
STAGES = {
    "executed": "the graph that ran on this machine's CPU",
    "traced": "the graph as it was traced; nothing was executed",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One number of the headline."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class IslandView:
    """Ops next to each other that would stay on the host, and why."""

    ops: tuple[str, ...]
    count: int
    note: str
    why: str
    reason: str
    copies: str


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after a change; ``better`` when there is less of it."""

    before: str
    after: str
    better: bool


@dataclass(frozen=True, slots=True)
class CounterfactualView:
    """A change that was tried on a copy of the graph; ``cells`` follow the columns of the placement's table."""

    change: str
    words: str
    cells: tuple[Change, ...]
    why: str
    snippet: str | None


@dataclass(frozen=True, slots=True)
class HostOp:
    """An op that would run on the host."""

    name: str
    op: str
    device: str
    why: str


@dataclass(frozen=True, slots=True)
class PlacementView:
    """The simulated placement; ``on_device`` is the bar of its ops in per mille of all, ``between`` adds a column.

    Names leave out ``scope``.
    """

    device: str
    basis: str
    on_device: float
    copies: str
    facts: tuple[Fact, ...]
    islands: tuple[IslandView, ...]
    islands_note: str
    between: bool
    counterfactuals: tuple[CounterfactualView, ...]
    host_ops: tuple[HostOp, ...]
    host_ops_note: str
    not_covered: tuple[str, ...]
    assumed: tuple[str, ...]
    scope: Scope


def placement_view(document: Document) -> PlacementView | None:
    """Return what a machine with the assumed device would place where, or ``None`` where nobody asked."""
    placement = document.placement
    if placement is None:
        return None
    host_ops = [op for op in placement.ops if op.why]
    named = [op.name for op in host_ops] + [name for island in placement.islands for name in island.ops]
    scope = scope_of(named)
    ops = placement.ops_on_device + placement.ops_on_host
    counts = [count for tried in placement.counterfactuals for count in (tried.before, tried.after)]
    between = any(count.device_to_device for count in counts)
    return PlacementView(
        device=placement.device,
        basis=f"Kernels of TensorFlow {placement.table}; placed was {STAGES[placement.stage]}.",
        on_device=round(1000 * placement.ops_on_device / ops, 1) if ops else 0.0,
        copies=copies_in_words(placement.copies),
        facts=_facts(placement),
        islands=tuple(_island(island, scope) for island in placement.islands[:ISLAND_LIMIT]),
        islands_note=_more(len(placement.islands) - ISLAND_LIMIT, "island"),
        between=between,
        counterfactuals=tuple(_counterfactual(tried, between) for tried in placement.counterfactuals),
        host_ops=tuple(_host_op(op, scope) for op in host_ops[:HOST_OP_LIMIT]),
        host_ops_note=_more(len(host_ops) - HOST_OP_LIMIT, "op"),
        not_covered=placement.not_covered,
        assumed=placement.assumed,
        scope=scope,
    )


def copies_in_words(count: CopyCount) -> str:
    """Write the copies of one step by direction.

    >>> copies_in_words(CopyCount(12, 1)), copies_in_words(CopyCount(0, 0, 2))
    ('12 to the device, 1 back', '0 to the device, 0 back, 2 between devices')
    """
    between = f", {format_count(count.device_to_device)} between devices" if count.device_to_device else ""
    return f"{format_count(count.host_to_device)} to the device, {format_count(count.device_to_host)} back{between}"


def _facts(placement: Placement) -> tuple[Fact, ...]:
    copies = placement.copies
    crossing = copies.host_to_device + copies.device_to_host + copies.device_to_device
    islands = f"in {counted(len(placement.islands), 'island')}" if placement.islands else "in no island"
    facts = (
        Fact("On the device", counted(placement.ops_on_device, "op"), "have a kernel there"),
        Fact(
            "On the host",
            counted(placement.ops_on_host, "op"),
            islands if placement.ops_on_host else "everything has a kernel",
        ),
        Fact("Copies per step", format_count(crossing), copies_in_words(copies) if crossing else "nothing crosses"),
    )
    if not crossing:
        return facts
    return (
        *facts,
        Fact("Copied per step", format_bytes(copies.bytes), "from shapes and data types"),
        Fact("Time of the copies", format_ns(copies.ns), "from the device's bandwidth, not from a run"),
    )


def _island(island: Island, scope: Scope) -> IslandView:
    hidden = len(island.ops) - ISLAND_OPS
    return IslandView(
        ops=tuple(scope.short(name) for name in island.ops[:ISLAND_OPS]),
        count=len(island.ops),
        note=_more(hidden, "op"),
        why=scope.within(island.why),
        reason=island.reason or "",
        copies=format_count(island.copies),
    )


def _counterfactual(tried: Counterfactual, between: bool) -> CounterfactualView:
    before, after = tried.before, tried.after
    cells = (
        _change(before.host_to_device, after.host_to_device, format_count),
        _change(before.device_to_host, after.device_to_host, format_count),
        *((_change(before.device_to_device, after.device_to_device, format_count),) if between else ()),
        _change(before.bytes, after.bytes, format_bytes),
        _change(before.ns, after.ns, format_ns),
    )
    return CounterfactualView(CHANGES[tried.change], tried.words, cells, tried.why or "", tried.snippet)


def _change(before: int | None, after: int | None, write: Callable[[int | None], str]) -> Change:
    less = before is not None and after is not None and after < before
    return Change(write(before), write(after), less and write(before) != write(after))


def _host_op(placed: PlacedOp, scope: Scope) -> HostOp:
    return HostOp(scope.short(placed.name), placed.op, placed.device, scope.within(placed.why))


def _more(hidden: int, noun: str) -> str:
    return f"and {counted(hidden, f'more {noun}')}, listed in the JSON report" if hidden > 0 else ""
