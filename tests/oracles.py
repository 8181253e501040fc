"""Second, naive readers of the file formats: they share no code, no schema and no idea with ``graphlens.loaders``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator


def walk(data: bytes) -> Iterator[tuple[int, object]]:
    """Yield ``(field number, value)`` of a protobuf message; sub-messages and texts stay bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
        elif kind == 2:
            size = varint()
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            size = 8 if kind == 1 else 4
            yield tag >> 3, int.from_bytes(data[at : at + size], "little")
            at += size


def only(data: bytes, number: int) -> list:
    """Return the values of one field."""
    return [value for found, value in walk(data) if found == number]


# -- graphs -------------------------------------------------------------------------------------------------------


def saved_model_graphs(saved_model: bytes) -> list[bytes]:
    """Return the serialized ``GraphDef`` of every meta graph."""
    return [only(meta_graph, 2)[0] for meta_graph in only(saved_model, 2)]


def node_counts(graph_def: bytes) -> tuple[int, int, int]:
    """Return the numbers of main nodes, of nodes in functions, and of functions."""
    functions = [function for library in only(graph_def, 2) for function in only(library, 1)]
    return len(only(graph_def, 1)), sum(len(only(function, 3)) for function in functions), len(functions)


def tensor_bytes(graph_def: bytes) -> list[int]:
    """Return the sizes of all ``tensor_content`` of the graph's nodes, functions included."""
    functions = [function for library in only(graph_def, 2) for function in only(library, 1)]
    nodes = only(graph_def, 1) + [node for function in functions for node in only(function, 3)]
    values = [value for node in nodes for entry in only(node, 5) for value in only(entry, 2)]
    return [len(content) for value in values for tensor in only(value, 8) for content in only(tensor, 4)]


# -- profiles -----------------------------------------------------------------------------------------------------


def signed(value: int) -> int:
    """Two's complement of a 64-bit varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def host_lines(profile: bytes) -> list[list[tuple[str, int, int]]]:
    """Return per line of the host plane its events as ``(name, start ps, end ps)``."""
    lines = []
    for plane in only(profile, 1):
        if only(plane, 2) != [b"/host:CPU"]:
            continue
        names = {}
        for entry in only(plane, 4):
            meta = only(entry, 2)[0]
            names[only(entry, 1)[0]] = b"".join(only(meta, 2)).decode()
        for line in only(plane, 3):
            origin = (only(line, 3) or [0])[0] * 1000
            events = []
            for event in only(line, 4):
                fields = dict(walk(event))
                start = origin + signed(fields.get(2, 0))
                events.append((names.get(fields.get(1, 0), ""), start, start + fields.get(3, 0)))
            lines.append(events)
    return lines


NO_OP = ("::", "ThreadpoolListener", "EagerLocalExecute: ", "KernelAndDeviceFunc", ".py", "end: ", " ", "$")


def is_op(name: str) -> bool:
    """The rule of thumb: a name with a colon that none of the runtime's own events match."""
    node, colon, op = name.rpartition(":")
    return bool(colon and node and op) and not any(mark in name for mark in NO_OP)


def op_totals_ps(profile: bytes) -> dict[str, tuple[int, int]]:
    """Return ``event name -> (events, summed duration)`` of all ops."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in host_lines(profile):
        for name, start, end in line:
            if is_op(name):
                totals[name][0] += 1
                totals[name][1] += end - start
    return {name: (count, total) for name, (count, total) in totals.items()}


def self_totals_ps(profile: bytes) -> dict[str, int]:
    """Return ``event name -> summed self time``, comparing each event with each other one of its line."""
    totals: dict[str, int] = defaultdict(int)
    for line in host_lines(profile):
        timed = [event for event in line if is_op(event[0]) or event[0] == "ExecutorState::ProcessAsync::Done"]
        for name, start, end in timed:
            inner = [other for other in timed if _inside(other, (name, start, end))]
            outermost = [one for one in inner if not any(_inside(one, other) for other in inner)]
            if is_op(name):
                totals[name] += end - start - sum(other[2] - other[1] for other in outermost)
    return dict(totals)


def allocations_by_op(profile: bytes) -> Counter[str]:
    """Return node -> its memory events; only the allocator of oneDNN leaves any, for tensors of 256 KiB and more."""
    found: Counter[str] = Counter()
    for plane in only(profile, 1):
        if only(plane, 2) != [b"/host:CPU"]:
            continue
        statistic = {key: b"".join(only(meta, 2)) for entry in only(plane, 5) for key, meta in [_entry(entry)]}
        for event in (event for line in only(plane, 3) for event in only(line, 4)):
            for stat in map(dict, map(walk, only(event, 4))):
                if statistic.get(stat[1]) == b"tf_op":
                    found[(stat.get(5) or statistic[stat[7]]).decode()] += 1
    return found


def allocated_peaks(profile: bytes, step: str) -> list[tuple[int, str]]:
    """Return per marker ``step`` the most bytes that were allocated in it and not yet freed, and for which op."""
    memory: list[tuple[int, int, int, str]] = []  # time in ps, address, bytes (negative: freed), op
    for plane in only(profile, 1):
        events, stats = _names(plane, 4), _names(plane, 5)
        for name, at, _, said in (
            _event(event, line, events, stats) for line in only(plane, 3) for event in only(line, 4)
        ):
            if name in ("MemoryAllocation", "MemoryDeallocation"):
                sign = 1 if name == "MemoryAllocation" else -1
                memory.append((at, int(said["addr"]), sign * int(said["requested_bytes"]), str(said.get("tf_op", ""))))
    marks = [(start, end) for line in host_lines(profile) for name, start, end in line if name == step]
    return [_highest([one for one in sorted(memory) if start <= one[0] < end]) for start, end in sorted(marks)]


def _highest(memory: list[tuple[int, int, int, str]]) -> tuple[int, str]:
    """Return the highest sum of what is alive; what was allocated before the step is not counted when it is freed."""
    alive: dict[int, int] = {}
    peak, at = 0, ""
    for _, address, size, op in memory:
        if size > 0:
            alive[address] = size
        else:
            alive.pop(address, None)
        if sum(alive.values()) > peak:
            peak, at = sum(alive.values()), op
    return peak, at


def _entry(entry: bytes) -> tuple[int, bytes]:
    """Return key and value of a protobuf map's entry."""
    return only(entry, 1)[0], only(entry, 2)[0]


def _inside(inner: tuple[str, int, int], outer: tuple[str, int, int]) -> bool:
    return inner != outer and outer[1] <= inner[1] and inner[2] <= outer[2]


def device_lines(profile: bytes) -> dict[str, dict[str, list[tuple[str, int, int, dict[str, object]]]]]:
    """Return plane -> line -> ``(name, start ps, end ps, statistics)`` of every plane of a device."""
    found: dict[str, dict[str, list[tuple[str, int, int, dict[str, object]]]]] = {}
    for plane in only(profile, 1):
        name = b"".join(only(plane, 2)).decode()
        if name.startswith("/device:"):
            events, stats = _names(plane, 4), _names(plane, 5)
            found[name] = {
                b"".join(only(line, 2)).decode(): [_event(event, line, events, stats) for event in only(line, 4)]
                for line in only(plane, 3)
            }
    return found


def _names(plane: bytes, number: int) -> dict[int, str]:
    return {
        dict(walk(entry)).get(1, 0): b"".join(only(only(entry, 2)[0], 2)).decode("utf-8", "replace")
        for entry in only(plane, number)
    }


def _event(
    event: bytes, line: bytes, names: dict[int, str], stat_names: dict[int, str]
) -> tuple[str, int, int, dict[str, object]]:
    fields = dict(walk(event))
    start = (only(line, 3) or [0])[0] * 1000 + signed(fields.get(2, 0))
    stats = _statistics(only(event, 4), stat_names)
    return names.get(fields.get(1, 0), ""), start, start + fields.get(3, 0), stats


def statistics_of_names(profile: bytes) -> dict[str, dict[str, dict[str, object]]]:
    """Return plane -> name of events -> the statistics that all of them share."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for plane in only(profile, 1):
        stat_names = _names(plane, 5)
        metas = [only(entry, 2)[0] for entry in only(plane, 4)]
        found[b"".join(only(plane, 2)).decode()] = {
            b"".join(only(meta, 2)).decode("utf-8", "replace"): _statistics(only(meta, 5), stat_names) for meta in metas
        }
    return found


def _statistics(stats: list[bytes], stat_names: dict[int, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for stat in stats:
        parts = dict(walk(stat))
        if 7 in parts:
            value: object = stat_names[parts[7]]
        elif 5 in parts:
            value = parts[5].decode()
        else:
            value = parts.get(4, parts.get(3, parts.get(2)))
        found[stat_names[parts.get(1, 0)]] = value
    return found
