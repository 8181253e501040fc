"""``replay.json`` of a capture: what the second route saw of each op."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graphlens.errors import TargetError
from graphlens.ir.run import ReplayRecord


def read_replay(data: bytes) -> dict[str, ReplayRecord]:
    """Return the records of ``data`` by the op's runtime name.

    Raises
    ------
    TargetError
        When ``data`` is not what ``graphlens record`` writes.
    """
    try:
        return {name: _record(name, entry) for name, entry in json.loads(data).items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TargetError(
            f"replay.json is damaged ({type(error).__name__}: {error}); record the capture again"
        ) from error


def _record(name: str, entry: Mapping[str, Any]) -> ReplayRecord:
    outputs = tuple((str(dtype), tuple(int(size) for size in shape)) for dtype, shape in entry.get("outputs", ()))
    return ReplayRecord(name, int(entry["calls"]), tuple(int(ns) for ns in entry["durations_ns"]), outputs)
