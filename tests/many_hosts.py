"""Writes the profiles of many workers, made from one that was recorded: clocks and speeds shifted, one of them slowed.

What a worker does between two exchanges takes it as much longer as it is slower; an exchange ends for all of them as
long after the last one has got there as it took in the recording.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphlens.loaders.capture import reading
from graphlens.loaders.schema import xspace

RECORDED = Path(__file__).parents[1] / "fixtures" / "replicas" / "workers.capture"
RUN = "2026_01_02_03_04_05"  # as TensorFlow names the folder of one recording
SPREAD = 0.02  # how far the speeds of hosts differ that nothing is wrong with
CLOCKS_NS = 40_000_000  # how far clocks differ
_COLLECTIVE = "CollectiveReduceV2"
_HOST_PLANE = "/host:CPU"
_LINKS = ("_p", "_c", "id", "parent_id", "step_id", "instance_key")


class Exchange(NamedTuple):
    """When a worker reached an exchange, and when that ended, in nanoseconds; what it costs is known from the last."""

    reached_ns: int
    end_ns: int
    cost_ns: int


class Hosts(NamedTuple):
    """What was written: the names of hosts, and for each when it reached each exchange and when all left it."""

    names: list[str]
    reached_ns: np.ndarray  # hosts x exchanges
    ends_ns: np.ndarray


def write(folder: Path, hosts: int, slow: int, *, slower: float = 1.5, repeats: int = 1, seed: int = 0) -> Hosts:
    """Write ``folder/plugins/profile/RUN/worker-000.xplane.pb`` and so on; ``slow`` is slower by a factor.

    What was recorded is written ``repeats`` times, one after the other.
    """
    space = _recorded()
    plane = next(plane for plane in space.planes if plane.name == _HOST_PLANE)
    exchanges = _repeated(plane, _exchanges(plane), repeats)
    rng = random.Random(seed)
    factors = [slower if host == slow else 1 + rng.uniform(-SPREAD, SPREAD) for host in range(hosts)]
    reached_ns, ends_ns = _laid_out(exchanges, factors)
    into = folder / "plugins" / "profile" / RUN
    into.mkdir(parents=True)
    names = [f"worker-{host:04}" for host in range(hosts)]
    starts = [np.array([event.offset_ps for event in line.events], np.int64) for line in plane.lines]
    lengths = [np.array([event.duration_ps for event in line.events], np.int64) for line in plane.lines]
    began = [line.timestamp_ns for line in plane.lines]
    for host, name in enumerate(names):
        clock_ns = rng.randrange(-CLOCKS_NS, CLOCKS_NS)
        before = np.array([moment for one in exchanges for moment in (one.reached_ns, one.end_ns)], float)
        after = np.array([moment for both in zip(reached_ns[host], ends_ns, strict=True) for moment in both], float)
        for line, start_ps, length_ps, begun_ns in zip(plane.lines, starts, lengths, began, strict=True):
            line.timestamp_ns = began[0] + clock_ns
            first = _warped(begun_ns + start_ps / 1000, before, after, factors[host])
            last = _warped(begun_ns + (start_ps + length_ps) / 1000, before, after, factors[host])
            moved = np.rint((first - began[0]) * 1000).astype(np.int64).tolist()
            lasting = np.maximum(0, np.rint((last - first) * 1000)).astype(np.int64).tolist()
            for event, offset_ps, duration_ps in zip(line.events, moved, lasting, strict=True):
                event.offset_ps, event.duration_ps = offset_ps, duration_ps
        del space.hostnames[:]
        space.hostnames.append(name)
        (into / f"{name}.xplane.pb").write_bytes(space.SerializeToString())
    return Hosts(names, reached_ns, ends_ns)


def _warped(moments: np.ndarray, before: np.ndarray, after: np.ndarray, factor: float) -> np.ndarray:
    """Return moments of the recording on the clock of a host: between exchanges in proportion, else by its speed."""
    inside = np.interp(moments, before, after)
    early, late = moments < before[0], moments > before[-1]
    inside[early] = after[0] - (before[0] - moments[early]) * factor
    inside[late] = after[-1] + (moments[late] - before[-1]) * factor
    return inside


def _recorded() -> Any:
    capture = reading.open_capture(RECORDED)
    (part, *_) = sorted(reading.profile_parts(capture).values())
    space = xspace().FromString(capture.part(part))
    kept = [plane for plane in space.planes if plane.name == _HOST_PLANE]
    lone = xspace()()
    lone.planes.add().CopyFrom(kept[0])
    earliest_ns = min(line.timestamp_ns for line in lone.planes[0].lines)
    for line in lone.planes[0].lines:  # all lines count from one moment, as small numbers keep all their digits
        line.timestamp_ns -= earliest_ns
    return lone


def _exchanges(plane: Any) -> list[Exchange]:
    """Return the exchanges of one worker whose start and end are known, without any that another overlaps."""
    names = {key: meta.name for key, meta in plane.stat_metadata.items()}
    starts, found = {}, []
    events = [(line.timestamp_ns, event) for line in plane.lines for event in line.events]
    for suffix in ("ProcessAsync::Start", "ProcessAsync::Done"):
        for begun_ns, event in events:
            if not plane.event_metadata[event.metadata_id].name.endswith(suffix):
                continue
            stats = {names[stat.metadata_id]: stat for stat in event.stats}
            kind = stats.get("kernel_type")
            now = begun_ns + event.offset_ps / 1000
            if suffix.endswith("Start") and kind is not None and _text(kind, names) == _COLLECTIVE:
                starts[_number(stats["_p"])] = now
            elif suffix.endswith("Done") and "_c" in stats and _number(stats["_c"]) in starts:
                found.append((starts[_number(stats["_c"])], now))
    found.sort()
    apart = [one for one, after in zip(found, [*found[1:], (float("inf"), 0)], strict=True) if one[1] <= after[0]]
    least = min(end - start for start, end in apart)
    return [Exchange(round(start), round(end), round(least)) for start, end in apart]


def _repeated(plane: Any, exchanges: Sequence[Exchange], repeats: int) -> list[Exchange]:
    """Append what was recorded to itself, with numbers of its own in each repetition, and return all exchanges."""
    names = {key: meta.name for key, meta in plane.stat_metadata.items()}
    length_ns = (
        round(
            max(
                line.timestamp_ns + (event.offset_ps + event.duration_ps) / 1000
                for line in plane.lines
                for event in line.events
            )
        )
        + 1_000_000
    )
    for line in plane.lines:
        own = list(line.events)
        for repeat in range(1, repeats):
            for event in own:
                copy = line.events.add()
                copy.CopyFrom(event)
                copy.offset_ps += repeat * length_ns * 1000
                for stat in copy.stats:
                    if names[stat.metadata_id] in _LINKS:
                        _renumber(stat, repeat * 100_003)
    return [
        Exchange(one.reached_ns + repeat * length_ns, one.end_ns + repeat * length_ns, one.cost_ns)
        for repeat in range(repeats)
        for one in exchanges
    ]


def _renumber(stat: Any, by: int) -> None:
    which = stat.WhichOneof("value")
    bits = 64 if which == "uint64_value" else 63
    value = getattr(stat, which)
    moved = (value + by) % (1 << bits) if value >= 0 else -((-value + by) % (1 << 63))
    setattr(stat, which, moved)


def _number(stat: Any) -> int:
    return int(getattr(stat, stat.WhichOneof("value")))


def _text(stat: Any, names: Any) -> str:
    value = getattr(stat, stat.WhichOneof("value"))
    return names[value] if isinstance(value, int) else value


def _laid_out(exchanges: Sequence[Exchange], factors: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return when each host reaches each exchange, and when that ends for all of them."""
    reached = np.zeros((len(factors), len(exchanges)), np.int64)
    ends = np.zeros(len(exchanges), np.int64)
    speeds = np.array(factors)
    ended, recorded_end = exchanges[0].reached_ns, exchanges[0].reached_ns - 1_000_000
    for number, one in enumerate(exchanges):
        reached[:, number] = ended + np.rint(speeds * (one.reached_ns - recorded_end)).astype(np.int64)
        ended = ends[number] = int(reached[:, number].max()) + one.cost_ns
        recorded_end = one.end_ns
    return reached, ends
