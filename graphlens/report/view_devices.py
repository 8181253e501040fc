"""Device lanes in words, formatted numbers and drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from graphlens.ir.analysis import Document
from graphlens.ir.devices import DeviceRow, Lane
from graphlens.report.evidence import Cell, cells_of
from graphlens.report.plots import lane as draw_lane
from graphlens.report.words import NOT_SEEN
from graphlens.units import counted, format_byte_rate, format_bytes, format_count, format_ns, format_share

# A pod of hundreds of devices is in the JSON; a reader needs those that did something first.
DEVICE_LIMIT = 64
BUSIEST = 3
# Below this share of the time of kernels, waiting for copies is not what a device does.
WAITS_SHOWN = 0.01
# The order from top to bottom, and the words of a lane.
LANES = {
    "compute": "compute",
    "copy-in": "copies in",
    "copy-out": "copies out",
    "copy-within": "copies within",
    "collective": "collectives",
}


# The profiler's own names and units of what it knows about a GPU (XPlane statistics of a device plane).
_PROPERTIES: Mapping[str, Callable[[float], str]] = {
    "clock_rate": lambda kilohertz: f"{kilohertz / 1e6:.2f} GHz",
    "memory_bandwidth": format_byte_rate,
    "memory_size": lambda size: format_bytes(round(size)),
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
    """One device on which something ran."""

    name: str
    detail: str
    lanes: tuple[LaneView, ...]
    kernels: str
    busy: str
    copies: str
    copied: str


@dataclass(frozen=True, slots=True)
class HostDevices:
    """The devices of one machine; ``host`` is empty where the profile names none.

    ``idle`` are those on which nothing ran, and ``idle_words`` say so.
    """

    host: str
    devices: tuple[DeviceView, ...]
    idle: tuple[str, ...]
    idle_words: str


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


def devices_view(document: Document) -> DevicesView | None:
    """Return the lanes, or ``None`` where one processor did everything: the ledger says that already."""
    rows = document.devices
    if not rows or (len(rows) == 1 and rows[0].kind in ("CPU", "")):
        return None
    shown = rows[:DEVICE_LIMIT]
    by_host = groupby(sorted(shown, key=lambda row: _first_of(row.host, shown)), key=lambda row: row.host)
    hidden = len(rows) - len(shown)
    return DevicesView(
        hosts=tuple(_host(host, list(members)) for host, members in by_host),
        hardware=_hardware(shown),
        summary=_summary(rows),
        busiest=_busiest(rows),
        copies=any(row.copies for row in rows),
        note=f"and {counted(hidden, 'more device')}, listed in the JSON report" if hidden > 0 else "",
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
    said = counted(len(rows), "device")
    said = f"{said}, {empty} of them empty: nothing ran there" if empty else said
    waits_ns, ran_ns = sum(row.wait_ns or 0 for row in rows), sum(row.kernel_ns or 0 for row in rows)
    waiting = waits_ns >= WAITS_SHOWN * ran_ns > 0
    return f"{said}; waiting for copies in {format_share(waits_ns / ran_ns)} of what they ran" if waiting else said


def _hardware(rows: Sequence[DeviceRow]) -> tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...]:
    """Pair the names of equal devices with what the profile says of them."""
    several = _several_hosts(rows)
    groups: list[tuple[dict[str, object], list[str]]] = []
    for row in rows:
        properties = dict(row.properties)
        names = next((names for known, names in groups if known == properties), None)
        if names is None:
            groups.append((properties, names := []))
        names.append(_full_name(row, several))
    return tuple((", ".join(names), cells_of(_readable(properties))) for properties, names in groups if properties)


def _several_hosts(rows: Sequence[DeviceRow]) -> bool:
    return len({row.host for row in rows}) > 1


def _full_name(row: DeviceRow, several_hosts: bool) -> str:
    return f"{row.host} {row.name}".strip() if several_hosts else row.name


def _readable(properties: Mapping[str, object]) -> dict[str, object]:
    """Write what profiles say of hardware with its unit, where the name is one of the profiler's own."""
    return {
        name: _PROPERTIES[name](value) if name in _PROPERTIES and isinstance(value, (int, float)) else value
        for name, value in properties.items()
    }


def _busiest(rows: Sequence[DeviceRow]) -> tuple[str, ...]:
    several = _several_hosts(rows)
    shares = [
        (share, _full_name(row, several))
        for row in rows
        for lane in row.lanes
        if lane.kind == "compute" and (share := busy_share(lane))
    ]
    ranked = sorted(shares, key=lambda entry: -entry[0])[:BUSIEST]
    return tuple(f"{name} {format_share(share)}" for share, name in ranked)


def _host(host: str, rows: Sequence[DeviceRow]) -> HostDevices:
    idle = tuple(row.name for row in rows if is_empty(row))
    which = "this device" if len(idle) == 1 else "these devices"
    return HostDevices(
        host=host,
        devices=tuple(_device(row) for row in rows if not is_empty(row)),
        idle=idle,
        idle_words=f"nothing ran on {which} during the profile",
    )


def _device(row: DeviceRow) -> DeviceView:
    return DeviceView(
        name=row.name,
        detail=_detail(row),
        lanes=_lanes(row),
        kernels=format_count(row.kernels),
        busy=_time(row.busy_ns),
        copies=format_count(row.copies),
        copied=format_bytes(row.copy_bytes) if row.copies else "",
    )


def _detail(row: DeviceRow) -> str:
    replica = "" if row.replica is None else f"replica {row.replica}"
    steps = "" if row.steps is None else counted(row.steps, "step")
    length = f" of {format_ns(row.step_ns)}" if steps and row.step_ns is not None else ""
    return ", ".join(part for part in (replica, steps + length) if part)


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


def _time(ns: int | None) -> str:
    return NOT_SEEN if ns is None else format_ns(ns)
