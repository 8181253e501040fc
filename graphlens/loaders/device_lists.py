"""Lists of timed records per device, as StepStats and timelines of TensorFlow 1 hold them, to the events of a profile.

The same execution of a kernel stands in up to three lists: that of its stream, the one of all streams, and for a
copy the list of copies.  What runs on a device is therefore counted by the list of its stream; from the others comes
what is in no stream's list, and which records are copies.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, NamedTuple

from graphlens.ir.ops import COMPOSITE
from graphlens.ir.run import THREADS_OF_A_HOST, CopyEvent, DeviceEvent, OpEvent, ProfiledDevice
from graphlens.loaders.annotations import Cause, copied_bytes, copy_direction, is_copy
from graphlens.loaders.events import Events

# `/job:worker/replica:0/task:1/device:GPU:0/stream:13`; older versions write `/gpu:0`, in small letters.
_DEVICE = re.compile(
    r"^(?:/job:(?P<job>[^/]+))?(?:/replica:\d+)?(?:/task:(?P<task>\d+))?"
    r"/(?:device:)?(?P<kind>[A-Za-z_]+):(?P<number>\d+)(?:/(?P<part>stream:\w+|memcpy))?$"
)
_ALL_STREAMS: Final = "stream:all"
_COPIES: Final = "memcpy"
_THIS_JOB: Final = "localhost"
_NAMES_SHOWN: Final = 3
_NO_OPS: Final = frozenset({"_SOURCE", "_SINK"})  # where the executor begins and ends; they are in no graph


class Record(NamedTuple):
    """One execution as a list holds it.

    ``name`` is how the list calls it (an op, or ``MEMCPYHtoD``), ``cause`` what its label says, ``kernel`` the name of
    the kernel where the label has it, ``details`` the rest of the label.
    """

    name: str
    op: str
    cause: Cause
    kernel: str
    details: str
    start_ns: int
    end_ns: int


class Place(NamedTuple):
    """What the name of a list says: a device, the machine it belongs to, and the part of it."""

    host: str
    kind: str
    number: int
    part: str

    @property
    def device(self) -> str:
        return f"{self.kind}:{self.number}"


def place_of(name: str) -> Place | None:
    """Read the name of a list; ``None`` when it names no device.

    >>> place_of("/gpu:0/stream:12")
    Place(host='', kind='GPU', number=0, part='stream:12')
    >>> place_of("/job:worker/replica:0/task:1/device:CPU:0").host
    'worker/1'
    """
    match = _DEVICE.match(name)
    if match is None:
        return None
    job, task = match["job"], match["task"]
    host = f"{job}/{task or 0}" if job and job != _THIS_JOB else ""
    return Place(host, match["kind"].upper(), int(match["number"]), match["part"] or "")


def events_of(lists: Mapping[str, Sequence[Record]], functions: Collection[str] = ()) -> Events:
    """Return the events of all lists, given by name; lists whose name is no device's are left out.

    ``functions`` are the names of functions that the graph holds: in TensorFlow 1 they are the types of their calls.
    """
    placed = {place: records for name, records in lists.items() if (place := place_of(name)) is not None}
    into = Events(hosts=sorted({place.host for place in placed if place.host}))
    accelerators = list(dict.fromkeys(place._replace(part="") for place in sorted(placed) if place.kind != "CPU"))
    into.devices += [ProfiledDevice(place.device, place.host, place.kind) for place in accelerators]
    _add_ops(placed, COMPOSITE | frozenset(functions), into)
    for position, device in enumerate(accelerators):
        _add_device(
            {place.part: placed[place] for place in placed if place._replace(part="") == device}, position, into
        )
    return into


# -- ops ----------------------------------------------------------------------------------------------------------


def _add_ops(placed: Mapping[Place, Sequence[Record]], calls: Collection[str], into: Events) -> None:
    """Add what the hosts executed; these lists know no threads, so records that overlap get one each."""
    used: Counter[str] = Counter()
    for place, records in sorted(placed.items(), key=lambda item: item[0]):
        if place.part:
            continue
        first = used[place.host] + THREADS_OF_A_HOST * (into.hosts.index(place.host) if place.host else 0)
        executed = [record for record in records if record.name not in _NO_OPS]
        for record, thread in _on_threads(record for record in executed if record.op not in calls):
            into.ops.append(_event(record, first + thread))
        used[place.host] += len(records)
        own_ns: Counter[Record] = Counter()
        for record, start_ns, end_ns in _own_of_calls(executed, calls):
            event = _event(record._replace(start_ns=start_ns, end_ns=end_ns), first + len(records))
            into.ops.append(event._replace(resumed=record in own_ns))
            own_ns[record] += end_ns - start_ns
        for record in executed:
            if record.op in calls and record not in own_ns:  # other ops ran all the while: it was seen, for no time
                into.ops.append(_event(record._replace(end_ns=record.start_ns), first + len(records)))
        used[place.host] += 1
        alone = dict.fromkeys(record.name for record, ns in own_ns.items() if ns == record.end_ns - record.start_ns)
        if alone:
            named = ", ".join([*alone][:_NAMES_SHOWN]) + (", …" if len(alone) > _NAMES_SHOWN else "")
            into.notes.append(f"what these calls and loops ran left no records, and counts as their own time: {named}")


def _event(record: Record, thread: int) -> OpEvent:
    duration_ns = record.end_ns - record.start_ns
    return OpEvent(record.name, record.op, record.start_ns, record.end_ns, duration_ns, thread)


def _own_of_calls(executed: Sequence[Record], calls: Collection[str]) -> Iterator[tuple[Record, int, int]]:
    """Yield the stretches in which a call, a branch or a loop was under way and no op was.

    Its record lasts until the function that it runs is done, and the ops of that have records of their own.  Where a
    call runs within another, the stretch is that of the inner one.
    """
    waiting = sorted((record for record in executed if record.op in calls), key=lambda record: record.start_ns)
    busy = list(_merged(record for record in executed if record.op not in calls))
    bounds = [time_ns for record in waiting for time_ns in (record.start_ns, record.end_ns)]
    borders = sorted({*bounds, *(time_ns for stretch in busy for time_ns in stretch)})
    under_way: list[tuple[int, int]] = []  # by falling start
    begun = over = 0
    for start_ns, end_ns in pairwise(borders) if waiting else ():
        while begun < len(waiting) and waiting[begun].start_ns <= start_ns:
            heappush(under_way, (-waiting[begun].start_ns, begun))
            begun += 1
        while over < len(busy) and busy[over][1] <= start_ns:
            over += 1
        while under_way and waiting[under_way[0][1]].end_ns <= start_ns:
            heappop(under_way)
        if under_way and not (over < len(busy) and busy[over][0] <= start_ns):
            yield waiting[under_way[0][1]], start_ns, end_ns


def _merged(records: Iterable[Record]) -> Iterator[tuple[int, int]]:
    """Yield the stretches in which at least one of the records lasts."""
    start_ns = end_ns = None
    for record in sorted(records, key=lambda record: record.start_ns):
        if start_ns is None or end_ns is None or record.start_ns > end_ns:
            if start_ns is not None and end_ns is not None:
                yield start_ns, end_ns
            start_ns, end_ns = record.start_ns, record.end_ns
        else:
            end_ns = max(end_ns, record.end_ns)
    if start_ns is not None and end_ns is not None:
        yield start_ns, end_ns


def _on_threads(records: Iterable[Record]) -> Iterator[tuple[Record, int]]:
    """Yield the records with the first thread that is free when each begins."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    threads = 0
    for record in sorted(records, key=lambda item: (item.start_ns, item.end_ns)):
        while busy and busy[0][0] <= record.start_ns:
            heappush(free, heappop(busy)[1])
        if not free:
            heappush(free, threads)
            threads += 1
        thread = heappop(free)
        heappush(busy, (record.end_ns, thread))
        yield record, thread


# -- accelerators -------------------------------------------------------------------------------------------------


def _add_device(parts: Mapping[str, Sequence[Record]], device: int, into: Events) -> None:
    copies = Counter(map(_identity, parts.get(_COPIES, ())))
    for stream, record in _once(parts):
        if copies[_identity(record)] or is_copy(record.name) or is_copy(record.op):
            into.copies.append(_copy(record, device, stream))
        else:
            into.kernels_on_device.append(_kernel(record, device, stream))


def _identity(record: Record) -> tuple[str, int, int]:
    return record.name, record.start_ns, record.end_ns


def _once(parts: Mapping[str, Sequence[Record]]) -> Iterator[tuple[str, Record]]:
    """Yield every execution once, with its stream."""
    seen: Counter[tuple[str, int, int]] = Counter()
    for stream in sorted(part for part in parts if part not in ("", _ALL_STREAMS, _COPIES)):
        for record in parts[stream]:
            seen[_identity(record)] += 1
            yield stream, record
    for stream in (_ALL_STREAMS, _COPIES):
        here: dict[tuple[str, int, int], int] = defaultdict(int)
        for record in parts.get(stream, ()):
            key = _identity(record)
            here[key] += 1
            if here[key] > seen[key]:
                seen[key] += 1
                yield stream, record


def _kernel(record: Record, device: int, stream: str) -> DeviceEvent:
    cause = record.cause
    node, op = (cause.node, cause.op) if cause.node else (record.name, record.op)
    return DeviceEvent(record.kernel or op, node, op, record.start_ns, record.end_ns, device, stream)


def _copy(record: Record, device: int, stream: str) -> CopyEvent:
    cause = record.cause
    kind = next((name for name in (record.name, record.op) if is_copy(name)), "")
    return CopyEvent(
        copy_direction(kind, record.details) if kind else None,
        cause.node,
        cause.op,
        record.start_ns,
        record.end_ns,
        device,
        stream,
        copied_bytes(record.details),
        cause.src,
        cause.dst,
        cause.edge,
    )
