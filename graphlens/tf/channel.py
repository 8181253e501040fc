"""What every child process does first: keep standard output for its parent, and import TensorFlow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from graphlens.errors import GraphLensError, MissingDependencyError

Emit = Callable[[dict[str, Any]], None]


def reserve_stdout() -> Emit:
    """Keep stdout for messages and send everything else that is printed to stderr, C++ included."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    return emit


def import_tensorflow() -> GraphLensError | None:
    """Import TensorFlow; returns what to tell the user when that is impossible."""
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        return MissingDependencyError(
            f"TensorFlow cannot be imported ({error}): install it with `pip install 'graphlens-tf[cpu]'`, "
            "or use --static"
        )
    return None
