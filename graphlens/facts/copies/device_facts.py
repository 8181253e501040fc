"""The devices of the profile: what each did, when it computed within the steps, and which of them did the work."""

from __future__ import annotations

from collections.abc import Mapping

from graphlens.facts.clock import device_time, devices
from graphlens.facts.clock.device_time import Busy, DeviceUse, Windows
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.ir.devices import DeviceRow, Distribution
from graphlens.ir.run import Profile


@fact
def device_rows(facts: Facts) -> tuple[DeviceRow, ...]:
    """The accelerators of the profile with what each did; the idle ones too."""
    return devices.device_rows(facts(judged_profile))


@fact
def distribution(facts: Facts) -> Distribution | None:
    """Hosts and replicas, and which of the devices did the work; ``None`` where there is nothing to compare."""
    return devices.distribution(facts.evidence.profile, facts(device_rows))


@fact
def device_busy(facts: Facts) -> Mapping[int, Busy]:
    """When each device of the profile computed, by its number; absent when it ran no kernel."""
    return device_time.busy_of(facts.evidence.profile or Profile())


@fact
def device_running(facts: Facts) -> Mapping[int, Busy]:
    """When each device of the profile was within a kernel, be it one that waits; absent when it ran none."""
    return device_time.running_of(facts.evidence.profile or Profile())


@fact
def device_windows(facts: Facts) -> Mapping[int, Windows]:
    """The steps of each device of the profile, by its number."""
    return device_time.windows_of(facts(judged_profile) or Profile())


@fact
def device_uses(facts: Facts) -> tuple[DeviceUse, ...]:
    """What the accelerators that ran kernels did in a typical step; none where no step is marked."""
    profile = facts(judged_profile) or Profile()
    return device_time.device_uses(profile, facts(device_busy), facts(device_running), facts(device_windows))
