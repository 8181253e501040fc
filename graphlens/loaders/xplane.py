"""XPlane bytes to a ``Profile``: which plane is read by whom."""

from __future__ import annotations

import re
from typing import Any

from graphlens.errors import TargetError
from graphlens.ir.run import Profile
from graphlens.loaders.device_planes import is_device_plane, read_device
from graphlens.loaders.events import Events
from graphlens.loaders.host_plane import HOST_PLANE, read_host
from graphlens.loaders.schema import xspace

_DROPPED = re.compile(r"(\d+)\D{0,40}(?:dropped|lost)|(?:dropped|lost)\D{0,40}(\d+)", re.IGNORECASE)


def read_profile(data: bytes) -> Profile:
    """Return the events of the profile ``data`` (a serialized ``XSpace``).

    Raises
    ------
    TargetError
        When ``data`` is damaged or is no profile.
    """
    space = _parse(data)
    if not space.planes:
        raise TargetError("the profile holds no planes; nothing was recorded, profile again")
    into = Events(dropped=_dropped(space))
    host = next(iter(space.hostnames), "")
    into.hosts += [host] if host else []
    for plane in space.planes:
        if plane.name == HOST_PLANE:
            read_host(plane, into)
        elif is_device_plane(plane.name):
            read_device(plane, host, into)
    return into.profile()


def _parse(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return xspace().FromString(data)
    except DecodeError as error:
        raise TargetError(f"the profile is damaged ({str(error).splitlines()[0]}); record it again") from error


def _dropped(space: Any) -> int:
    found = (_DROPPED.search(text) for text in (*space.errors, *space.warnings))
    return sum(int(match.group(1) or match.group(2)) for match in found if match)
