"""The profiles of several hosts: what the hosts are called, and the parts and files that hold their profiles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from graphlens.errors import TargetError
from graphlens.loaders import wire
from graphlens.loaders.capture.parts import PROFILES_FOLDER

PROFILE_SUFFIX: Final = ".xplane.pb"

_HOSTNAMES: Final = 4  # the number of the field in an XSpace


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


def by_host(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return host -> profile for file stem -> profile.

    Hosts are called as they call themselves; after their files where two tasks ran on one machine, or one does not say.
    """
    named = {hostname_of(profile): profile for profile in files.values()}
    return named if len(named) == len(files) and "" not in named else dict(files)


def _fields(message: bytes) -> Iterator[wire.Field]:
    try:
        yield from wire.fields(message)
    except wire.WireError as error:
        raise TargetError(f"the profile is damaged ({error}); record it again") from error
