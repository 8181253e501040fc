"""XPlane bytes to a ``Profile``: which plane is read by whom, and how the files of several hosts become one profile."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.run import THREADS_OF_A_HOST, Profile, Run
from graphlens.loaders.device_planes import is_device_plane, read_device
from graphlens.loaders.events import Events, Recorded
from graphlens.loaders.hlo_proto import METADATA_PLANE, read_modules, read_modules_of_host
from graphlens.loaders.host_plane import HOST_PLANE, read_host
from graphlens.loaders.planes import XLA_KERNEL
from graphlens.loaders.schema import xspace_of_bytes

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


def read_profile(data: bytes) -> Profile:
    """Return the events of the profile ``data``, as ``read_recording``.

    Raises
    ------
    TargetError
        When ``data`` is damaged or is no profile.
    """
    return read_recording(data).profile


def read_recording(data: bytes) -> Recorded:
    """Return what ``data`` (a serialized ``XSpace``) of one host holds: events, and the modules of XLA that ran.

    Raises
    ------
    TargetError
        When ``data`` is damaged or is no profile.
    """
    space = _parse(data, "")
    host = next(iter(space.hostnames), "")
    into = Events(hosts=[host] if host else [])
    with _told_as_damaged(""):
        _read_space(space, host, into)
    return Recorded(into.profile(), modules=into.modules)


def read_recordings(profiles: Mapping[str, bytes]) -> Recorded:
    """Return what all hosts recorded in one, given as host -> serialized profile.

    Threads are numbered apart (``ir.run.host_of_thread``); times are laid on one clock by the moments at which the
    hosts say they began, which is each one's own clock.

    Raises
    ------
    TargetError
        When a profile is damaged or is none; the message names its host.
    """
    spaces = {host: _parse(data, host) for host, data in profiles.items()}
    started = [_started_ns(space) for space in spaces.values()]
    known = [moment for moment in started if moment is not None]
    shifts = [moment - min(known) for moment in known] if len(known) == len(spaces) else [0] * len(spaces)
    into = Events(hosts=list(profiles))
    for position, (host, shift_ns) in enumerate(zip(profiles, shifts, strict=True)):
        into.first_thread, into.shift_ns = position * THREADS_OF_A_HOST, shift_ns
        with _told_as_damaged(host):
            _read_space(spaces.pop(host), host, into)
    if len(profiles) > 1:
        into.notes.append((SKEW_UNKNOWN if len(known) == len(started) else START_UNKNOWN).format(count=len(profiles)))
    return Recorded(into.profile(), modules=into.modules)


def _read_space(space: Any, host: str, into: Events) -> None:
    into.dropped += _dropped(space)
    for plane in space.planes:
        if plane.name == HOST_PLANE:
            read_host(plane, into)
        elif is_device_plane(plane.name):
            read_device(plane, host, into)
    # The modules come last: which of them ran is known from the events.
    programs, on_host = _programs(into), {kernel.hlo_module for kernel in into.kernels}
    for plane in space.planes if programs or on_host else ():
        if plane.name == METADATA_PLANE:
            into.modules.update(read_modules(plane, programs))
            into.host_modules.update(read_modules_of_host(plane, on_host))


def _programs(into: Events) -> Collection[str]:
    """Return the programs that devices ran within their steps, as far as their events are called after instructions.

    TensorFlow's are called after its ops where these are known: they are joined to its graphs, and not to XLA's.
    """
    if any(kernel.op != XLA_KERNEL for kernel in into.all_kernels_on_device().kinds):
        return ()
    steps = {number: sorted(device.steps, key=lambda step: step.start_ns) for number, device in enumerate(into.devices)}
    starts = {number: [step.start_ns for step in spans] for number, spans in steps.items()}

    def is_in_step(run: Run) -> bool:
        if run.device is None:
            return False
        index = bisect_right(starts[run.device], run.start_ns) - 1
        return index >= 0 and run.start_ns < steps[run.device][index].end_ns

    return {run.program for run in into.runs if is_in_step(run)}


@contextmanager
def _told_as_damaged(host: str) -> Iterator[None]:
    """Raise what cannot be decoded as an error that says whose profile it is."""
    from google.protobuf.message import DecodeError

    try:
        yield
    except (DecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{_named(host)} is damaged ({str(error).splitlines()[0]}); record it again") from error


def _named(host: str) -> str:
    return f"the profile of {host}" if host else "the profile"


def _parse(data: bytes, host: str) -> Any:
    with _told_as_damaged(host):
        space = xspace_of_bytes().FromString(data)
    if not space.planes:
        raise TargetError(f"{_named(host)} holds no planes; nothing was recorded, profile again")
    return space


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
