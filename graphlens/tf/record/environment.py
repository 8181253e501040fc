"""Where a run takes place: versions, processor, devices and thread settings, as plain JSON values."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from graphlens.tf import private

_FEATURES: Final = frozenset({"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16"})
# What a container may use at most, in the two versions of Linux's control groups.
_MEMORY_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def describe() -> dict[str, Any]:
    """Return the environment of this process; call it after the target was opened, since that may set up devices."""
    return {
        "tensorflow": tf.version.VERSION,
        "tensorflow_git": tf.version.GIT_VERSION,
        "keras": _version_of_loaded("keras"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "cores": usable_cores(),
        "cpu_features": cpu_features(),
        "memory_bytes": memory_bytes(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "device_details": _device_details(),
        "onednn": private.onednn_enabled(),
        **{f"{pool}_threads": size for pool, size in threads().items()},
    }


def threads() -> dict[str, int]:
    """Return the sizes of the thread pools as they were set; 0: TensorFlow chooses."""
    return {
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def set_threads(sizes: Mapping[str, int]) -> None:
    """Set the sizes of thread pools; call it before TensorFlow has run anything."""
    for pool, size in sizes.items():
        getattr(tf.config.threading, f"set_{pool}_parallelism_threads")(size)


def processor() -> str:
    """Return the processor's model name, as far as this system says it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str] | None:
    """Return which of the features that decide how fast products are the processor has, as Linux names them."""
    flags = _cpuinfo("flags")
    return None if flags is None else sorted(_FEATURES.intersection(flags.split()))


def memory_bytes() -> int | None:
    """Return the memory of this machine, or the part of it that this process' group may use."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limits = [_text(file).strip() for file in _MEMORY_LIMITS]
    return min([physical, *(int(limit) for limit in limits if limit.isdigit())])


def _cpuinfo(field: str) -> str | None:
    lines = (line.partition(":") for line in _text("/proc/cpuinfo").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == field), None)


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""


def usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _version_of_loaded(package: str) -> str | None:
    # Only if it is loaded: TensorFlow imports Keras lazily, and importing it just for its version costs a second.
    return getattr(sys.modules.get(package), "__version__", None)


def _device_details() -> dict[str, Any]:
    details = {
        gpu.name: tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")
    }
    return {name: {key: str(value) for key, value in found.items()} for name, found in details.items()}
