"""Chrome traces to a ``Profile``: timelines of TensorFlow 1, and the ``trace.json.gz`` of the TensorFlow profiler."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.run import Profile
from graphlens.loaders.annotations import is_copy, parse_annotation
from graphlens.loaders.device_lists import Record, events_of, place_of
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile

GZIP: Final = b"\x1f\x8b"
MOST_UNPACKED_BYTES: Final = 1 << 30  # the profiler stops at a million events, some 300 MB of JSON
_OPS: Final = " Compute"  # ends the process names of a timeline whose events are ops; others hold tensors and memory
_PLANES: Final = ("/host:", "/device:")
_NS_PER_US: Final = 1000
_PS_PER_US: Final = 1_000_000
MOST_PS: Final = (1 << 63) - 1  # what an XPlane can hold: a hundred days of one recording
MOST_US: Final = 1 << 53  # about 285 years since 1970; as picoseconds of a step even a thousandth of it is no time
_KEYS: Final = ("ph", "pid", "tid")
_LONG_NAME: Final = "long_name"  # the event's own name, where another is shown


def read_timeline(data: bytes, path: Path) -> Profile:
    """Return the profile of a Chrome trace that TensorFlow wrote.

    Raises
    ------
    TargetError
        When the bytes are no such trace, or hold no event of a device.
    """
    events = _trace_events(data, path)
    processes = {event.get("pid"): str(_args(event).get("name", "")) for event in _metadata(events, "process_name")}
    lists = _lists(events, processes)
    if not lists and any(name.startswith(_PLANES) for name in processes.values()):
        return read_profile(_as_xspace(events, processes))
    if not lists:
        raise TargetError(
            f"'{path}' is a trace without ops of TensorFlow; pass the *.xplane.pb, RunMetadata or timeline of a step"
        )
    return events_of(lists).profile()


def _trace_events(data: bytes, path: Path) -> list[Mapping[str, Any]]:
    try:
        text = _unpacked(data, path) if data.startswith(GZIP) else data
        trace = json.loads(text)
    except (ValueError, EOFError, OSError, zlib.error, RecursionError) as error:
        raise TargetError(f"'{path}' is damaged ({error}); copy or record it again") from error
    events = trace.get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list):
        raise TargetError(f"'{path}' is no trace: it holds no traceEvents")
    return [event for event in events if isinstance(event, dict) and all(_is_key(event.get(key)) for key in _KEYS)]


def _unpacked(data: bytes, path: Path) -> bytes:
    """Unpack no more than could be read unpacked: a few MB of a stranger's file may unpack to all memory there is."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(MOST_UNPACKED_BYTES + 1)
    if len(text) > MOST_UNPACKED_BYTES:
        raise TargetError(f"'{path}' unpacks to more than 1 GiB; record fewer steps, or pass the *.xplane.pb beside it")
    return text


def _is_key(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, str))


def _metadata(events: Iterable[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    return (event for event in events if event.get("ph") == "M" and event.get("name") == name)


def _args(event: Mapping[str, Any]) -> Mapping[str, Any]:
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def _timed(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the events that last: flows, counters and marks do not."""
    for event in events:
        if event.get("ph") == "X" and _is_number(event.get("ts")) and _is_number(event.get("dur", 0)):
            yield event


def _text(value: Any) -> str:
    """Return a value as text that a protobuf holds: JSON may spell halves of characters."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < MOST_US


# -- timelines of TensorFlow 1 ------------------------------------------------------------------------------------


def _lists(events: Iterable[Mapping[str, Any]], processes: Mapping[Any, str]) -> dict[str, list[Record]]:
    lists: dict[str, list[Record]] = defaultdict(list)
    for event in _timed(events):
        name = processes.get(event.get("pid"), "")
        if name.endswith(_OPS) and place_of(name.removesuffix(_OPS)):
            lists[name.removesuffix(_OPS)].append(_record(event))
    return lists


def _record(event: Mapping[str, Any]) -> Record:
    args = _args(event)
    name, op = str(args.get("name") or event.get("name", "")), str(args.get("op") or event.get("name", ""))
    details = " ".join(str(value) for key, value in args.items() if key not in ("name", "op"))
    start_ns = round(event["ts"] * _NS_PER_US)
    end_ns = start_ns + max(0, round(event.get("dur", 0) * _NS_PER_US))
    cause = parse_annotation(name if is_copy(op) else f"{name}:{op}")
    return Record(name, op, cause, str(args.get("kernel", "")).partition(" ")[0], details, start_ns, end_ns)


# -- trace.json of the profiler -----------------------------------------------------------------------------------


def _as_xspace(events: Sequence[Mapping[str, Any]], processes: Mapping[Any, str]) -> bytes:
    """Return the XPlane that a trace was made from, as far as the trace still holds it."""
    space = xspace()()
    first_us = int(min((event["ts"] for event in _timed(events)), default=0))
    planes = {pid: _PlaneWriter(space.planes.add(name=_text(name)), first_us) for pid, name in processes.items()}
    threads = {
        (event.get("pid"), event.get("tid")): _text(_args(event).get("name", ""))
        for event in _metadata(events, "thread_name")
    }
    for event in _timed(events):
        writer = planes.get(event.get("pid"))
        if writer is not None and _fits(event, first_us):
            writer.add(event, threads.get((event.get("pid"), event.get("tid")), ""))
    return bytes(space.SerializeToString())


def _fits(event: Mapping[str, Any], first_us: int) -> bool:
    longest = max(event["ts"] - first_us, event.get("dur", 0))
    return bool(longest * _PS_PER_US < MOST_PS)


class _PlaneWriter:
    """Writes the events of one process as a plane; names and lines are numbered as they come."""

    def __init__(self, plane: Any, first_us: int) -> None:
        self.plane, self.first_us = plane, first_us
        self.lines: dict[Any, Any] = {}
        self.events: dict[tuple[str, str], int] = {}
        self.stats: dict[str, int] = {}

    def add(self, event: Mapping[str, Any], thread: str) -> None:
        line = self._line(event.get("tid"), thread)
        args = _args(event)
        shown = _text(event.get("name", ""))
        written = line.events.add(
            metadata_id=self._name(_text(args.get(_LONG_NAME) or shown), shown),
            offset_ps=round((event["ts"] - self.first_us) * _PS_PER_US),
            duration_ps=max(0, round(event.get("dur", 0) * _PS_PER_US)),
        )
        for name, value in args.items():
            if name != _LONG_NAME:
                written.stats.add(metadata_id=self._stat(_text(name)), str_value=_text(value))

    def _line(self, number: Any, name: str) -> Any:
        if number not in self.lines:
            known = number if isinstance(number, int) and abs(number) < 1 << 63 else len(self.lines)
            self.lines[number] = self.plane.lines.add(id=known, name=name, timestamp_ns=self.first_us * _NS_PER_US)
        return self.lines[number]

    def _name(self, name: str, shown: str) -> int:
        number = self.events.setdefault((name, shown), len(self.events) + 1)
        meta = self.plane.event_metadata[number]
        meta.name, meta.display_name = name, shown if shown != name else ""
        return number

    def _stat(self, name: str) -> int:
        number = self.stats.setdefault(name, len(self.stats) + 1)
        self.plane.stat_metadata[number].name = name
        return number
