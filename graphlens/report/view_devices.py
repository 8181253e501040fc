"""Device lanes, hosts and replicas in words and formatted numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from graphlens.ir.analysis import Document
from graphlens.ir.devices import DeviceRow, HostRow, Lane, ReplicaRow
from graphlens.report.evidence import Cell, cells_of
from graphlens.report.plots import lane as draw_lane
from graphlens.report.words import NOT_SEEN, plural
from graphlens.units import UNKNOWN, format_bytes, format_count, format_ns, format_share

# A pod of hundreds of devices is in the JSON; a reader needs those that did something first.
DEVICE_LIMIT = 64
BUSIEST = 3
# The order from top to bottom, and the words of a lane.
LANES = {
    "compute": "compute",
    "copy-in": "copies in",
    "copy-out": "copies out",
    "copy-within": "copies within",
    "collective": "collectives",
}


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane: how busy it was on average, and its drawing over time."""

    kind: str
    words: str
    share: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device; ``lanes`` is empty and ``empty`` says so in words where nothing ran."""

    name: str
    detail: str
    lanes: tuple[LaneView, ...]
    empty: str
    kernels: str
    busy: str
    copies: str
    copied: str


@dataclass(frozen=True, slots=True)
class HostDevices:
    """The devices of one machine; ``host`` is empty where the profile names none."""

    host: str
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True)
class DevicesView:
    """All devices of the profile by machine; ``hardware`` says once what holds for several of them.

    ``busiest`` names the first ones by what is drawn in their lanes, for a summary of one line.
    """

    hosts: tuple[HostDevices, ...]
    hardware: tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...]
    summary: str
    busiest: tuple[str, ...]
    copies: bool
    note: str


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


def devices_view(document: Document) -> DevicesView | None:
    """Return the lanes, or ``None`` where one processor did everything: the ledger says that already."""
    rows = document.devices
    if not rows or (len(rows) == 1 and rows[0].kind in ("CPU", "")):
        return None
    shown = rows[:DEVICE_LIMIT]
    hosts = groupby(sorted(shown, key=lambda row: _first_of(row.host, shown)), key=lambda row: row.host)
    hidden = len(rows) - len(shown)
    return DevicesView(
        hosts=tuple(HostDevices(host, tuple(map(_device, members))) for host, members in hosts),
        hardware=_hardware(shown),
        summary=_summary(rows),
        busiest=_busiest(rows),
        copies=any(row.copies for row in rows),
        note=f"and {plural(hidden, 'more device')}, listed in the JSON report" if hidden > 0 else "",
    )


def is_empty(row: DeviceRow) -> bool:
    """Say whether the profile holds nothing of the device."""
    return not row.kernels and not row.copies and not any(any(lane.busy) for lane in row.lanes)


def busy_share(lane: Lane) -> float | None:
    """Return the mean of what is drawn: the share of the profile during which the lane was busy."""
    return sum(lane.busy) / len(lane.busy) if lane.busy else None


def _first_of(host: str, rows: Sequence[DeviceRow]) -> int:
    return next(index for index, row in enumerate(rows) if row.host == host)


def _summary(rows: Sequence[DeviceRow]) -> str:
    empty = sum(map(is_empty, rows))
    said = plural(len(rows), "device")
    return f"{said}, {empty} of them empty: nothing ran there" if empty else said


def _hardware(rows: Sequence[DeviceRow]) -> tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...]:
    """Pair the names of equal devices with what the profile says of them."""
    groups: list[tuple[dict[str, object], list[str]]] = []
    for row in rows:
        properties = dict(row.properties)
        names = next((names for known, names in groups if known == properties), None)
        if names is None:
            groups.append((properties, names := []))
        names.append(f"{row.host} {row.name}".strip())
    return tuple((", ".join(names), cells_of(properties)) for properties, names in groups if properties)


def _busiest(rows: Sequence[DeviceRow]) -> tuple[str, ...]:
    shares = [
        (share, f"{row.host} {row.name}".strip())
        for row in rows
        for lane in row.lanes
        if lane.kind == "compute" and (share := busy_share(lane))
    ]
    ranked = sorted(shares, key=lambda entry: -entry[0])[:BUSIEST]
    return tuple(f"{name} {format_share(share)}" for share, name in ranked)


def _device(row: DeviceRow) -> DeviceView:
    empty = "nothing ran on this device during the profile" if is_empty(row) else ""
    return DeviceView(
        name=row.name,
        detail=_detail(row),
        lanes=() if empty else _lanes(row),
        empty=empty,
        kernels="" if empty else format_count(row.kernels),
        busy="" if empty else _time(row.busy_ns),
        copies="" if empty else format_count(row.copies),
        copied=format_bytes(row.copy_bytes) if row.copies else "",
    )


def _detail(row: DeviceRow) -> str:
    parts = (
        None if row.replica is None else f"replica {row.replica}",
        None if row.steps is None else plural(row.steps, "step"),
        None if row.step_ns is None else f"{format_ns(row.step_ns)} each",
    )
    return ", ".join(part for part in parts if part)


def _lanes(row: DeviceRow) -> tuple[LaneView, ...]:
    by_kind = {lane.kind: lane for lane in row.lanes if any(lane.busy)}
    return tuple(_lane(row.name, by_kind[kind], words) for kind, words in LANES.items() if kind in by_kind)


def _lane(device: str, lane: Lane, words: str) -> LaneView:
    share = format_share(busy_share(lane))
    title = f"{device}, {words}: busy {share} of the profile"
    drawing = draw_lane(
        lane.busy, lane.kind, title, "Height is how busy it was, from the start of the profile to its end."
    )
    return LaneView(lane.kind, words, share, Markup(drawing))


# -- hosts and replicas --------------------------------------------------------------------------------------


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
