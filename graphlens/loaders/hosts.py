"""The profiles of several hosts in one capture: their names, their parts, and one profile of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.run import THREADS_OF_A_HOST, Profile
from graphlens.loaders import wire
from graphlens.loaders.parts import PROFILES_FOLDER

PROFILE_SUFFIX: Final = ".xplane.pb"

# Field numbers of XSpace and XPlane, and where a profile says when it was started.
_PLANES, _HOSTNAMES, _NAME = 1, 4, 2
_ENVIRONMENT_PLANE: Final = b"Task Environment"
_START_STAT: Final = "profile_start_time"

_ON_THREADS: Final = ("ops", "steps", "executors", "functions", "waits", "kernels", "traces")
_ON_DEVICES: Final = ("kernels_on_device", "copies")


def part_of(host: str) -> str:
    """Return the part that holds the profile of ``host``, named as TensorFlow names such files.

    >>> part_of("10.0.0.3:6009")
    'profiles/10.0.0.3_6009.xplane.pb'
    """
    return f"{PROFILES_FOLDER}{file_stem(host)}{PROFILE_SUFFIX}"


def file_stem(host: str) -> str:
    """Return the name of a host as a part of a file name that is valid everywhere."""
    return re.sub(r"[^\w.-]", "_", host) or "_"


def hostname_of(profile: bytes) -> str:
    """Return the name of the machine that a serialized profile comes from, empty when it does not say."""
    names = (field.value for field in _fields(profile) if field.number == _HOSTNAMES)
    return next((name.decode("utf-8", "replace") for name in names if isinstance(name, bytes)), "")


def read_hosts(profiles: Mapping[str, bytes]) -> Profile:
    """Return host -> serialized profile as one profile: on one clock, threads and devices numbered apart.

    The clock is the machines' own; how far theirs are apart from each other no profile says.

    Raises
    ------
    TargetError
        When one of them is damaged or is no profile.
    """
    from graphlens.loaders.xplane import read_profile

    starts_ns = {host: started_ns(data) for host, data in profiles.items()}
    first_ns = min((ns for ns in starts_ns.values() if ns is not None), default=0)
    return _merged(
        {host: _later(read_profile(data), (starts_ns[host] or first_ns) - first_ns) for host, data in profiles.items()}
    )


def started_ns(profile: bytes) -> int | None:
    """Return when a profile was started, on the clock of its machine; ``None`` when it does not say."""
    from graphlens.loaders.schema import xspace

    space = xspace()()
    for field in _fields(profile):
        if (
            field.number == _PLANES
            and isinstance(field.value, bytes)
            and _plane_name(field.value) == _ENVIRONMENT_PLANE
        ):
            space.planes.add().MergeFromString(field.value)
    for plane in space.planes:
        for stat in plane.stats:
            if plane.stat_metadata[stat.metadata_id].name == _START_STAT:
                return int(stat.uint64_value or stat.int64_value) or None
    return None


def _plane_name(plane: bytes) -> bytes:
    named = (field.value for field in _fields(plane) if field.number == _NAME)
    return next((name for name in named if isinstance(name, bytes)), b"")


def _fields(message: bytes) -> Iterator[wire.Field]:
    try:
        yield from wire.fields(message)
    except wire.WireError as error:
        raise TargetError(f"the profile is damaged ({error}); record it again") from error


# -- one profile of several ---------------------------------------------------------------------------------------


def _later(profile: Profile, ns: int) -> Profile:
    """Return ``profile`` with all its events moved by ``ns``."""
    moved: dict[str, Any] = {
        name: tuple(
            event._replace(start_ns=event.start_ns + ns, end_ns=event.end_ns + ns) for event in getattr(profile, name)
        )
        for name in (*_ON_THREADS, *_ON_DEVICES)
    }
    return replace(profile, **moved)


def _merged(profiles: Mapping[str, Profile]) -> Profile:
    merged: dict[str, list[Any]] = {name: [] for name in (*_ON_THREADS, *_ON_DEVICES, "devices", "notes")}
    for position, (host, profile) in enumerate(profiles.items()):
        for name in _ON_THREADS:
            merged[name] += [
                event._replace(thread=event.thread + position * THREADS_OF_A_HOST) for event in getattr(profile, name)
            ]
        for name in _ON_DEVICES:
            merged[name] += [
                event._replace(device=event.device + len(merged["devices"])) for event in getattr(profile, name)
            ]
        merged["devices"] += [replace(device, host=host) for device in profile.devices]
        merged["notes"] += [f"{host}: {note}" for note in profile.notes]
    for name in (*_ON_THREADS, *_ON_DEVICES):
        merged[name].sort(key=attrgetter("start_ns"))
    dropped = sum(profile.dropped for profile in profiles.values())
    return Profile(**{name: tuple(events) for name, events in merged.items()}, dropped=dropped, hosts=tuple(profiles))
