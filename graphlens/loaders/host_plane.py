"""The host plane of an XPlane to ops and spans."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.columns import Codes, Ints, OpEvents, Spans, looked_up
from graphlens.ir.instructions import module_names
from graphlens.ir.ops import LOOP_OVER_DATASET
from graphlens.ir.run import EAGER_LOOP, NO_RUN, STEP_MARKER, Activity, KernelEvent, Run, Span
from graphlens.loaders import eager_steps, host_loops, host_runs
from graphlens.loaders.asynchronous import Asynchronous
from graphlens.loaders.collectives import COLLECTIVE_OP, GROUP, INSTANCE, Executed, collectives_of
from graphlens.loaders.eager_ops import eager_ops
from graphlens.loaders.event_columns import read_events
from graphlens.loaders.events import Events
from graphlens.loaders.fetches import fed_by, fetches_of
from graphlens.loaders.host_executions import END_OF_THUNK, EXECUTION, Compiled, Mark, Thunk, assemble
from graphlens.loaders.host_loops import Element, LoopOp
from graphlens.loaders.host_names import (
    ASYNC_DONE,
    ASYNC_START,
    CAPTURED,
    COMPILED,
    COMPILED_FUNCTION,
    EAGER,
    EAGER_KERNEL,
    EAGER_OP,
    ELEMENT,
    EXECUTOR,
    FUNCTION,
    KIND_OF,
    MARKED,
    NUMBERED,
    OP,
    OTHER,
    REDUCTION,
    ROOT,
    SESSION,
    Name,
    classify,
)
from graphlens.loaders.host_requests import Answered, requests_of_loops, requests_of_ops
from graphlens.loaders.host_runs import Seen
from graphlens.loaders.iterators import READ as OF_STAGES
from graphlens.loaders.iterators import Calls, iterators_of, made_roots
from graphlens.loaders.marks import DETAIL, SOURCE, read_mark
from graphlens.loaders.nesting import NO_EXECUTOR, nested
from graphlens.loaders.planes import PS_PER_NS, stat_names
from graphlens.loaders.stage_events import IS_STAGE, StageEvents

HOST_PLANE: Final = "/host:CPU"


_GOT = "got"  # a request for an element that was answered with one
_ELEMENT_SIZE = "element_size"

# What an event may be nested in, or itself nests: its time is told apart from that of what is around it.
_NESTING: Final = frozenset({OP, ASYNC_DONE, EXECUTOR, EXECUTION})
_TELLING: Final = frozenset({"hlo_op", "step_num", "tf_function_call"})  # of events that are of no kind of their own
_READ: Final = _TELLING | {
    "id", "iter_num", "is_func", "eager_op", _ELEMENT_SIZE, "name", "kernel_type", "step_id", "_p", "_c", "hlo_module",
    "program_id", DETAIL, SOURCE, INSTANCE, GROUP, "shapes", "types", *OF_STAGES,
}  # fmt: skip


class _Event(NamedTuple):
    """One event that is looked at by itself."""

    key: int
    start_ns: int
    end_ns: int
    thread: int
    stats: Mapping[str, Any]


def read_host(plane: Any, into: Events) -> None:
    """Add the events of a host plane, whose lines hold them as bytes."""
    _PlaneReader(plane, into).read()


class _PlaneReader:
    """Reads one plane; the metadata tables and the open links are needed at every turn.

    Ops and executors, of which there may be a million, are read as columns; what else tells something, one by one.
    """

    def __init__(self, plane: Any, into: Events) -> None:
        self.plane, self.into = plane, into
        self.stat_names = stat_names(plane)
        self.names = self._names()
        silent = [
            key
            for key, meta in plane.event_metadata.items()
            if not (_tells(self.names.get(key)) or IS_STAGE.match(meta.name))
        ]
        self.events = read_events(plane.lines, self.stat_names, self._keys(_READ), into.shift_ns, silent)
        self.threads = [line.id + into.first_thread for line in plane.lines]
        self.kind = looked_up(self.events.name, {key: NUMBERED[name.kind] for key, name in self.names.items()})
        self.metadata = {key: meta.name for key, meta in plane.event_metadata.items()}
        self.stage_events = StageEvents(self.events, self.metadata, self.stat_names)
        self.seen = Seen(executors=self._executors())
        self.roots: list[Span] = []
        self.requests: list[Span] = []
        self.eager: list[Span] = []
        self.compiled = Compiled()
        self.compiled_functions: list[Span] = []
        self.asynchronous = Asynchronous()
        self.sizes: list[int | None] = []  # of the elements that were asked for
        self.specs: dict[tuple[int, int], tuple[str, str]] = {}  # shapes and types, by thread and start of the root
        self.handlers: Mapping[str, Callable[[_Event], None]] = {
            FUNCTION: self._function,
            COMPILED_FUNCTION: self._compiled_function,
            SESSION: self._session,
            EAGER: self._eager,
            REDUCTION: self._reduction,
            ROOT: self._root,
            ELEMENT: self._element,
            COMPILED: self._compilation,
            ASYNC_START: self._async_start,
            ASYNC_DONE: self._async_done,
            STEP_MARKER: self._step,
            EXECUTION: self._execution,
            END_OF_THUNK: self._end_of_thunk,
            MARKED: self._mark,
            OTHER: self._other,
        }

    def _names(self) -> Mapping[int, Name]:
        """Return what each number of an event means, without those that never tell anything."""
        named = {key: classify(meta.name, meta.display_name) for key, meta in self.plane.event_metadata.items()}
        telling = self._keys(_TELLING)
        return {key: name for key, name in named.items() if name.kind and (name.kind != OTHER or telling)}

    def _keys(self, names: Collection[str]) -> frozenset[int]:
        return frozenset(key for key, name in self.stat_names.items() if name in names)

    def read(self) -> None:
        for event, kind in self._looked_at():
            self.handlers[kind](event)
        self._captured_functions()
        table, run_of = host_runs.assemble(self.seen)
        host_loops.count_elements(table, self._elements())
        first = len(self.into.runs)
        ops, within = self._ops()
        ops = replace(ops, run=np.where(within == NO_EXECUTOR, NO_RUN, _of(run_of, within)))
        host_loops.split_loops(table, self._in_loops(table, ops, within))
        self._hand_out(table, first, run_of, replace(ops, run=_moved(ops.run, first)))
        self._eager_loops(table.runs)

    def _in_loops(self, table: host_runs.RunTable, ops: OpEvents, within: Ints) -> Mapping[int, list[LoopOp]]:
        """Return the ops of the runs that loop over a dataset, by run."""
        found: dict[int, list[LoopOp]] = {position: [] for position in host_loops.loops_of(table)}
        chosen = np.isin(ops.run, list(found))
        iterations = self.seen.executors.iteration[within[chosen]].tolist()
        for op, iteration in zip(ops.where(chosen), iterations, strict=True):
            found[op.run].append(LoopOp(op.node, iteration, op.start_ns, op.end_ns))
        return found

    def _hand_out(self, table: host_runs.RunTable, first: int, run_of: Ints, ops: OpEvents) -> None:
        """Add the runs, and what belongs to them."""

        def run_at(step_id: int, time_ns: int) -> int:
            position = table.at(step_id, time_ns)
            return NO_RUN if position == NO_RUN else position + first

        into, seen = self.into, self.seen
        into.runs.extend(table.runs)
        into.executor_columns.append(replace(seen.executors, run=_moved(run_of, first)))
        into.functions.extend(span._replace(run=run_at(span.step_id, span.start_ns)) for span in seen.launches)
        waits = [span._replace(run=run_at(span.step_id, span.start_ns)) for span in self.asynchronous.waits()]
        around = host_runs.Around(table.runs)

        def run_around(time_ns: int) -> int:
            position = around.only(time_ns)
            return NO_RUN if position == NO_RUN else position + first

        into.functions.extend(span._replace(run=run_around(span.start_ns)) for span in self.compiled_functions)
        into.activities.extend(
            activity._replace(run=run_at(step_id, activity.start_ns)) for activity, step_id in self._activities(table)
        )
        self._input(host_runs.work_of_captured(seen, table, run_of), run_at)
        into.collectives.extend(collectives_of(self._collectives(), waits, run_at))
        fed = fed_by(self.requests, self.sizes, self.roots, self.specs)
        into.fetches.extend(fetches_of(fed, self.asynchronous.answered(), run_at))
        self._name_modules()
        threads = {span.thread for span in self.compiled.executions}
        calling = np.isin(ops.thread, [number for number, thread in enumerate(ops.threads) if thread in threads])
        executions, kernels = assemble(self.compiled, [*ops.where(calling), *waits], run_around)
        into.op_columns.append(ops)
        into.waits.extend(waits)
        into.executions.extend(executions)
        into.kernels.extend(kernels)

    def _collectives(self) -> Iterator[Executed]:
        codes = {key: name for key, name in self.names.items() if name.op.startswith(COLLECTIVE_OP)}
        for event in self._events(looked_up(self.events.name, dict.fromkeys(codes, 1)) == 1) if codes else ():
            if isinstance(event.stats.get(INSTANCE), int) and isinstance(event.stats.get(GROUP, 0), int):
                yield Executed(*codes[event.key][1:], event.start_ns, event.end_ns, event.thread, event.stats)

    def _name_modules(self) -> None:
        """Leave the numbers behind the names of modules where several have one name: made for several shapes."""
        thunks = self.compiled.thunks
        names = module_names({thunk.event.hlo_module for thunk in thunks})
        self.compiled.thunks = [
            thunk._replace(event=thunk.event._replace(hlo_module=names[thunk.event.hlo_module])) for thunk in thunks
        ]

    # -- eager loops --------------------------------------------------------------------------------------------------

    def _eager_loops(self, others: Sequence[Run]) -> None:
        """Add the steps of eager loops as runs, and what ran in them op by op; ``others`` are the runs of functions."""
        own = set(self.threads)
        steps = eager_steps.steps_of((mark for mark in self.into.marks if mark.thread in own), others)
        runs = [Run(EAGER_LOOP, begin.start_ns, end.start_ns, begin.thread) for begin, end in steps]
        if not runs:
            return
        positions = range(len(self.into.runs), len(self.into.runs) + len(runs))
        self.into.runs.extend(runs)
        calls = self._spans_of_kind(EAGER_OP)
        kernels = self._spans_of_kind(EAGER_KERNEL)
        self.into.ops.extend(eager_ops(calls, kernels, list(zip(positions, runs, strict=True)), self.seen.functions))

    def _spans_of_kind(self, kind: str) -> Iterator[Span]:
        """Yield the events of a kind under the type of the op that they are of."""
        chosen = np.flatnonzero(self.kind == NUMBERED[kind])
        columns = (self.events.name, self.events.start_ns, self.events.end_ns, self.events.line)
        for key, start_ns, end_ns, line in zip(*(column[chosen].tolist() for column in columns), strict=True):
            yield Span(self.names[key].op, start_ns, end_ns, self.threads[line])

    # -- ops and executors ----------------------------------------------------------------------------------------

    def _executors(self) -> Spans:
        chosen = np.flatnonzero(self.kind == NUMBERED[EXECUTOR])
        number = np.full(len(self.events), NO_EXECUTOR)
        number[chosen] = np.arange(len(chosen))
        stats = self.events.stats.of_events(number != NO_EXECUTOR)
        codes = Codes[tuple[str, int]]()
        code, iteration = np.full_like(chosen, codes((EXECUTOR, 0))), np.zeros_like(chosen)
        steps, iterations = stats.among(self._keys({"id"})), stats.among(self._keys({"iter_num"}))
        values, own = steps.distinct()
        code[number[steps.event]] = np.array([codes((EXECUTOR, _int(value))) for value in values], np.int64)[own]
        values, own = iterations.distinct()
        iteration[number[iterations.event]] = np.array([_int(value) for value in values], np.int64)[own]
        return Spans(
            codes.all,
            self.threads,
            code,
            self.events.start_ns[chosen],
            self.events.end_ns[chosen],
            self.events.line[chosen],
            iteration,
            np.full(len(chosen), NO_RUN),
        )

    def _ops(self) -> tuple[OpEvents, Ints]:
        """Return the ops, those of each thread by their start, and the executor that each ran in.

        Self time is without what nested ops and completions took; an executor that runs within an op takes no time
        itself.  What a compiled function took is that of its instructions.
        """
        events = self.events
        nesting = np.flatnonzero(np.isin(self.kind, [NUMBERED[kind] for kind in _NESTING]))
        executor = np.full(len(nesting), NO_EXECUTOR)
        is_executor = self.kind[nesting] == NUMBERED[EXECUTOR]
        executor[is_executor] = np.arange(np.count_nonzero(is_executor))
        # Of what begins together the longer comes first, and then what is called so.
        ranks = {name: rank for rank, name in enumerate(sorted(set(self.names.values())))}
        rank = looked_up(events.name[nesting], {key: ranks[name] for key, name in self.names.items()})
        line, start_ps, end_ps = events.line[nesting], events.start_ps[nesting], events.end_ps[nesting]
        order = np.lexsort((executor, rank, -end_ps, start_ps, line))
        nesting, executor = nesting[order], executor[order]
        start_ps, end_ps, line = start_ps[order], end_ps[order], line[order]
        inner_ps, within = nested(np.searchsorted(line, np.arange(len(self.threads) + 1)), start_ps, end_ps, executor)
        chosen = self.kind[nesting] == NUMBERED[OP]
        nesting, within = nesting[chosen], within[chosen]
        kinds = Codes[tuple[str, str]]()
        code = looked_up(events.name[nesting], {key: kinds(name[1:]) for key, name in self.names.items()})
        self_ns = np.maximum(0, (end_ps - start_ps - inner_ps)[chosen] // PS_PER_NS)
        ops = OpEvents(
            kinds.all,
            self.threads,
            code,
            self.events.start_ns[nesting],
            self.events.end_ns[nesting],
            self_ns,
            events.line[nesting],
            np.full(len(nesting), NO_RUN),
            np.zeros(len(nesting), bool),
        )
        return ops, within

    # -- one by one -----------------------------------------------------------------------------------------------

    def _looked_at(self) -> Iterator[tuple[_Event, str]]:
        """Yield the events that are looked at by themselves, with the kind of each; of others those that tell a lot."""
        telling = np.zeros(len(self.events), bool)
        telling[self.events.stats.among(self._keys(_TELLING)).event] = True
        chosen = np.isin(self.kind, [NUMBERED[kind] for kind in self.handlers])
        chosen &= (self.kind != NUMBERED[OTHER]) | telling
        kinds = [KIND_OF[number] for number in self.kind[chosen].tolist()]
        return zip(self._events(chosen), kinds, strict=True)

    def _events(self, chosen: NDArray[np.bool_]) -> list[_Event]:
        positions = np.flatnonzero(chosen)
        stats = self.events.stats.of_events(chosen)
        told: dict[int, dict[str, Any]] = {position: {} for position in positions.tolist()}
        for position, key, value in zip(stats.event.tolist(), stats.key.tolist(), stats.values(), strict=True):
            if value is not None:
                told[position][self.stat_names.get(key, "")] = value
        keys, lines = self.events.name[positions].tolist(), self.events.line[positions].tolist()
        threads = [self.threads[line] for line in lines]
        starts_ns, ends_ns = self.events.start_ns[positions].tolist(), self.events.end_ns[positions].tolist()
        return list(map(_Event, keys, starts_ns, ends_ns, threads, told.values()))

    def _captured_functions(self) -> None:
        """Name each function that tf.data called after the stage that did."""
        places = np.flatnonzero(self.kind == NUMBERED[CAPTURED])
        self.captured = places[np.lexsort((self.events.start_ps[places], self.events.line[places]))]
        self.seen.captured.extend(self.stage_events.calls(self.captured, self.threads))

    def _input(self, works_ns: Sequence[int], run_at: Callable[[int, int], int]) -> None:
        """Add the stages of input pipelines, whose functions worked so long, and what was asked of them."""
        events, first = self.events, len(self.into.iterators)
        calls = Calls(events.line[self.captured], events.start_ps[self.captured], np.array(works_ns, np.int64))
        iterators = iterators_of(self.stage_events, calls, made_roots(events, self.metadata), first)
        answered = Answered(self.stage_events, iterators, self.threads, run_at, first)
        sized = any(request.name == _GOT for request in self.requests)
        self.into.iterators.extend(iterators.stages)
        self.into.requests.extend(requests_of_ops(self.requests, _GOT if sized else None, answered))
        self.into.requests.extend(requests_of_loops(self.seen.reductions, answered))

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _function(self, event: _Event) -> None:
        self.seen.launches.append(_span(event, FUNCTION, event.stats.get("id")))

    def _compiled_function(self, event: _Event) -> None:
        self.compiled_functions.append(_span(event, FUNCTION))

    def _session(self, event: _Event) -> None:
        self.seen.sessions.append(_span(event, SESSION, event.stats.get("id")))

    def _eager(self, event: _Event) -> None:
        stats = event.stats
        name = str(stats.get("eager_op", ""))
        if stats.get("is_func"):
            self.seen.functions.append(_span(event, name))
        else:
            self.eager.append(_span(event, name))

    def _reduction(self, event: _Event) -> None:
        self.seen.reductions.append(_span(event, REDUCTION, event.stats.get("id")))

    def _root(self, event: _Event) -> None:
        stats = event.stats
        self.roots.append(_span(event, ROOT, stats.get("id")))
        self.specs[event.thread, event.start_ns] = str(stats.get("shapes", "")), str(stats.get("types", ""))

    def _element(self, event: _Event) -> None:
        stats = event.stats
        name = _GOT if _ELEMENT_SIZE in stats else ELEMENT
        self.requests.append(_span(event, name, stats.get("id")))
        self.sizes.append(_int(stats[_ELEMENT_SIZE]) if _ELEMENT_SIZE in stats else None)

    def _compilation(self, event: _Event) -> None:
        self.seen.compilations.append(_span(event, COMPILED))

    def _elements(self) -> Iterator[Element]:
        """Yield the requests for elements, each with the iterator that answered it."""
        roots = host_runs.by_thread(self.roots)
        # Releases of TensorFlow that do not write down how large an element was do not say whether there was one.
        sized = any(request.name == _GOT for request in self.requests)
        for request in self.requests:
            inner = (root.step_id for root in host_runs.within(roots.get(request.thread, ()), request))
            yield Element(request.start_ns, request.step_id, next(inner, 0), not sized or request.name == _GOT)

    def _activities(self, table: host_runs.RunTable) -> Iterator[tuple[Activity, int]]:
        """Yield what the host did around its ops, each with the step id that it did it under."""
        loops = host_loops.between_bodies(table, self.seen.reductions)
        kinds: tuple[tuple[Literal["input", "eager", "compile"], str, Iterable[Span]], ...]
        kinds = (
            ("input", "input", self.requests),
            ("input", LOOP_OVER_DATASET, loops),
            ("eager", "", self.eager),
            ("compile", "compile", self.seen.compilations),
        )
        for kind, name, spans in kinds:
            for span in spans:
                yield Activity(kind, name or span.name, span.start_ns, span.end_ns, span.thread), span.step_id

    def _step(self, event: _Event) -> None:
        self.into.markers.append(_span(event, STEP_MARKER, event.stats.get("step_num")))

    def _async_start(self, event: _Event) -> None:
        stats = event.stats
        name = ":".join(str(stats[part]) for part in ("name", "kernel_type") if part in stats)
        span = _span(event, name, stats.get("step_id", stats.get("id")), stats.get("iter_num"))
        if "_p" in stats and span.name:
            self.asynchronous.starts[_int(stats["_p"])] = span

    def _async_done(self, event: _Event) -> None:
        link = event.stats.get("_c")
        if link is not None:
            self.asynchronous.ends[_int(link)] = _span(event, "")

    def _other(self, event: _Event) -> None:
        stats = event.stats
        name = self.plane.event_metadata[event.key].name
        if "hlo_op" in stats:
            program = stats.get("program_id")
            module = str(stats.get("hlo_module", "")) + (f"({program})" if program is not None else "")
            span = _span(event, name)
            kernel = KernelEvent(name, str(stats["hlo_op"]), module, span.start_ns, span.end_ns, span.thread)
            self.compiled.thunks.append(Thunk(kernel, _int(stats["_p"]) if "_p" in stats else None))
        elif "step_num" in stats:
            self.into.other_steps.append(_span(event, name, stats["step_num"]))
        elif "tf_function_call" in stats:
            self.seen.calls.append(_span(event, str(stats["tf_function_call"])))

    def _execution(self, event: _Event) -> None:
        self.compiled.executions.append(_span(event, EXECUTION))

    def _end_of_thunk(self, event: _Event) -> None:
        link = event.stats.get("_c")
        if link is not None:
            self.compiled.marks[_int(link)] = Mark(event.start_ns, event.thread)

    def _mark(self, event: _Event) -> None:
        name = self.plane.event_metadata[event.key].name
        self.into.marks.append(read_mark(name, event.start_ns, event.end_ns, event.thread, event.stats))


def _tells(name: Name | None) -> bool:
    """Tell whether the statistics of events of that name say more than the name does."""
    return name is not None and (name.kind != OP or name.op.startswith(COLLECTIVE_OP))


def _span(event: _Event, name: str, step_id: Any = 0, iteration: Any = 0) -> Span:
    return Span(name, event.start_ns, event.end_ns, event.thread, _int(step_id), _int(iteration))


def _of(values: Ints, positions: Ints) -> Ints:
    """Return the values at some positions; anything where a position is none."""
    return values[positions] if len(values) else positions


def _moved(runs: Ints, first: int) -> Ints:
    """Return positions of runs where others come before them."""
    return np.where(runs == NO_RUN, NO_RUN, runs + first)


def _int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
