"""What a sketch says of the script that was watched: how often its step was called, and what it was traced for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from graphlens.ir.script import Script, ScriptFunction, ScriptTrace

NAME: Final = "train_step"
_NS: Final = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_TIME: Final = r"(\d+)(us|ms|s)"
_CALLS: Final = re.compile(rf"(?P<calls>\d+) in {_TIME}")
_TRACES: Final = re.compile(rf"(?P<count>\d+) (?P<kind>first|variables|relaxed|retrace) {_TIME}(?: (?P<changed>.+))?")

# The settings, and how each is written.
SCRIPT: Final[Mapping[str, re.Pattern[str]]] = {"calls": _CALLS, "traces": re.compile(rf"{_TRACES.pattern}")}


def is_script(key: str, value: str) -> bool:
    """Tell whether ``key: value`` is a setting of this module, written as it has to be."""
    parts = value.split(";") if key == "traces" else [value]
    return key in SCRIPT and all(SCRIPT[key].fullmatch(part.strip()) for part in parts)


def script_of(settings: Mapping[str, str]) -> Script | None:
    """Return the script with its one function, ``None`` where nothing is said of it."""
    said = _CALLS.fullmatch(settings.get("calls", ""))
    if said is None:
        return None
    calls, ns = int(said["calls"]), int(said[2]) * _NS[said[3]]
    traces = tuple(_traces(settings.get("traces", "")))
    traced_ns = sum(trace.ns for trace in traces)
    function = ScriptFunction(
        NAME, NAME, "train.py:12", calls, ns, len(traces), traced_ns, (f"__inference_{NAME}_12",), 1, (0,), (0,)
    )
    return Script(ns, 0, (function,), traces)


def _traces(said: str) -> Iterator[ScriptTrace]:
    at_ns, call = 0, 1
    for part in filter(None, (part.strip() for part in said.split(";"))):
        one = _TRACES.fullmatch(part)
        assert one is not None
        ns = int(one[3]) * _NS[one[4]]
        for _ in range(int(one["count"])):
            changed = tuple(filter(None, (one["changed"] or "").split(" | ")))
            yield ScriptTrace(NAME, call, at_ns, ns, one["kind"], changed, ns)  # type: ignore[arg-type]
            at_ns, call = at_ns + ns, call + 1
