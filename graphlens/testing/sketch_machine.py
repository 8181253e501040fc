"""What a sketch says of the machine that it ran on: its roof, its memory, what its processor and its GPUs can do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from graphlens.ir.devices import Roof

# The settings that describe the machine, and how each is written.
MACHINE: Final[Mapping[str, re.Pattern[str]]] = {
    "roof": re.compile(r"(?P<flops>\d+) GFLOP/s (?P<bytes>\d+) GB/s( @(?P<device>\w+:\d+))?"),
    "cpu": re.compile(r"(?P<features>[a-z0-9_]+( [a-z0-9_]+)*)"),
    "memory": re.compile(r"(?P<mib>\d+) MiB"),
    "assume": re.compile(r"(?P<model>[A-Z]\d+)"),
    "gpu": re.compile(r"(?P<major>\d+)\.(?P<minor>\d+)( (?P<mib>\d+) MiB)?"),
}


def is_machine(key: str, value: str) -> bool:
    """Tell whether ``key: value`` is a setting of this module, written as it has to be."""
    return key in MACHINE and MACHINE[key].fullmatch(value) is not None


def roof_of(settings: Mapping[str, str]) -> Roof | None:
    """Return the roof that is written, on the processor unless another device is."""
    said = _read("roof", settings)
    if said is None:
        return None
    return Roof(int(said["flops"]) * 1e9, int(said["bytes"]) * 1e9, device=said["device"] or "CPU:0")


def environment_of(settings: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what the recorder would have written down of the processor and its memory."""
    cpu, memory = _read("cpu", settings), _read("memory", settings)
    found: dict[str, Any] = {}
    if cpu is not None:
        found["cpu_features"] = cpu["features"].split()
    if memory is not None:
        found["memory_bytes"] = int(memory["mib"]) << 20
    return found


def gpu_properties_of(settings: Mapping[str, str]) -> Mapping[str, object]:
    """Return what a profile says of each of its GPUs, in the profiler's words."""
    gpu = _read("gpu", settings)
    if gpu is None:
        return {}
    capability: dict[str, object] = {"compute_cap_major": int(gpu["major"]), "compute_cap_minor": int(gpu["minor"])}
    return capability if gpu["mib"] is None else {**capability, "memory_size": int(gpu["mib"]) << 20}


def _read(key: str, settings: Mapping[str, str]) -> re.Match[str] | None:
    return MACHINE[key].fullmatch(settings.get(key, ""))
