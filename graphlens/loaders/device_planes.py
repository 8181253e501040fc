"""Device planes of an XPlane to kernels and copies: the streams of NVIDIA and AMD GPUs, and a TPU by its own reader.

A device plane holds lines of two kinds: what the device reported (streams), and lines that the profiler derived from
them (``TensorFlow Ops``, ``TensorFlow Name Scope``, ``Steps``, …), which are the same time again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from graphlens.ir.run import CopyEvent, DeviceEvent, ProfiledDevice, Span
from graphlens.loaders.annotations import (
    Cause,
    copied_bytes,
    copy_direction,
    is_copy,
    made_of,
    names_something,
    parse_annotation,
)
from graphlens.loaders.events import Events
from graphlens.loaders.planes import XLA_KERNEL, Place, stat_names, values
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
    """Reads one device plane; the tables of names are needed at every turn.

    A million events are read in seconds only if no more is looked at than is needed: of an event's statistics those
    that tell what it belongs to, and each combination of them once.
    """

    def __init__(self, plane: Any, device: int, shift_ns: int) -> None:
        self.plane, self.device, self.shift_ns = plane, device, shift_ns
        self.stat_names = stat_names(plane)
        self.names = {key: _shown(meta) for key, meta in plane.event_metadata.items()}
        self.telling = {key: name for key, name in self.stat_names.items() if name in _TELLING or _LEVEL.match(name)}
        self.shared = {key: self._texts(meta.stats) for key, meta in plane.event_metadata.items()}
        # Where XLA left no statistics of its own, an annotation that names an op says all that there is to a kernel.
        self.enough = None if "hlo_op" in self.telling.values() else "annotation"
        self.causes: dict[tuple[tuple[str, str], ...], Cause] = {}

    def steps(self) -> Iterator[Span]:
        for line in self.plane.lines:
            if line.name == _STEP_LINE:
                place = self._place(line)
                for event in line.events:
                    name = self.names.get(event.metadata_id, "")
                    start_ns, end_ns = place.span_ns(event)
                    yield Span(name, start_ns, end_ns, line.id, int(name) if name.isdecimal() else 0)

    def read(self, into: Events) -> None:
        for line in self.plane.lines:
            if not _is_derived(line):
                self._stream(self._place(line), line.events, into)

    def _place(self, line: Any) -> Place:
        return Place(line.timestamp_ns + self.shift_ns, line.name)

    def _stream(self, place: Place, events: Iterable[Any], into: Events) -> None:
        kinds: dict[int, str] = {}
        for event in events:
            key = event.metadata_id
            kind = kinds.get(key)
            if kind is None:
                kind = kinds[key] = self._kind(event)
            if kind == _COPY:
                into.copies.append(self._copy(place, event, self.names.get(key, "")))
            elif kind == _KERNEL:
                into.kernels_on_device.append(self._kernel(place, event, self.names.get(key, "")))

    def _kind(self, event: Any) -> str:
        """Tell what all events of that name are; AMD's copies have any name, but say what they move."""
        name = self.names.get(event.metadata_id, "")
        if is_copy(name) or _DETAILS in self._told(event, None):
            return _COPY
        return _IDLE if _BOOKKEEPING.match(name) else _KERNEL

    def _kernel(self, place: Place, event: Any, name: str) -> DeviceEvent:
        cause = self._cause(self._told(event, self.enough))
        start_ns, end_ns = place.span_ns(event)
        if not cause.op:
            cause = parse_annotation(self.ops.at(start_ns))
        return DeviceEvent(
            name, cause.node, cause.op, start_ns, end_ns, self.device, place.stream, made_of=cause.made_of
        )

    def _copy(self, place: Place, event: Any, name: str) -> CopyEvent:
        told = self._told(event, None)
        cause, details = self._cause(told), told.get(_DETAILS, "")
        return CopyEvent(
            copy_direction(name, details),
            cause.node,
            cause.op,
            *place.span_ns(event),
            self.device,
            place.stream,
            copied_bytes(details),
            cause.src,
            cause.dst,
            cause.edge,
        )

    def _told(self, event: Any, enough: str | None) -> Mapping[str, str]:
        """Return what the statistics of an event tell, those that all events of its name share included."""
        own, shared = self._texts(event.stats, enough), self.shared.get(event.metadata_id)
        return {**shared, **own} if shared else own

    def _texts(self, stats: Iterable[Any], enough: str | None = None) -> dict[str, str]:
        """Return the telling ones of ``stats``, up to ``enough``; a text may be the name of another statistic."""
        texts = {}
        telling = self.telling
        for stat in stats:
            name = telling.get(stat.metadata_id)
            if name is not None:
                texts[name] = text = stat.str_value or self.stat_names.get(stat.ref_value, "")
                if name == enough and names_something(text):
                    break
        return texts

    def _cause(self, told: Mapping[str, str]) -> Cause:
        """Return what an event belongs to: by its annotation, else by the op that it names."""
        key = tuple(told.items())
        found = self.causes.get(key)
        if found is None:
            found = self.causes[key] = _cause_of(told)
        return found

    @cached_property
    def ops(self) -> _OpsLine:
        """The profiler's own ops: sorted only where a kernel does not say what it belongs to."""
        return _OpsLine(
            self.names,
            [
                (self._place(line), line)
                for line in self.plane.lines
                if line.name.partition(_OF_ONE_STREAM)[0] in _OPS_LINES
            ],
        )


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

    def __init__(self, names: Mapping[int, str], lines: Iterable[tuple[Place, Any]]) -> None:
        self.spans = sorted(
            (*place.span_ns(event), names.get(event.metadata_id, "")) for place, line in lines for event in line.events
        )
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
