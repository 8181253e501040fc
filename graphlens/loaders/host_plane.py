"""The host plane of an XPlane to ops and spans: the one place that knows the runtime's event names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from graphlens.ir.run import KernelEvent, OpEvent, Span
from graphlens.loaders.annotations import split_op
from graphlens.loaders.events import Events

HOST_PLANE: Final = "/host:CPU"
STEP_MARKER: Final = "graphlens_step"
PS_PER_NS: Final = 1000

# A function that XLA compiled as a whole is run like an op of its own name; its time is that of a function.
_COMPILED_CALL = re.compile(r"^(__inference_\w+):\1$")

_EXECUTOR = "ExecutorState::Process"
_ASYNC_START = "ExecutorState::ProcessAsync::Start"
_ASYNC_DONE = "ExecutorState::ProcessAsync::Done"
_FUNCTION = "FunctionRun"


class _Name(NamedTuple):
    """What the name of an event says: its kind, and for an op its node and type."""

    kind: str
    node: str = ""
    op: str = ""


@lru_cache(maxsize=65_536)
def _classify(name: str, display: str) -> _Name:
    if name in (_EXECUTOR, _ASYNC_START, _ASYNC_DONE, _FUNCTION, STEP_MARKER):
        return _Name(name)
    if _COMPILED_CALL.match(name):
        return _Name(_FUNCTION)
    if name.startswith("ThreadpoolListener") or name.startswith("end: "):
        return _Name("")
    node, op = split_op(name, display)
    return _Name("op", node, op) if op else _Name("other")


class _Interval(NamedTuple):
    """An event in picoseconds of its line."""

    start_ps: int
    end_ps: int
    name: _Name
    event: Any


def read_host(plane: Any, into: Events) -> None:
    """Add the events of a host plane."""
    _PlaneReader(plane, into).read()


class _PlaneReader:
    """Reads one plane; the metadata tables and the open links are needed at every turn."""

    def __init__(self, plane: Any, into: Events) -> None:
        self.plane, self.into = plane, into
        self.names = {key: _classify(meta.name, meta.display_name) for key, meta in plane.event_metadata.items()}
        self.stat_names = {key: meta.name for key, meta in plane.stat_metadata.items()}
        self.telling = {
            key for key, name in self.stat_names.items() if name in ("hlo_op", "step_num", "tf_function_call")
        }
        self.starts: dict[int, Span] = {}
        self.ends_ns: dict[int, int] = {}
        self.handlers: Mapping[str, Callable[[Any, Any], None]] = {
            _EXECUTOR: self._executor,
            _FUNCTION: self._function,
            _ASYNC_START: self._async_start,
            _ASYNC_DONE: self._async_done,
            STEP_MARKER: self._step,
            "other": self._other,
        }

    def read(self) -> None:
        for line in self.plane.lines:
            nesting = []
            for interval in self._intervals(line):
                kind = interval.name.kind
                if kind in ("op", _ASYNC_DONE):
                    nesting.append(interval)
                if kind != "op":
                    self.handlers[kind](line, interval)
            self.into.ops.extend(_op_events(line, nesting))
        self._pair_waits()

    def _intervals(self, line: Any) -> Iterator[_Interval]:
        nothing = _Name("")
        for event in line.events:
            name = self.names.get(event.metadata_id, nothing)
            if name.kind and (name.kind != "other" or (self.telling and event.stats)):
                start_ps = event.offset_ps
                yield _Interval(start_ps, start_ps + event.duration_ps, name, event)

    def _stats(self, event: Any) -> dict[str, Any]:
        stats = {}
        for stat in event.stats:
            kind = stat.WhichOneof("value")
            if kind is not None:
                value = getattr(stat, kind)
                name = self.stat_names.get(stat.metadata_id, "")
                stats[name] = self.stat_names.get(value, "") if kind == "ref_value" else value
        return stats

    def _span(self, line: Any, interval: _Interval, name: str, step_id: Any = 0, iteration: Any = 0) -> Span:
        start_ns, end_ns = _in_ns(line, interval)
        return Span(name, start_ns, end_ns, line.id, _int(step_id), _int(iteration))

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _executor(self, line: Any, interval: _Interval) -> None:
        stats = self._stats(interval.event)
        self.into.executors.append(self._span(line, interval, _EXECUTOR, stats.get("id"), stats.get("iter_num")))

    def _function(self, line: Any, interval: _Interval) -> None:
        self.into.functions.append(self._span(line, interval, _FUNCTION, self._stats(interval.event).get("id")))

    def _step(self, line: Any, interval: _Interval) -> None:
        stats = self._stats(interval.event)
        self.into.markers.append(self._span(line, interval, STEP_MARKER, stats.get("step_num")))

    def _async_start(self, line: Any, interval: _Interval) -> None:
        stats = self._stats(interval.event)
        step_id = stats.get("step_id", stats.get("id"))
        name = ":".join(str(stats[part]) for part in ("name", "kernel_type") if part in stats)
        span = self._span(line, interval, name, step_id, stats.get("iter_num"))
        if "_p" in stats and span.name:
            self.starts[_int(stats["_p"])] = span

    def _async_done(self, line: Any, interval: _Interval) -> None:
        link = self._stats(interval.event).get("_c")
        if link is not None:
            self.ends_ns[_int(link)] = _in_ns(line, interval)[0]

    def _other(self, line: Any, interval: _Interval) -> None:
        if not any(stat.metadata_id in self.telling for stat in interval.event.stats):
            return
        stats = self._stats(interval.event)
        name = self.plane.event_metadata[interval.event.metadata_id].name
        if "hlo_op" in stats:
            start_ns, end_ns = _in_ns(line, interval)
            module = str(stats.get("hlo_module", ""))
            self.into.kernels.append(KernelEvent(name, str(stats["hlo_op"]), module, start_ns, end_ns, line.id))
        elif "step_num" in stats and stats.get("_r"):
            self.into.other_steps.append(self._span(line, interval, name, stats["step_num"]))
        elif str(stats.get("tf_function_call", "")).startswith("traced"):
            self.into.traces.append(self._span(line, interval, name))

    def _pair_waits(self) -> None:
        for link, start in self.starts.items():
            end_ns = self.ends_ns.get(link)
            if end_ns is not None and end_ns >= start.start_ns:
                self.into.waits.append(start._replace(end_ns=end_ns))


def _op_events(line: Any, nesting: list[_Interval]) -> Iterator[OpEvent]:
    """Yield the op events of one thread with their self time: what nested ops and completions took is theirs."""
    nesting.sort(key=lambda interval: (interval.start_ps, -interval.end_ps))
    inner_ps = [0] * len(nesting)
    open_events: list[int] = []
    for index, interval in enumerate(nesting):
        while open_events and nesting[open_events[-1]].end_ps <= interval.start_ps:
            open_events.pop()
        if open_events and nesting[open_events[-1]].end_ps >= interval.end_ps:
            inner_ps[open_events[-1]] += interval.end_ps - interval.start_ps
        open_events.append(index)
    for interval, inner in zip(nesting, inner_ps, strict=True):
        if interval.name.kind == "op":
            start_ns, end_ns = _in_ns(line, interval)
            self_ns = max(0, (interval.end_ps - interval.start_ps - inner) // PS_PER_NS)
            yield OpEvent(interval.name.node, interval.name.op, start_ns, end_ns, self_ns, line.id)


def _in_ns(line: Any, interval: _Interval) -> tuple[int, int]:
    origin_ns = line.timestamp_ns
    return origin_ns + interval.start_ps // PS_PER_NS, origin_ns + interval.end_ps // PS_PER_NS


def _int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
