"""Where a run takes place: versions, processor, devices and thread settings, as plain JSON values."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.tf import private


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
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "device_details": _device_details(),
        "onednn": private.onednn_enabled(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def processor() -> str:
    """Return the processor's model name, as far as this system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
