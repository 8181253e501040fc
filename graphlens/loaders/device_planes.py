"""Device planes of an XPlane to kernels and copies: the streams of NVIDIA and AMD GPUs, and a TPU by its own reader.

A device plane holds lines of two kinds: what the device reported (streams), and lines that the profiler derived from
them (``TensorFlow Ops``, ``TensorFlow Name Scope``, ``Steps``, …), which are the same time again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from graphlens.ir.columns import Codes, DeviceEvents, Ints, first_of, numbered
from graphlens.ir.run import NO_RUN, CopyEvent, Kernel, ProfiledDevice, Span
from graphlens.loaders.annotations import (
    Cause,
    copied_bytes,
    copy_direction,
    is_copy,
    made_of,
    names_something,
    parse_annotation,
)
from graphlens.loaders.event_columns import PlaneEvents, read_events
from graphlens.loaders.events import Events
from graphlens.loaders.planes import XLA_KERNEL, stat_names, values
from graphlens.loaders.tpu_plane import is_tpu, read_tpu

_DEVICE_PLANE = re.compile(r"^/device:(?P<kind>[A-Za-z_]+):(?P<number>\d+)$")
_STEP_LINE: Final = "Steps"
_OPS_LINES: Final = frozenset({"TensorFlow Ops", "Framework Ops"})

# Lines that are computed from others, or that hold no work of the device itself.
_DERIVED_LINES: Final = frozenset(
    {
        _STEP_LINE,
        *_OPS_LINES,
        "XLA Ops",
        "TensorFlow Name Scope",
        "Framework Name Scope",
        "XLA Modules",
        "XLA TraceMe",
        "Async XLA Ops",
        "Host Offload Ops",
        "Host Offload XLA Ops",
        "Sparse Core Steps",
        "Sparse Core Modules",
        "Sparse Core Ops",
        "Sparse Core Syncs",
        "Tensor Core Sync Flag",
        "Source code",
        "Source",
        "Kernel Launch",
        "Launch Stats",
        "_counters_",
    }
)
_OF_ONE_STREAM: Final = " - from #"  # after the name of a derived line that was made from one stream only
_FIRST_DERIVED_ID: Final = 0xDEADBEEF  # XProf numbers the lines that it derives from here on, in 32 bits

# What a stream reports besides kernels and copies: bookkeeping that keeps no unit of the device busy.
_BOOKKEEPING = re.compile(
    r"^(MemoryAlloc|MemoryFree|MemoryResidency|HostRegister|HostUnregister|Overhead|UnifiedMemory|Synchronization|Marker)"
)
_LEVEL = re.compile(r"^level (\d+)$")
_COPY, _KERNEL, _IDLE = "copy", "kernel", "idle"
_NONE, _BY_TIME = -1, -2  # in the place of a code: of no kernel; of one that its time alone tells of
_DETAILS: Final = "memcpy_details"
_TELLING: Final = frozenset({"annotation", "tf_op", "hlo_op", "hlo_module", "from", "to", "edge_name", _DETAILS})


def is_device_plane(name: str) -> bool:
    """Tell whether a plane of that name holds the events of an accelerator.

    >>> is_device_plane("/device:GPU:4"), is_device_plane("/device:TPU:0"), is_device_plane("/host:CPU")
    (True, True, False)
    """
    match = _DEVICE_PLANE.match(name)
    return match is not None and match["kind"] != "CPU"


def read_device(plane: Any, host: str, into: Events) -> None:
    """Add the device of ``plane`` with its kernels, copies and steps; a device without any event is added as well."""
    match = _DEVICE_PLANE.match(plane.name)
    assert match is not None
    name, properties = f"{match['kind']}:{match['number']}", dict(values(plane.stats, stat_names(plane)))
    device = ProfiledDevice(name, host, match["kind"], properties)
    if is_tpu(plane):
        read_tpu(plane, device, into)
        return
    reader = _DeviceReader(plane, len(into.devices), into.shift_ns)
    into.devices.append(replace(device, steps=tuple(reader.steps())))
    reader.read(into)


class _DeviceReader:
    """Reads one device plane, whose lines hold their events as bytes.

    A million events are read in a second only if no more is looked at than is needed: of an event's statistics those
    that tell what it belongs to, and each combination of them once.
    """

    def __init__(self, plane: Any, device: int, shift_ns: int) -> None:
        self.plane, self.device, self.shift_ns = plane, device, shift_ns
        self.stat_names = stat_names(plane)
        self.names = {key: _shown(meta) for key, meta in plane.event_metadata.items()}
        self.telling = {key: name for key, name in self.stat_names.items() if name in _TELLING or _LEVEL.match(name)}
        self.shared = {key: self._texts(meta.stats) for key, meta in plane.event_metadata.items() if meta.stats}
        # Where XLA left no statistics of its own, an annotation that names an op says all that there is to a kernel.
        self.enough = None if "hlo_op" in self.telling.values() else "annotation"

    def steps(self) -> Iterator[Span]:
        lines = [line for line in self.plane.lines if line.name == _STEP_LINE]
        events = self._events(lines)
        rows = (events.name, events.start_ns, events.end_ns, events.line)
        for key, start_ns, end_ns, line in zip(*(column.tolist() for column in rows), strict=True):
            name = self.names.get(key, "")
            yield Span(name, start_ns, end_ns, lines[line].id, int(name) if name.isdecimal() else 0)

    def read(self, into: Events) -> None:
        streams = [line for line in self.plane.lines if not _is_derived(line)]
        events = self._events(streams, self.telling)
        alike = _alike(events)
        groups = self._groups(streams, events, alike)
        self._add_kernels(events, alike, groups, into)
        self._add_copies(events, alike, groups, into)

    def _events(self, lines: Sequence[Any], wanted: Collection[int] = ()) -> PlaneEvents:
        return read_events(lines, self.stat_names, wanted, self.shift_ns)

    def _groups(self, streams: Sequence[Any], events: PlaneEvents, alike: Ints) -> list[_Group]:
        """Return what the events of one number in ``alike`` have in common."""
        first = first_of(alike)
        told = self._told(events, first)
        name_on_line = numbered(events.line, events.name)
        shown = first_of(name_on_line)
        kinds = [self._kind(int(events.name[place]), told[alike[place]]) for place in shown.tolist()]
        groups = []
        for place, own in zip(first.tolist(), told, strict=True):
            name, stream = self.names.get(int(events.name[place]), ""), str(streams[events.line[place]].name)
            groups.append(_Group(kinds[name_on_line[place]], name, stream, own))
        return groups

    def _told(self, events: PlaneEvents, places: Ints) -> list[Mapping[str, str]]:
        """Return what the statistics of some events tell, those that all events of a name share included."""
        chosen = np.zeros(len(events), bool)
        chosen[places] = True
        stats = events.stats.of_events(chosen)
        own: dict[int, dict[str, str]] = {place: {} for place in places.tolist()}
        for place, key, text in zip(stats.event.tolist(), stats.key.tolist(), stats.texts(), strict=True):
            own[place][self.telling[key]] = text
        names = events.name[places].tolist()
        return [{**self.shared.get(key, {}), **told} for key, told in zip(names, own.values(), strict=True)]

    def _kind(self, key: int, told: Mapping[str, str]) -> str:
        """Tell what all events of a name are, by the first of them; AMD's copies have any name, but say what they
        move."""
        name = self.names.get(key, "")
        if is_copy(name) or _DETAILS in told:
            return _COPY
        return _IDLE if _BOOKKEEPING.match(name) else _KERNEL

    def _add_kernels(self, events: PlaneEvents, alike: Ints, groups: Sequence[_Group], into: Events) -> None:
        kinds, known = Codes[Kernel](), np.full(len(groups), _NONE)
        for number, group in enumerate(groups):
            if group.kind == _KERNEL:
                cause = _cause_of(self._up_to_enough(group.told))
                known[number] = kinds(group.kernel(cause)) if cause.op else _BY_TIME
        code = known[alike]
        for place in np.flatnonzero(code == _BY_TIME).tolist():
            cause = parse_annotation(self.ops.at(int(events.start_ns[place])))
            code[place] = kinds(groups[alike[place]].kernel(cause))
        is_kernel = code != _NONE
        count = np.count_nonzero(is_kernel)
        into.kernel_columns.append(
            DeviceEvents(
                kinds.all,
                code[is_kernel],
                events.start_ns[is_kernel],
                events.end_ns[is_kernel],
                np.full(count, self.device),
                np.full(count, NO_RUN),
            )
        )

    def _add_copies(self, events: PlaneEvents, alike: Ints, groups: Sequence[_Group], into: Events) -> None:
        copies = {n: group.copy(self.device) for n, group in enumerate(groups) if group.kind == _COPY}
        chosen = np.isin(alike, list(copies))
        columns = (column[chosen].tolist() for column in (alike, events.start_ns, events.end_ns))
        for number, start_ns, end_ns in zip(*columns, strict=True):
            into.copies.append(copies[number]._replace(start_ns=start_ns, end_ns=end_ns))

    def _up_to_enough(self, told: Mapping[str, str]) -> Mapping[str, str]:
        """Return what is told up to an annotation that says enough."""
        if self.enough is None or not names_something(told.get(self.enough, "")):
            return told
        read = list(told)
        return {name: told[name] for name in read[: read.index(self.enough) + 1]}

    def _texts(self, stats: Iterable[Any]) -> dict[str, str]:
        """Return the telling ones of ``stats``; a text may be the name of another statistic."""
        texts = {}
        for stat in stats:
            name = self.telling.get(stat.metadata_id)
            if name is not None:
                texts[name] = stat.str_value or self.stat_names.get(stat.ref_value, "")
        return texts

    @cached_property
    def ops(self) -> _OpsLine:
        """The profiler's own ops: sorted only where a kernel does not say what it belongs to."""
        lines = [line for line in self.plane.lines if _kind_of_line(line) in _OPS_LINES]
        return _OpsLine(self.names, self._events(lines))


class _Group(NamedTuple):
    """Events of a stream of one name, that tell the same."""

    kind: str
    name: str
    stream: str
    told: Mapping[str, str]

    def kernel(self, cause: Cause) -> Kernel:
        return Kernel(self.name, cause.node, cause.op, self.stream, made_of=cause.made_of)

    def copy(self, device: int) -> CopyEvent:
        """Return one of them, at no time yet."""
        cause, details = _cause_of(self.told), self.told.get(_DETAILS, "")
        direction, size = copy_direction(self.name, details), copied_bytes(details)
        ends = cause.src, cause.dst, cause.edge
        return CopyEvent(direction, cause.node, cause.op, 0, 0, device, self.stream, size, *ends)


def _alike(events: PlaneEvents) -> Ints:
    """Return a number for each event: the same for those of a stream that have the same name and tell the same."""
    number = numbered(events.line, events.name)
    stats = events.stats
    value = stats.alike() + 1
    place = np.arange(len(stats)) - np.searchsorted(stats.event, stats.event)  # first, second, … of its event
    for rank in range(place.max(initial=-1) + 1):
        own = np.zeros_like(number)
        own[stats.event[place == rank]] = value[place == rank]
        number = numbered(number, own)
    return number


def _cause_of(told: Mapping[str, str]) -> Cause:
    said = parse_annotation(told.get("annotation", ""))
    if not said.op:
        named = parse_annotation(told.get("tf_op") or _deepest_level(told))
        said = said._replace(node=named.node, op=named.op)
    # Some profilers leave the metadata of an annotation as statistics of their own.
    said = said._replace(
        src=said.src or told.get("from", ""),
        dst=said.dst or told.get("to", ""),
        edge=said.edge or told.get("edge_name", ""),
    )
    if "hlo_op" in told or said.hlo_op:
        module, instruction = told.get("hlo_module", said.hlo_module), told.get("hlo_op", said.hlo_op)
        behind = said.op if said.node else made_of(told.get("tf_op", ""))
        return said._replace(node=f"{module}/{instruction}", op=XLA_KERNEL, made_of=behind)
    return said


def _shown(meta: Any) -> str:
    """Return the name of an event: an instruction of XLA is called by its whole text, but shown by its name."""
    name, shown = str(meta.name), str(meta.display_name)
    return (shown or name) if name.startswith("%") else (name or shown)


class _OpsLine:
    """The profiler's own line of TensorFlow ops, for kernels that do not say what launched them.

    It is made from kernels, so it tells nothing about copies, which may run at the same time as somebody else's kernel.
    """

    def __init__(self, names: Mapping[int, str], events: PlaneEvents) -> None:
        called = [names.get(key, "") for key in events.name.tolist()]
        self.spans = sorted(zip(events.start_ns.tolist(), events.end_ns.tolist(), called, strict=True))
        self.starts = [start for start, _, _ in self.spans]

    def at(self, start_ns: int) -> str:
        """Return the op that was running at an instant, empty when there is none."""
        index = bisect_right(self.starts, start_ns) - 1
        return self.spans[index][2] if index >= 0 and start_ns < self.spans[index][1] else ""


def _kind_of_line(line: Any) -> str:
    return str(line.name).partition(_OF_ONE_STREAM)[0]


def _is_derived(line: Any) -> bool:
    return _kind_of_line(line) in _DERIVED_LINES or (line.id & 0xFFFFFFFF) >= _FIRST_DERIVED_ID


def _deepest_level(told: Mapping[str, str]) -> str:
    """Return the innermost of ``level 0``, ``level 1``, …: how older profilers wrote a stack of annotations."""
    levels = [(int(match[1]), text) for name, text in told.items() if text and (match := _LEVEL.match(name))]
    return max(levels, default=(0, ""))[1]
