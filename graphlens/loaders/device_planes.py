"""Device planes of an XPlane to kernels and copies: streams of NVIDIA and AMD GPUs, instructions of TPUs.

A device plane holds lines of two kinds: what the device reported (streams, a TPU's instructions), and lines that the
profiler derived from them (``TensorFlow Ops``, ``TensorFlow Name Scope``, ``Steps``, …), which are the same time again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

from graphlens.ir.run import CopyEvent, DeviceEvent, ProfiledDevice, Span
from graphlens.loaders.annotations import Cause, copied_bytes, copy_direction, is_copy, parse_annotation
from graphlens.loaders.events import Events

_DEVICE_PLANE = re.compile(r"^/device:(?P<kind>[A-Za-z_]+):(?P<number>\d+)$")
_STEP_LINE: Final = "Steps"
_INSTRUCTIONS_LINE: Final = "XLA Ops"
_OPS_LINES: Final = frozenset({"TensorFlow Ops", "Framework Ops"})

# Lines that are computed from others, or that hold no work of the device itself.
_DERIVED_LINES: Final = frozenset(
    {
        _STEP_LINE,
        _INSTRUCTIONS_LINE,
        *_OPS_LINES,
        "TensorFlow Name Scope",
        "Framework Name Scope",
        "XLA Modules",
        "XLA TraceMe",
        "Async XLA Ops",
        "Host Offload XLA Ops",
        "Sparse Core Steps",
        "Source code",
        "Source",
        "Kernel Launch",
        "Launch Stats",
    }
)
_FIRST_DERIVED_ID: Final = 0xDEADBEEF  # XProf numbers the lines that it derives from here on, in 32 bits

# What a stream reports besides kernels and copies: bookkeeping that keeps no unit of the device busy.
_BOOKKEEPING = re.compile(
    r"^(MemoryAlloc|MemoryFree|MemoryResidency|HostRegister|HostUnregister|Overhead|UnifiedMemory|Marker)"
)
_LEVEL = re.compile(r"^level (\d+)$")
PS_PER_NS: Final = 1000
XLA_KERNEL: Final = "XlaKernel"  # the type of an instruction, which is called after its module


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
    reader = _DeviceReader(plane, len(into.devices), into.shift_ns)
    into.devices.append(
        ProfiledDevice(
            name=f"{match['kind']}:{match['number']}",
            host=host,
            kind=match["kind"],
            properties={name: value for name, value in reader.values(plane.stats) if not isinstance(value, bytes)},
            steps=tuple(reader.steps()),
        )
    )
    for event in reader.events():
        if isinstance(event, CopyEvent):
            into.copies.append(event)
        else:
            into.kernels_on_device.append(event)


class _DeviceReader:
    """Reads one device plane; the tables of names are needed at every turn."""

    def __init__(self, plane: Any, device: int, shift_ns: int) -> None:
        self.plane, self.device, self.shift_ns = plane, device, shift_ns
        self.stat_names: Mapping[int, str] = {key: meta.name for key, meta in plane.stat_metadata.items()}
        self.names = {key: meta.name or meta.display_name for key, meta in plane.event_metadata.items()}
        self.lines = {line.name: line for line in plane.lines}
        self.ops = _OpsLine(self.names, (line for line in plane.lines if line.name in _OPS_LINES))

    def values(self, stats: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of ``stats``; a value may be the name of another statistic."""
        for stat in stats:
            kind = stat.WhichOneof("value")
            if kind is not None:
                value = getattr(stat, kind)
                name = self.stat_names.get(stat.metadata_id, "")
                yield name, self.stat_names.get(value, "") if kind == "ref_value" else value

    def steps(self) -> Iterator[Span]:
        for line in self.plane.lines:
            if line.name == _STEP_LINE:
                for event in line.events:
                    name = self.names.get(event.metadata_id, "")
                    start_ns, end_ns = self._in_ns(line, event)
                    yield Span(name, start_ns, end_ns, line.id, int(name) if name.isdecimal() else 0)

    def events(self) -> Iterator[DeviceEvent | CopyEvent]:
        streams = [line for line in self.plane.lines if not _is_derived(line)]
        for line in streams:
            yield from self._stream(line, line.events)
        if not streams and _INSTRUCTIONS_LINE in self.lines:
            line = self.lines[_INSTRUCTIONS_LINE]
            yield from self._stream(line, _innermost(line.events))

    def _stream(self, line: Any, events: Iterable[Any]) -> Iterator[DeviceEvent | CopyEvent]:
        for event in events:
            name = self.names.get(event.metadata_id, "")
            if is_copy(name):
                yield self._copy(line, event, name)
            elif not _BOOKKEEPING.match(name):
                yield self._kernel(line, event, name)

    def _kernel(self, line: Any, event: Any, name: str) -> DeviceEvent:
        cause = self._cause(self._stats(event))
        if not cause.op:
            cause = parse_annotation(self.ops.at(line, event))
        start_ns, end_ns = self._in_ns(line, event)
        return DeviceEvent(name, cause.node, cause.op, start_ns, end_ns, self.device, line.name)

    def _copy(self, line: Any, event: Any, name: str) -> CopyEvent:
        stats = self._stats(event)
        cause = self._cause(stats)
        details = str(stats.get("memcpy_details", ""))
        start_ns, end_ns = self._in_ns(line, event)
        return CopyEvent(
            copy_direction(name, details),
            cause.node,
            cause.op,
            start_ns,
            end_ns,
            self.device,
            line.name,
            copied_bytes(details),
            cause.src,
            cause.dst,
            cause.edge,
        )

    def _in_ns(self, line: Any, event: Any) -> tuple[int, int]:
        start_ps = event.offset_ps
        origin_ns = line.timestamp_ns + self.shift_ns
        return origin_ns + start_ps // PS_PER_NS, origin_ns + (start_ps + event.duration_ps) // PS_PER_NS

    def _stats(self, event: Any) -> dict[str, Any]:
        """Return the statistics of an event, those that all events of its name share included."""
        stats = dict(self.values(self.plane.event_metadata[event.metadata_id].stats))
        stats.update(self.values(event.stats))
        return stats

    def _cause(self, stats: Mapping[str, Any]) -> Cause:
        """Return what an event belongs to: by its annotation, else by the op that it names."""
        said = parse_annotation(str(stats.get("annotation", "")))
        if not said.op:
            named = parse_annotation(str(stats.get("tf_op") or _deepest_level(stats)))
            said = said._replace(node=named.node, op=named.op)
        if "hlo_op" in stats or said.hlo_op:
            module, instruction = stats.get("hlo_module", said.hlo_module), stats.get("hlo_op", said.hlo_op)
            return said._replace(node=f"{module}/{instruction}", op=XLA_KERNEL)
        return said


class _OpsLine:
    """The profiler's own line of TensorFlow ops, for kernels that do not say what launched them.

    It is made from kernels, so it tells nothing about copies, which may run at the same time as somebody else's kernel.
    """

    def __init__(self, names: Mapping[int, str], lines: Iterable[Any]) -> None:
        found = [
            (start, start + event.duration_ps, names.get(event.metadata_id, ""))
            for line in lines
            for event in line.events
            for start in (line.timestamp_ns * PS_PER_NS + event.offset_ps,)
        ]
        self.spans = sorted(found)
        self.starts = [start for start, _, _ in self.spans]

    def at(self, line: Any, event: Any) -> str:
        """Return the op during which ``event`` began, empty when there is none."""
        start = line.timestamp_ns * PS_PER_NS + event.offset_ps
        index = bisect_right(self.starts, start) - 1
        return self.spans[index][2] if index >= 0 and start < self.spans[index][1] else ""


def _is_derived(line: Any) -> bool:
    return line.name in _DERIVED_LINES or (line.id & 0xFFFFFFFF) >= _FIRST_DERIVED_ID


def _deepest_level(stats: Mapping[str, Any]) -> str:
    """Return the innermost of ``level 0``, ``level 1``, …: how older profilers wrote a stack of annotations."""
    levels = [(int(match[1]), str(value)) for name, value in stats.items() if value and (match := _LEVEL.match(name))]
    return max(levels, default=(0, ""))[1]


def _innermost(events: Iterable[Any]) -> Iterator[Any]:
    """Yield the events that contain no other: a loop's instruction lasts as long as those of its body."""
    ordered = sorted(events, key=lambda event: (event.offset_ps, -event.duration_ps))
    for event, following in zip_longest(ordered, ordered[1:]):
        if following is None or following.offset_ps >= event.offset_ps + event.duration_ps or not event.duration_ps:
            yield event
