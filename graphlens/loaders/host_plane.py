"""The host plane of an XPlane to ops and spans: the one place that knows the runtime's event names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from graphlens.ir.instructions import module_names
from graphlens.ir.run import NO_RUN, STEP_MARKER, KernelEvent, OpEvent, Span
from graphlens.loaders import host_loops, host_runs
from graphlens.loaders.annotations import split_op
from graphlens.loaders.events import Events
from graphlens.loaders.host_executions import END_OF_THUNK, EXECUTION, Compiled, Thunk, assemble
from graphlens.loaders.host_loops import Element, LoopOp
from graphlens.loaders.host_runs import Seen
from graphlens.loaders.planes import PS_PER_NS, end_ps

HOST_PLANE: Final = "/host:CPU"

_EXECUTOR = "ExecutorState::Process"
_ASYNC_START = "ExecutorState::ProcessAsync::Start"
_ASYNC_DONE = "ExecutorState::ProcessAsync::Done"
_FUNCTION = "FunctionRun"
_SESSION = "SessionRun"
_EAGER = "EagerExecute"
_REDUCTION = "ReduceDatasetOp::DoCompute"
_ROOT = "Iterator::Root"
_CAPTURED = "captured function"
_STAGE = re.compile(r"^(Reduce)?Iterator::")
# Below these stages lie parallel inputs that a number tells apart; elsewhere a number counts elements.
_ELEMENT_NUMBER = re.compile(r"(?<!Zip)\[\d+\]")

_OP = "op"
_OTHER = "other"
_ELEMENT = "element"
_COMPILED = "compiled"
_COMPILED_FUNCTION = "compiled function"
_GOT = "got"  # a request for an element that was answered with one
_ELEMENT_SIZE = "element_size"


_KINDS: Final = (
    (re.compile(r"^InstantiatedCapturedFunction::Run"), _CAPTURED),
    (
        re.compile(r"^(IteratorGetNext|IteratorGetNextAsOptional|MultiDeviceIteratorGetNextFromShard)Op::DoCompute$"),
        _ELEMENT,
    ),
    (re.compile(r"::CompileCpuExecutable$|::BuildExecutable$|^XlaCompil"), _COMPILED),
    # A function that XLA compiled as a whole is run like an op of its own name; its time is that of a function.
    (re.compile(r"^(__inference_\w+):\1$"), _COMPILED_FUNCTION),
    (re.compile(rf"^{END_OF_THUNK}"), END_OF_THUNK),
    (re.compile(r"^ThreadpoolListener"), ""),
)
_OWN_KINDS = frozenset(
    {_EXECUTOR, _ASYNC_START, _ASYNC_DONE, _FUNCTION, _SESSION, _EAGER, _REDUCTION, _ROOT, STEP_MARKER, EXECUTION}
)


class _Name(NamedTuple):
    """What the name of an event says: its kind, and for an op its node and type."""

    kind: str
    node: str = ""
    op: str = ""


@lru_cache(maxsize=65_536)
def _classify(name: str, display: str) -> _Name:
    if name in _OWN_KINDS:
        return _Name(name)
    kind = next((kind for pattern, kind in _KINDS if pattern.search(name)), None)
    if kind is not None:
        return _Name(kind)
    node, op = split_op(name, display)
    return _Name(_OP, node, op) if op else _Name(_OTHER)


class _Place(NamedTuple):
    """Where the events of a line lie: what their times count from, and the thread."""

    origin_ns: int
    thread: int

    def ns(self, ps: int) -> int:
        return self.origin_ns + ps // PS_PER_NS


# An event that may contain others: start, negative end (so that the longer of two comes first), name, and for an
# executor its position among all of them.
_Nested = tuple[int, int, _Name, int]
_NO_EXECUTOR = -1


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
        self.stages = {
            key: _ELEMENT_NUMBER.sub("", meta.name)
            for key, meta in plane.event_metadata.items()
            if _STAGE.match(meta.name)
        }
        self.seen = Seen()
        self.roots: list[Span] = []
        self.requests: list[Span] = []
        self.waits: list[Span] = []
        self.compiled = Compiled()
        self.compiled_functions: list[Span] = []
        self.starts: dict[int, Span] = {}
        self.ends_ns: dict[int, int] = {}
        self.handlers: Mapping[str, Callable[[_Place, Any], None]] = {
            _EXECUTOR: self._executor,
            _FUNCTION: self._function,
            _COMPILED_FUNCTION: self._compiled_function,
            _SESSION: self._session,
            _EAGER: self._eager,
            _REDUCTION: self._reduction,
            _ROOT: self._root,
            _ELEMENT: self._element,
            _COMPILED: self._compilation,
            _ASYNC_START: self._async_start,
            _ASYNC_DONE: self._async_done,
            STEP_MARKER: self._step,
            EXECUTION: self._execution,
            END_OF_THUNK: self._end_of_thunk,
            _OTHER: self._other,
        }

    def _names(self) -> Mapping[int, _Name]:
        """Return what each number of an event means, without those that never tell anything."""
        named = {key: _classify(meta.name, meta.display_name) for key, meta in self.plane.event_metadata.items()}
        return {key: name for key, name in named.items() if name.kind and (name.kind != _OTHER or self.telling)}

    def read(self) -> None:
        lines = [(place, self._line(place, line)) for line in self.plane.lines for place in (self._place(line),)]
        table = host_runs.assemble(self.seen)
        host_loops.count_elements(table, self._elements())
        first = len(self.into.runs)
        run_of = [NO_RUN if span.run == NO_RUN else span.run + first for span in self.seen.executors]
        in_loops: dict[int, list[LoopOp]] = {position: [] for position in host_loops.loops_of(table)}
        ops: list[OpEvent] = []
        for place, nesting in lines:
            for op, executor in _op_events(place, nesting, run_of):
                ops.append(op)
                if op.run - first in in_loops:
                    iteration = self.seen.executors[executor].iteration
                    in_loops[op.run - first].append(LoopOp(op.node, iteration, op.start_ns, op.end_ns))
        host_loops.split_loops(table, in_loops)
        self._hand_out(table, first, run_of, ops)

    def _place(self, line: Any) -> _Place:
        return _Place(line.timestamp_ns + self.into.shift_ns, line.id + self.into.first_thread)

    def _hand_out(self, table: host_runs.RunTable, first: int, run_of: Sequence[int], ops: Sequence[OpEvent]) -> None:
        """Add the runs, and what belongs to them."""

        def run_at(step_id: int, time_ns: int) -> int:
            position = table.at(step_id, time_ns)
            return NO_RUN if position == NO_RUN else position + first

        into, seen = self.into, self.seen
        into.runs.extend(table.runs)
        into.executors.extend(span._replace(run=run) for span, run in zip(seen.executors, run_of, strict=True))
        into.functions.extend(span._replace(run=run_at(span.step_id, span.start_ns)) for span in seen.launches)
        self._pair_waits()
        waits = [span._replace(run=run_at(span.step_id, span.start_ns)) for span in self.waits]
        around = host_runs.Around(table.runs)

        def run_around(time_ns: int) -> int:
            position = around.only(time_ns)
            return NO_RUN if position == NO_RUN else position + first

        into.functions.extend(span._replace(run=run_around(span.start_ns)) for span in self.compiled_functions)
        self._name_modules()
        executions, kernels = assemble(self.compiled, [*ops, *waits], run_around)
        into.ops.extend(ops)
        into.waits.extend(waits)
        into.executions.extend(executions)
        into.kernels.extend(kernels)

    def _name_modules(self) -> None:
        """Leave the numbers behind the names of modules where several have one name: made for several shapes."""
        thunks = self.compiled.thunks
        names = module_names({thunk.event.hlo_module for thunk in thunks})
        self.compiled.thunks = [
            thunk._replace(event=thunk.event._replace(hlo_module=names[thunk.event.hlo_module])) for thunk in thunks
        ]

    def _line(self, place: _Place, line: Any) -> list[_Nested]:
        """Hand the spans of a line out, and return what may be nested in each other."""
        nesting: list[_Nested] = []
        names, handlers = self.names, self.handlers
        executors = self.seen.executors
        captured: list[Any] = []
        for event in line.events:
            name = names.get(event.metadata_id)
            if name is None:
                continue
            kind = name.kind
            if kind in (_OP, _ASYNC_DONE, _EXECUTOR, EXECUTION):
                start_ps = event.offset_ps
                number = len(executors) if kind == _EXECUTOR else _NO_EXECUTOR
                nesting.append((start_ps, -end_ps(event), name, number))
            if kind == _CAPTURED:
                captured.append(event)
            elif kind != _OP:
                handlers[kind](place, event)
        if captured:
            self._captured(place, line, captured)
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
        self.seen.executors.append(_span(place, event, _EXECUTOR, stats.get("id"), stats.get("iter_num")))

    def _function(self, place: _Place, event: Any) -> None:
        self.seen.launches.append(_span(place, event, _FUNCTION, self._stats(event).get("id")))

    def _compiled_function(self, place: _Place, event: Any) -> None:
        self.compiled_functions.append(_span(place, event, _FUNCTION))

    def _session(self, place: _Place, event: Any) -> None:
        self.seen.sessions.append(_span(place, event, _SESSION, self._stats(event).get("id")))

    def _eager(self, place: _Place, event: Any) -> None:
        stats = self._stats(event)
        if stats.get("is_func"):
            self.seen.functions.append(_span(place, event, str(stats.get("eager_op", ""))))

    def _reduction(self, place: _Place, event: Any) -> None:
        self.seen.reductions.append(_span(place, event, _REDUCTION, self._stats(event).get("id")))

    def _root(self, place: _Place, event: Any) -> None:
        self.roots.append(_span(place, event, _ROOT, self._stats(event).get("id")))

    def _element(self, place: _Place, event: Any) -> None:
        stats = self._stats(event)
        name = _GOT if _ELEMENT_SIZE in stats else _ELEMENT
        self.requests.append(_span(place, event, name, stats.get("id")))

    def _compilation(self, place: _Place, event: Any) -> None:
        self.seen.compilations.append(_span(place, event, _COMPILED))

    def _captured(self, place: _Place, line: Any, events: Sequence[Any]) -> None:
        """Name each function that tf.data called after the stage that did."""
        calls = [_span(place, event, "", self._stats(event).get("id")) for event in events]
        stages = [
            _span(place, event, stage)
            for event in line.events
            if (stage := self.stages.get(event.metadata_id)) is not None
        ]
        self.seen.captured.extend(host_runs.named_after_stages(calls, stages))

    def _elements(self) -> Iterator[Element]:
        """Yield the requests for elements, each with the iterator that answered it."""
        roots = host_runs.by_thread(self.roots)
        # Releases of TensorFlow that do not write down how large an element was do not say whether there was one.
        sized = any(request.name == _GOT for request in self.requests)
        for request in self.requests:
            inner = (root.step_id for root in host_runs.within(roots.get(request.thread, ()), request))
            yield Element(request.start_ns, request.step_id, next(inner, 0), not sized or request.name == _GOT)

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
            program = stats.get("program_id")
            module = str(stats.get("hlo_module", "")) + (f"({program})" if program is not None else "")
            span = _span(place, event, name)
            kernel = KernelEvent(name, str(stats["hlo_op"]), module, span.start_ns, span.end_ns, span.thread)
            self.compiled.thunks.append(Thunk(kernel, _int(stats["_p"]) if "_p" in stats else None))
        elif "step_num" in stats:
            self.into.other_steps.append(_span(place, event, name, stats["step_num"]))
        elif "tf_function_call" in stats:
            self.seen.calls.append(_span(place, event, str(stats["tf_function_call"])))

    def _execution(self, place: _Place, event: Any) -> None:
        self.compiled.executions.append(_span(place, event, EXECUTION))

    def _end_of_thunk(self, place: _Place, event: Any) -> None:
        link = self._stats(event).get("_c")
        if link is not None:
            self.compiled.ends_ns[_int(link)] = place.ns(event.offset_ps)

    def _pair_waits(self) -> None:
        for link, start in self.starts.items():
            end_ns = self.ends_ns.get(link)
            if end_ns is not None and end_ns >= start.start_ns:
                self.waits.append(start._replace(end_ns=end_ns))


def _span(place: _Place, event: Any, name: str, step_id: Any = 0, iteration: Any = 0) -> Span:
    return Span(name, place.ns(event.offset_ps), place.ns(end_ps(event)), place.thread, _int(step_id), _int(iteration))


def _op_events(place: _Place, nesting: list[_Nested], run_of: Sequence[int]) -> Iterator[tuple[OpEvent, int]]:
    """Yield the op events of one thread, each with the executor that it ran in.

    Self time is without what nested ops and completions took; an executor that runs within an op takes no time itself.
    What a compiled function took is that of its instructions.
    """
    nesting.sort()
    inner_ps = [0] * len(nesting)
    within = [_NO_EXECUTOR] * len(nesting)
    open_events: list[int] = []
    open_executors: list[int] = []
    for index, (start_ps, negative_end_ps, _, executor) in enumerate(nesting):
        while open_events and -nesting[open_events[-1]][1] <= start_ps:
            open_events.pop()
        while open_executors and -nesting[open_executors[-1]][1] <= start_ps:
            open_executors.pop()
        if executor != _NO_EXECUTOR:
            open_executors.append(index)
            continue
        if open_executors:
            within[index] = nesting[open_executors[-1]][3]
        if open_events and nesting[open_events[-1]][1] <= negative_end_ps:
            inner_ps[open_events[-1]] -= start_ps + negative_end_ps
        open_events.append(index)
    origin_ns, thread = place
    for (start_ps, negative_end_ps, name, _), inner, executor in zip(nesting, inner_ps, within, strict=True):
        if name.kind == _OP:
            start_ns, end_ns = origin_ns + start_ps // PS_PER_NS, origin_ns + -negative_end_ps // PS_PER_NS
            self_ns = max(0, (-negative_end_ps - start_ps - inner) // PS_PER_NS)
            run = NO_RUN if executor == _NO_EXECUTOR else run_of[executor]
            yield OpEvent(name.node, name.op, start_ns, end_ns, self_ns, thread, run), executor


def _int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
