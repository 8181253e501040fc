"""The child's side of the channel to its parent: standard output is kept for messages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]


def reserve_stdout() -> Emit:
    """Keep stdout for messages and send everything else that is printed to stderr, C++ included."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    return emit
