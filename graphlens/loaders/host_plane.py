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
_OP = "op"
_OTHER = "other"


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
    return _Name(_OP, node, op) if op else _Name(_OTHER)


class _Place(NamedTuple):
    """Where the events of a line lie: what their times count from, and the thread."""

    origin_ns: int
    thread: int

    def ns(self, ps: int) -> int:
        return self.origin_ns + ps // PS_PER_NS


# An event that may contain others: start, negative end (so that the longer of two comes first), name.
_Nested = tuple[int, int, _Name]


def read_host(plane: Any, into: Events) -> None:
    """Add the events of a host plane."""
    _PlaneReader(plane, into).read()


class _PlaneReader:
    """Reads one plane; the metadata tables and the open links are needed at every turn."""

    def __init__(self, plane: Any, into: Events) -> None:
        self.plane, self.into = plane, into
        self.stat_names = {key: meta.name for key, meta in plane.stat_metadata.items()}
        self.telling = {
            key for key, name in self.stat_names.items() if name in ("hlo_op", "step_num", "tf_function_call")
        }
        self.names = self._names()
        self.starts: dict[int, Span] = {}
        self.ends_ns: dict[int, int] = {}
        self.handlers: Mapping[str, Callable[[_Place, Any], None]] = {
            _EXECUTOR: self._executor,
            _FUNCTION: self._function,
            _ASYNC_START: self._async_start,
            _ASYNC_DONE: self._async_done,
            STEP_MARKER: self._step,
            _OTHER: self._other,
        }

    def _names(self) -> Mapping[int, _Name]:
        """Return what each number of an event means, without those that never tell anything."""
        named = {key: _classify(meta.name, meta.display_name) for key, meta in self.plane.event_metadata.items()}
        return {key: name for key, name in named.items() if name.kind and (name.kind != _OTHER or self.telling)}

    def read(self) -> None:
        for line in self.plane.lines:
            place = _Place(line.timestamp_ns + self.into.shift_ns, line.id + self.into.first_thread)
            self.into.ops.extend(_op_events(place, self._line(place, line)))
        self._pair_waits()

    def _line(self, place: _Place, line: Any) -> list[_Nested]:
        """Hand the spans of a line out, and return what may be nested in each other."""
        nesting: list[_Nested] = []
        names, handlers = self.names, self.handlers
        for event in line.events:
            name = names.get(event.metadata_id)
            if name is None:
                continue
            kind = name.kind
            if kind in (_OP, _ASYNC_DONE):
                start_ps = event.offset_ps
                nesting.append((start_ps, -start_ps - event.duration_ps, name))
            if kind != _OP:
                handlers[kind](place, event)
        return nesting

    def _tells(self, event: Any) -> bool:
        telling = self.telling
        for stat in event.stats:  # noqa: SIM110 - `any` takes twice as long, and most events of a host come by here
            if stat.metadata_id in telling:
                return True
        return False

    def _stats(self, event: Any) -> dict[str, Any]:
        stats = {}
        for stat in event.stats:
            kind = stat.WhichOneof("value")
            if kind is not None:
                value = getattr(stat, kind)
                name = self.stat_names.get(stat.metadata_id, "")
                stats[name] = self.stat_names.get(value, "") if kind == "ref_value" else value
        return stats

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _executor(self, place: _Place, event: Any) -> None:
        stats = self._stats(event)
        self.into.executors.append(_span(place, event, _EXECUTOR, stats.get("id"), stats.get("iter_num")))

    def _function(self, place: _Place, event: Any) -> None:
        self.into.functions.append(_span(place, event, _FUNCTION, self._stats(event).get("id")))

    def _step(self, place: _Place, event: Any) -> None:
        self.into.markers.append(_span(place, event, STEP_MARKER, self._stats(event).get("step_num")))

    def _async_start(self, place: _Place, event: Any) -> None:
        stats = self._stats(event)
        name = ":".join(str(stats[part]) for part in ("name", "kernel_type") if part in stats)
        span = _span(place, event, name, stats.get("step_id", stats.get("id")), stats.get("iter_num"))
        if "_p" in stats and span.name:
            self.starts[_int(stats["_p"])] = span

    def _async_done(self, place: _Place, event: Any) -> None:
        link = self._stats(event).get("_c")
        if link is not None:
            self.ends_ns[_int(link)] = place.ns(event.offset_ps)

    def _other(self, place: _Place, event: Any) -> None:
        if not self._tells(event):
            return
        stats = self._stats(event)
        name = self.plane.event_metadata[event.metadata_id].name
        if "hlo_op" in stats:
            module = str(stats.get("hlo_module", ""))
            span = _span(place, event, name)
            kernel = KernelEvent(name, str(stats["hlo_op"]), module, span.start_ns, span.end_ns, span.thread)
            self.into.kernels.append(kernel)
        elif "step_num" in stats and stats.get("_r"):
            self.into.other_steps.append(_span(place, event, name, stats["step_num"]))
        elif str(stats.get("tf_function_call", "")).startswith("traced"):
            self.into.traces.append(_span(place, event, name))

    def _pair_waits(self) -> None:
        for link, start in self.starts.items():
            end_ns = self.ends_ns.get(link)
            if end_ns is not None and end_ns >= start.start_ns:
                self.into.waits.append(start._replace(end_ns=end_ns))


def _span(place: _Place, event: Any, name: str, step_id: Any = 0, iteration: Any = 0) -> Span:
    start_ps = event.offset_ps
    end_ps = start_ps + event.duration_ps
    return Span(name, place.ns(start_ps), place.ns(end_ps), place.thread, _int(step_id), _int(iteration))


def _op_events(place: _Place, nesting: list[_Nested]) -> Iterator[OpEvent]:
    """Yield the op events of one thread with their self time: what nested ops and completions took is theirs."""
    nesting.sort()
    inner_ps = [0] * len(nesting)
    open_events: list[int] = []
    for index, (start_ps, negative_end_ps, _) in enumerate(nesting):
        while open_events and -nesting[open_events[-1]][1] <= start_ps:
            open_events.pop()
        if open_events and nesting[open_events[-1]][1] <= negative_end_ps:
            inner_ps[open_events[-1]] -= start_ps + negative_end_ps
        open_events.append(index)
    origin_ns, thread = place
    for (start_ps, negative_end_ps, name), inner in zip(nesting, inner_ps, strict=True):
        if name.kind == _OP:
            start_ns, end_ns = origin_ns + start_ps // PS_PER_NS, origin_ns + -negative_end_ps // PS_PER_NS
            self_ns = max(0, (-negative_end_ps - start_ps - inner) // PS_PER_NS)
            yield OpEvent(name.node, name.op, start_ns, end_ns, self_ns, thread)


def _int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
