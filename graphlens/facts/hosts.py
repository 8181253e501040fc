"""A profile of several machines host by host: their programs need not be in step, and their clocks differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.ir.run import Profile, Span, host_of_thread

_ON_THREADS: Final = ("ops", "steps", "executors", "functions", "waits", "kernels", "traces")
_ON_DEVICES: Final = ("kernels_on_device", "copies")


def each(profile: Profile) -> tuple[Profile, ...]:
    """Return one profile per host; devices keep their numbers, those of other hosts show nothing."""
    if len(profile.hosts) < 2:
        return (profile,)
    return tuple(_of_host(profile, position) for position in range(len(profile.hosts)))


def _of_host(profile: Profile, position: int) -> Profile:
    device_hosts = _device_hosts(profile)
    own: dict[str, Any] = {
        name: tuple(event for event in getattr(profile, name) if host_of_thread(event.thread) == position)
        for name in _ON_THREADS
    }
    for name in _ON_DEVICES:
        own[name] = tuple(event for event in getattr(profile, name) if device_hosts[event.device] == position)
    devices = [
        device if host == position else replace(device, steps=())
        for device, host in zip(profile.devices, device_hosts, strict=True)
    ]
    return replace(profile, **own, devices=tuple(devices), hosts=(profile.hosts[position],))


def in_turn(profile: Profile) -> Profile:
    """Return the profile with its hosts laid one after the other in time: no step of one overlaps one of another."""
    if len(profile.hosts) < 2:
        return profile
    length_ns = _length_ns(profile)
    device_hosts = _device_hosts(profile)
    moved: dict[str, Any] = {
        name: [_later(event, host_of_thread(event.thread) * length_ns) for event in getattr(profile, name)]
        for name in _ON_THREADS
    }
    for name in _ON_DEVICES:
        moved[name] = [_later(event, device_hosts[event.device] * length_ns) for event in getattr(profile, name)]
    devices = [
        replace(device, steps=tuple(_later(step, host * length_ns) for step in device.steps))
        for device, host in zip(profile.devices, device_hosts, strict=True)
    ]
    ordered: dict[str, Any] = {
        name: tuple(sorted(events, key=lambda event: event.start_ns)) for name, events in moved.items()
    }
    return replace(profile, **ordered, devices=tuple(devices))


def _device_hosts(profile: Profile) -> Sequence[int]:
    """Return the position of each device's host; a device that names none is the first one's."""
    positions = {host: position for position, host in enumerate(profile.hosts)}
    return [positions.get(device.host, 0) for device in profile.devices]


def _later(event: Any, ns: int) -> Any:
    return event._replace(start_ns=event.start_ns + ns, end_ns=event.end_ns + ns) if ns else event


def _length_ns(profile: Profile) -> int:
    """Return a time that is longer than what the profile covers."""
    kinds = [getattr(profile, name) for name in (*_ON_THREADS, *_ON_DEVICES)]
    spans: list[Span] = [event for events in kinds for event in events]
    spans += [step for device in profile.devices for step in device.steps]
    if not spans:
        return 0
    return max(span.end_ns for span in spans) - min(span.start_ns for span in spans) + 1
