"""What each accelerator and each machine of a profile did: busy time, copies, lanes, and who did the work."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Literal

from graphlens.facts.clock.steps import length_ns
from graphlens.facts.flat.names import device_name, replica_of
from graphlens.ir.devices import LANE_BINS, DeviceRow, Distribution, HostRow, Lane, ReplicaRow
from graphlens.ir.instructions import HOST_COPY, is_wait
from graphlens.ir.ops import family
from graphlens.ir.run import CopyEvent, Kernel, Profile, ProfiledDevice, Span, host_of_thread

if TYPE_CHECKING:
    from graphlens.ir.columns import DeviceEvents, Ints, OpEvents

# Devices whose busy times differ by less do the same work: kernels of one and the same step vary by as much.
ALIKE: Final = 1.10

NAMES_LISTED: Final = 3  # as many names as a sentence bears

# What moves data computes nothing, whether or not a profile says so.
_MOVING: Final = frozenset({"data-movement", "copy", HOST_COPY, "input"})

LaneKind = Literal["compute", "copy-in", "copy-out", "copy-within", "collective"]

_COLLECTIVE_KERNEL = re.compile(r"nccl|rccl|all-?reduce|all-?gather|reduce-?scatter|all-?to-?all", re.IGNORECASE)
_LANE_OF_COPY: Final[Mapping[str | None, LaneKind]] = {
    "host-to-device": "copy-in",
    "device-to-host": "copy-out",
    "device-to-device": "copy-within",
}
_LANES: Final[tuple[LaneKind, ...]] = ("compute", "collective", "copy-in", "copy-out", "copy-within")

Stretch = tuple[int, int]


class _Work:
    """What the profile shows on one device: its kernels, those that do more than wait for a copy, and its copies."""

    def __init__(self, kernels: DeviceEvents, copies: Sequence[CopyEvent]) -> None:
        self.kernels, self.copies = kernels, copies
        self.computing = kernels.of_kinds(lambda kernel: not is_wait(kernel.category))
        self.alike = tuple(kernels.totals())

    def extent(self) -> Stretch | None:
        """Return from when to when it did anything."""
        starts_ns = [copy.start_ns for copy in self.copies]
        ends_ns = [copy.end_ns for copy in self.copies]
        if self.kernels:
            starts_ns.append(int(self.kernels.start_ns.min()))
            ends_ns.append(int(self.kernels.end_ns.max()))
        return (min(starts_ns), max(ends_ns)) if starts_ns else None


def device_rows(profile: Profile | None) -> tuple[DeviceRow, ...]:
    """Return one row per accelerator that the profile lists, those that did nothing included."""
    if profile is None or not profile.devices:
        return ()
    work = _work(profile)
    extents = [extent for item in work if (extent := item.extent()) is not None]
    whole = (min(start for start, _ in extents), max(end for _, end in extents)) if extents else (0, 0)
    replicas = _replicas(work)
    return tuple(
        _row(device, item, replica, whole)
        for device, item, replica in zip(profile.devices, work, replicas, strict=True)
    )


def _work(profile: Profile) -> list[_Work]:
    from graphlens.ir.columns import DeviceEvents  # needs numpy, which graphs alone do not

    kernels = DeviceEvents.of(profile.kernels_on_device).by_device
    copies: dict[int, list[CopyEvent]] = defaultdict(list)
    for copy in profile.copies:
        copies[copy.device].append(copy)
    none = DeviceEvents.of(())
    return [_Work(kernels.get(device, none), copies[device]) for device in range(len(profile.devices))]


def _replicas(work: Sequence[_Work]) -> list[int | None]:
    """Return the replica that ran on each device: the one that most of its kernels name.

    Of several replicas the first has no number in its names.
    """
    named: list[Counter[int | None]] = [Counter() for _ in work]
    for item, counter in zip(work, named, strict=True):
        for kernel, _, times, _ in item.alike:
            if kernel.node:
                counter[replica_of(kernel.node)] += times
    several = any(number is not None for counter in named for number in counter)
    return [(counter.most_common(1)[0][0] or 0) if several and counter else None for counter in named]


def _row(device: ProfiledDevice, work: _Work, replica: int | None, whole: Stretch) -> DeviceRow:
    own = work.extent()
    sizes = [copy.nbytes for copy in work.copies]
    return DeviceRow(
        name=device.name,
        host=device.host,
        kind=device.kind,
        kernels=len(work.kernels),
        kernel_ns=sum(ns for _, _, _, ns in work.alike),
        busy_ns=_busy_ns(work.computing),
        span_ns=own[1] - own[0] if own else None,
        steps=len(device.steps) or None,
        step_ns=_median_ns(device.steps),
        copies=len(sizes),
        copy_bytes=sum(size or 0 for size in sizes) if None not in sizes else None,
        copy_ns=sum(copy.end_ns - copy.start_ns for copy in work.copies),
        replica=replica,
        properties=device.properties,
        lanes=tuple(_lanes(work, whole)),
        wait_ns=_waiting_ns(work),
        flops=_known_flops(work),
    )


def _busy_ns(events: DeviceEvents | OpEvents) -> int:
    from graphlens.facts.clock.sweep import united  # needs numpy, which graphs alone do not

    starts_ns, ends_ns = united(events.start_ns, events.end_ns)
    return int((ends_ns - starts_ns).sum())


def _waiting_ns(work: _Work) -> int | None:
    """Return how long instructions waited for copies; ``None`` where no kernel says what kind it is."""
    if not any(kernel.category for kernel, _, _, _ in work.alike):
        return None
    return sum(ns for kernel, _, _, ns in work.alike if is_wait(kernel.category))


def _known_flops(work: _Work) -> int | None:
    """Return the operations of all kernels; ``None`` where one that computes does not tell its own."""
    told = [times * kernel.flops for kernel, _, times, _ in work.alike if kernel.flops is not None]
    return None if not told or any(_may_compute(kernel) for kernel, _, _, _ in work.alike) else sum(told)


def _may_compute(kernel: Kernel) -> bool:
    """Tell whether a kernel does work of which the profile says nothing: to wait and to move data is none."""
    if kernel.flops is not None or is_wait(kernel.category):
        return False
    return family(kernel.category or kernel.name) not in _MOVING


def _median_ns(steps: Sequence[Span]) -> int | None:
    return round(median(map(length_ns, steps))) if steps else None


# -- lanes --------------------------------------------------------------------------------------------------------


def _lanes(work: _Work, whole: Stretch) -> Iterator[Lane]:
    """Yield the lanes that hold anything; copies of which nobody knows the way are in none."""
    from graphlens.facts.clock.sweep import pairs  # needs numpy, which graphs alone do not

    of_copies: dict[LaneKind | None, list[Stretch]] = defaultdict(list)
    for copy in work.copies:
        of_copies[_LANE_OF_COPY.get(copy.kind)].append((copy.start_ns, copy.end_ns))
    by_lane = {lane: pairs(stretches) for lane, stretches in of_copies.items()}
    computing = work.computing.of_kinds(lambda kernel: not _is_collective(kernel))
    collective = work.computing.of_kinds(_is_collective)
    by_lane["compute"] = computing.start_ns, computing.end_ns
    by_lane["collective"] = collective.start_ns, collective.end_ns
    for kind in _LANES:
        if kind in by_lane and len(by_lane[kind][0]):
            yield Lane(kind, binned(by_lane[kind], whole))


def _is_collective(kernel: Kernel) -> bool:
    return "collective" in (family(kernel.op), family(kernel.category)) or bool(_COLLECTIVE_KERNEL.search(kernel.name))


def binned(stretches: tuple[Ints, Ints], whole: Stretch, bins: int = LANE_BINS) -> tuple[float, ...]:
    """Return for each of ``bins`` equal parts of ``whole`` the share of it that at least one stretch covers.

    >>> import numpy as np
    >>> binned((np.array([0, 5, 30]), np.array([10, 15, 40])), (0, 40), bins=4)
    (1.0, 0.5, 0.0, 1.0)
    """
    from graphlens.facts.clock.sweep import binned_ns  # needs numpy, which graphs alone do not

    width = (whole[1] - whole[0]) / bins
    if width <= 0:
        return (0.0,) * bins
    return tuple(round(min(1.0, value / width), 4) for value in binned_ns(stretches, whole, bins))


def merged(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Yield the union of the stretches as stretches that do not touch.

    >>> list(merged([(5, 15), (0, 10), (30, 40)]))
    [(0, 15), (30, 40)]
    """
    open_start: int | None = None
    open_end = 0
    for start, end in sorted(stretches):
        if open_start is None or start > open_end:
            if open_start is not None:
                yield open_start, open_end
            open_start, open_end = start, end
        open_end = max(open_end, end)
    if open_start is not None:
        yield open_start, open_end


# -- distribution -------------------------------------------------------------------------------------------------


def distribution(profile: Profile | None, rows: Sequence[DeviceRow]) -> Distribution | None:
    """Return who did the work; ``None`` for a profile of one device, or of one machine without accelerators."""
    if profile is None or (len(rows) < 2 and len(profile.hosts) < 2):
        return None
    hosts = tuple(_host_row(profile, rows, position) for position in range(len(profile.hosts)))
    replicas = [
        ReplicaRow(row.replica, row.host, row.name, row.kernels, row.busy_ns, row.step_ns)
        for row in rows
        if row.replica is not None
    ]
    workers = (
        _devices_as_workers(profile, rows, _work(profile))
        if rows
        else [_Worker(row.name, row.busy_ns or 0) for row in hosts]
    )
    return Distribution(
        hosts=hosts if len(hosts) > 1 else (),
        replicas=tuple(sorted(replicas, key=lambda row: (row.number, row.host, row.device))),
        imbalance=_imbalance(workers),
        words=_words(workers, "device" if rows else "machine"),
    )


def _host_row(profile: Profile, rows: Sequence[DeviceRow], position: int) -> HostRow:
    """Return what one machine did: its accelerators where the profile has any, else its own ops."""
    name = profile.hosts[position]
    own = [row for row in rows if row.host == name]
    steps = [step for step in profile.steps if host_of_thread(step.thread) == position]
    on_devices = [row.step_ns for row in own if row.step_ns is not None]
    counted = [row.steps for row in own if row.steps is not None]
    return HostRow(
        name=name,
        devices=len(own),
        steps=len(steps) or max(counted, default=None),
        step_ns=_median_ns(steps) or max(on_devices, default=None),
        busy_ns=sum(row.busy_ns or 0 for row in own) if own else _busy_ns(_ops_of_host(profile, position)),
    )


def _ops_of_host(profile: Profile, position: int) -> OpEvents:
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    ops = OpEvents.of(profile.ops)
    return ops.where(ops.of_threads(host_of_thread) == position)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A device or a machine, how long it was busy, and in words what it copied."""

    name: str
    busy_ns: int
    copied: str = ""


def _devices_as_workers(profile: Profile, rows: Sequence[DeviceRow], work: Sequence[_Work]) -> list[_Worker]:
    return [
        _Worker(device_name(profile, position), row.busy_ns or 0, _copied(item.copies))
        for position, (row, item) in enumerate(zip(rows, work, strict=True))
    ]


def _copied(copies: Sequence[CopyEvent]) -> str:
    kinds = {copy.kind for copy in copies}
    verb = "received" if kinds == {"host-to-device"} else "sent" if kinds == {"device-to-host"} else "took part in"
    return f"{verb} {len(copies)} {'copy' if len(copies) == 1 else 'copies'}" if copies else ""


def _imbalance(workers: Sequence[_Worker]) -> float | None:
    total = sum(worker.busy_ns for worker in workers)
    return max(worker.busy_ns for worker in workers) * len(workers) / total - 1 if total else None


def _words(workers: Sequence[_Worker], what: str) -> str:
    """Say in a sentence which of the workers did what."""
    working = [worker for worker in workers if worker.busy_ns]
    copying = [worker for worker in workers if not worker.busy_ns and worker.copied]
    idle = [worker for worker in workers if not worker.busy_ns and not worker.copied]
    if not working:
        return f"no {what} did any work"
    parts = [_of_working(working, len(working) == len(workers), what)]
    parts += [f"{worker.name} {worker.copied} only" for worker in copying[:NAMES_LISTED]]
    if len(copying) > NAMES_LISTED:
        parts.append(f"{_number(len(copying) - NAMES_LISTED)} more only copied")
    parts += [f"{_named(idle, what)} {'was' if len(idle) == 1 else 'were'} idle"] if idle else []
    return ", ".join(parts)


def _of_working(working: Sequence[_Worker], everybody: bool, what: str) -> str:
    most, least = (choose(working, key=lambda worker: worker.busy_ns) for choose in (max, min))
    if most.busy_ns <= least.busy_ns * ALIKE:
        return (
            f"all {_number(len(working))} {what}s were busy for the same time"
            if everybody
            else f"{_named(working, what)} did all the work"
        )
    longer = f"{most.name} was busy {most.busy_ns / least.busy_ns:.1f} times as long as {least.name}"
    return longer if everybody else f"{_named(working, what)} did all the work, {longer}"


def _named(workers: Sequence[_Worker], what: str) -> str:
    names = [worker.name for worker in workers]
    if len(names) > NAMES_LISTED:
        return f"{_number(len(names))} {what}s"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _number(count: int) -> str:
    small = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return small[count] if count < len(small) else str(count)
