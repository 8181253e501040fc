"""XPlane bytes to a ``Profile``: which plane is read by whom, and how the files of several hosts become one profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from graphlens.errors import TargetError
from graphlens.ir.run import THREADS_OF_A_HOST, Profile
from graphlens.loaders.device_planes import is_device_plane, read_device
from graphlens.loaders.events import Events
from graphlens.loaders.host_plane import HOST_PLANE, read_host
from graphlens.loaders.schema import xspace

_DROPPED = re.compile(r"(\d+)\D{0,40}(?:dropped|lost)|(?:dropped|lost)\D{0,40}(\d+)", re.IGNORECASE)

_ENVIRONMENT_PLANE: Final = "Task Environment"
_STARTED: Final = "profile_start_time"  # nanoseconds since 1970, by the host's own clock; times of planes count from it

SKEW_UNKNOWN: Final = (
    "the clocks of {count} hosts are compared as they are: how far they differ is not known, so what happened at the "
    "same time on two of them may be off by that"
)
START_UNKNOWN: Final = (
    "the profile does not say when each of its {count} hosts began: they are laid on one clock as if at the same time"
)


class HostFile(NamedTuple):
    """The profile of one host: the name of its file without suffix, and its bytes."""

    name: str
    data: bytes


def read_profile(data: bytes) -> Profile:
    """Return the events of the profile ``data`` (a serialized ``XSpace``).

    Raises
    ------
    TargetError
        When ``data`` is damaged or is no profile.
    """
    return read_profiles([HostFile("", data)])


def read_profiles(files: Iterable[HostFile]) -> Profile:
    """Return one profile of all ``files``, one per host.

    Threads are numbered apart (``ir.run.host_of_thread``); times are laid on one clock by the moments at which the
    hosts say they began.

    Raises
    ------
    TargetError
        When a file is damaged or is no profile; the message names it where there are several.
    """
    spaces = [(file.name, _parse(file)) for file in files]
    hosts = _host_names(spaces)
    started = [_started_ns(space) for _, space in spaces]
    known = [moment for moment in started if moment is not None]
    shifts = [moment - min(known) for moment in known] if len(known) == len(spaces) else [0] * len(spaces)
    into = Events(hosts=[host for host in hosts if host])
    for position, (host, shift_ns) in enumerate(zip(hosts, shifts, strict=True)):
        into.first_thread, into.shift_ns = position * THREADS_OF_A_HOST, shift_ns
        _read_space(spaces[position][1], host, into)
        spaces[position] = ("", None)  # hundreds of megabytes that nobody needs any more
    if len(hosts) > 1:
        into.notes.append((SKEW_UNKNOWN if len(known) == len(hosts) else START_UNKNOWN).format(count=len(hosts)))
    return into.profile()


def _read_space(space: Any, host: str, into: Events) -> None:
    into.dropped += _dropped(space)
    for plane in space.planes:
        if plane.name == HOST_PLANE:
            read_host(plane, into)
        elif is_device_plane(plane.name):
            read_device(plane, host, into)


def _parse(file: HostFile) -> Any:
    from google.protobuf.message import DecodeError

    which = f"the profile '{file.name}'" if file.name else "the profile"
    try:
        space = xspace().FromString(file.data)
    except DecodeError as error:
        raise TargetError(f"{which} is damaged ({str(error).splitlines()[0]}); record it again") from error
    if not space.planes:
        raise TargetError(f"{which} holds no planes; nothing was recorded, profile again")
    return space


def _host_names(spaces: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the names that the hosts give themselves; those of the files where two tasks ran on one machine."""
    own = [next(iter(space.hostnames), "") for _, space in spaces]
    if len(set(own)) == len(own) and all(own):
        return own
    return own if len(own) == 1 else [name or f"host {position}" for position, (name, _) in enumerate(spaces)]


def _started_ns(space: Any) -> int | None:
    """Return when the profile of a host began by its own clock."""
    for plane in space.planes:
        if plane.name == _ENVIRONMENT_PLANE:
            for stat in plane.stats:
                if plane.stat_metadata[stat.metadata_id].name == _STARTED:
                    return int(stat.uint64_value or stat.int64_value) or None
    return None


def _dropped(space: Any) -> int:
    found = (_DROPPED.search(text) for text in (*space.errors, *space.warnings))
    return sum(int(match.group(1) or match.group(2)) for match in found if match)
