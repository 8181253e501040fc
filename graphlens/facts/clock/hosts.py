"""A profile of several machines one by one: their programs need not be in step, and their clocks differ.

So do the devices of one machine that run their programs by themselves, as TPUs do: each has steps of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from graphlens.ir.run import Profile, host_of_thread

if TYPE_CHECKING:
    from graphlens.ir.columns import Ints

# Beside ops and executors, of which there are many.
_ON_THREADS: Final = ("steps", "functions", "waits", "kernels", "executions", "marks", "collectives", "fetches")


class _Places(NamedTuple):
    """The parts of a profile that have steps of their own, and to which of them a host or a device belongs."""

    names: Sequence[str]
    of_host: Mapping[int, int]
    of_device: Sequence[int]


def has_own_steps(profile: Profile) -> bool:
    """Tell whether the steps are those of single devices: they report the runs of their programs, the host no steps."""
    return not profile.steps and any(run.device is not None for run in profile.runs)


def each(profile: Profile) -> tuple[Profile, ...]:
    """Return one profile per host, or per device where those have steps of their own.

    Devices keep their numbers; those of other profiles show nothing.
    """
    places = _places(profile)
    if len(places.names) < 2:
        return (profile,)
    return tuple(_of_place(profile, places, position) for position in range(len(places.names)))


def _places(profile: Profile) -> _Places:
    hosts = _device_hosts(profile)
    if not has_own_steps(profile):
        return _Places(profile.hosts, {position: position for position in range(len(profile.hosts))}, hosts)
    several = len(profile.hosts) > 1
    names = [f"{device.host} {device.name}" if several else device.name for device in profile.devices]
    first = {host: hosts.index(host) for host in hosts}  # what the host itself did is seen with its first device
    return _Places(names, {host: first.get(host, 0) for host in range(len(profile.hosts))}, range(len(names)))


def _of_place(profile: Profile, places: _Places, position: int) -> Profile:
    own: dict[str, Any] = {
        name: tuple(event for event in getattr(profile, name) if _of_thread(places, event.thread) == position)
        for name in _ON_THREADS
    }
    for name, events, place in _many(profile, places):
        own[name] = events.where(place == position)
    copies = tuple(copy for copy in profile.copies if places.of_device[copy.device] == position)
    devices = [
        device if place == position else replace(device, steps=())
        for device, place in zip(profile.devices, places.of_device, strict=True)
    ]
    return replace(profile, **own, copies=copies, devices=tuple(devices), hosts=(places.names[position],))


def _many(profile: Profile, places: _Places) -> Iterator[tuple[str, Any, Ints]]:
    """Yield the events of which there may be a million: what they are called, they, and the part that each is of."""
    from graphlens.ir.columns import DeviceEvents, OpEvents, Spans  # need numpy, which graphs alone do not

    for name, on_threads in (("ops", OpEvents.of(profile.ops)), ("executors", Spans.of(profile.executors))):
        yield name, on_threads, on_threads.of_threads(lambda thread: _of_thread(places, thread))
    kernels = DeviceEvents.of(profile.kernels_on_device)
    yield "kernels_on_device", kernels, kernels.of_devices(places.of_device)


def _of_thread(places: _Places, thread: int) -> int:
    return places.of_host.get(host_of_thread(thread), 0)


def in_turn(profile: Profile) -> Profile:
    """Return the profile with its parts (as ``each``) laid one after the other in time: no steps of two overlap."""
    places = _places(profile)
    if len(places.names) < 2:
        return profile
    from graphlens.ir.columns import later  # needs numpy, which graphs alone do not

    length_ns = _length_ns(profile, places)
    moved: dict[str, Any] = {
        name: [_later(event, _of_thread(places, event.thread) * length_ns) for event in getattr(profile, name)]
        for name in _ON_THREADS
    }
    moved["copies"] = [_later(event, places.of_device[event.device] * length_ns) for event in profile.copies]
    devices = [
        replace(device, steps=tuple(_later(step, place * length_ns) for step in device.steps))
        for device, place in zip(profile.devices, places.of_device, strict=True)
    ]
    ordered: dict[str, Any] = {
        name: tuple(sorted(events, key=lambda event: event.start_ns)) for name, events in moved.items()
    }
    for name, events, place in _many(profile, places):
        ordered[name] = later(events, place * length_ns)
    return replace(profile, **ordered, devices=tuple(devices))


def _device_hosts(profile: Profile) -> Sequence[int]:
    """Return the position of each device's host; a device that names none is the first one's."""
    positions = {host: position for position, host in enumerate(profile.hosts)}
    return [positions.get(device.host, 0) for device in profile.devices]


def _later(event: Any, ns: int) -> Any:
    return event._replace(start_ns=event.start_ns + ns, end_ns=event.end_ns + ns) if ns else event


def _length_ns(profile: Profile, places: _Places) -> int:
    """Return a time that is longer than what the profile covers."""
    spans: list[Any] = [event for name in _ON_THREADS for event in getattr(profile, name)]
    spans += profile.copies
    spans += [step for device in profile.devices for step in device.steps]
    extents = [(span.start_ns, span.end_ns) for span in spans]
    extents += [
        (int(events.start_ns.min()), int(events.end_ns.max())) for _, events, _ in _many(profile, places) if events
    ]
    return max(end for _, end in extents) - min(start for start, _ in extents) + 1 if extents else 0
