"""The log of all calls of a program: counted by function, with each trace and what caused it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from graphlens.errors import first_line
from graphlens.ir.capture import new_id
from graphlens.ir.run import SESSION
from graphlens.ir.script import MADE_ANEW, Script, ScriptFunction, ScriptTrace, TraceKind
from graphlens.tf import private
from graphlens.tf.watch.changes import ELSEWHERE, changes, is_relaxed, tensors_of
from graphlens.tf.watch.places import Numbers, Place, place_of

# What is kept of a program that runs for days: what it traces again and again is told by the first ones.
_TRACES_KEPT: Final = 1000
_CONCRETES_KEPT: Final = 4000
_TIMES_KEPT: Final = 512
_TIMED_KEPT: Final = 64  # traces whose calls are timed; a step has one, or few
_SHOWN: Final = 6  # arguments of one trace

NOT_COMPARED: Final = "what changed from one trace of a function to the next could not be told: {}"


@dataclass
class Trace:
    """A call in which a function was traced."""

    call: int
    at_ns: int
    ns: int
    kind: TraceKind
    changed: tuple[str, ...]
    object: int


@dataclass
class Times:
    """Durations, of which the median is asked: of many every second one is kept, then every fourth."""

    count: int = 0
    kept_ns: list[int] = field(default_factory=list)
    each: int = 1

    def add(self, ns: int) -> None:
        """Count a duration, and keep it if it is its turn."""
        if self.count % self.each == 0:
            self.kept_ns.append(ns)
            if len(self.kept_ns) >= _TIMES_KEPT:
                self.kept_ns = self.kept_ns[::2]
                self.each *= 2
        self.count += 1

    @property
    def median_ns(self) -> int | None:
        """The median of those that were kept."""
        return round(median(self.kept_ns)) if self.kept_ns else None


@dataclass(eq=False)
class Function:
    """All calls of what the user would call one function, or of a Session for the same fetches.

    ``function_type`` is that of its latest trace, ``times`` are of calls in which nothing was traced, and ``used``
    is when each Python object behind it was called first and last, by number of the call.  ``periods`` are from call to
    call, of which ``begun`` is the last: its thread, how often recordings had begun or ended, and when it was.
    ``unrecorded`` are those of ``times`` while nothing was recorded, by the trace that ran.
    """

    place: Place
    calls: int = 0
    ns: int = 0
    traces: int = 0
    traced_ns: int = 0
    function_type: Any = None
    times: Times = field(default_factory=Times)
    periods: Times = field(default_factory=Times)
    begun: tuple[int, int, int] = (0, 0, 0)
    logged: list[Trace] = field(default_factory=list)
    used: list[list[int]] = field(default_factory=list)
    concretes: dict[str, tuple[int, int]] = field(default_factory=dict)
    states: dict[frozenset[int], int] = field(default_factory=dict)
    shapes: dict[Hashable, int] = field(default_factory=dict)
    unrecorded: dict[str, Times] = field(default_factory=dict)

    def begins(self, thread: int, recordings: int, begun_ns: int) -> None:
        """Take up that a call began; the time since the last one is a period where no recording changed it."""
        is_timed = self.begun[:2] == (thread, recordings) and recordings % 2 == 0
        if is_timed:
            self.periods.add(begun_ns - self.begun[2])
        self.begun = (thread, recordings, begun_ns)


@dataclass(eq=False)
class Called:
    """One Python object that is called: a ``tf.function``, a ``ConcreteFunction``, a Session with its fetches."""

    function: Function
    number: int
    traces_seen: int = 0
    traces: int = 0


class CallLog:
    """Counts calls; not for several threads at once.  ``notes`` say what could not be found out."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self._begun_ns = time.perf_counter_ns()
        self._numbers = Numbers()
        self._functions: dict[Hashable, Function] = {}
        self._objects: weakref.WeakKeyDictionary[Any, Called] = weakref.WeakKeyDictionary()
        self._sessions: dict[Hashable, Called] = {}
        self._recordings = 0  # that began or ended

    def of_function(self, function: Any) -> Called:
        """Return what is known of a ``tf.function`` or a ``ConcreteFunction`` that is about to be called."""
        called = self._objects.get(function)
        if called is None:
            called = self._objects[function] = self._new(place_of(function, self._numbers))
            called.traces_seen = private.tracing_count(function)
            called.traces = called.traces_seen
        return called

    def of_session(self, session: Any, fetches: Hashable) -> Called:
        """Return what is known of a Session that is about to fetch something."""
        key = self._numbers.of(session), fetches
        if key not in self._sessions:
            self._sessions[key] = self._new(Place(key, SESSION, SESSION, ""))
        return self._sessions[key]

    def recording_changes(self) -> None:
        """Take up that a recording begins or ends: that takes time, and while one is made all do."""
        self._recordings += 1

    def ended(self, called: Called, callee: Any, concrete: Any, begun_ns: int, ns: int) -> bool:
        """Count a call that has ended, and return whether its function was traced in it.

        ``concrete`` is what it executed, ``None`` where nothing is known of that, as of Sessions.
        """
        function = called.function
        function.calls += 1
        function.ns += ns
        function.begins(threading.get_ident(), self._recordings, begun_ns)
        self._used(called)
        count = private.tracing_count(callee)
        traced, called.traces_seen = count - called.traces_seen, count
        if traced <= 0:
            function.times.add(ns)
            if concrete is not None and not function.concretes:  # it was traced before anybody watched
                self._unless_it_fails(self._keep, function, concrete)
            if concrete is not None and self._recordings % 2 == 0:
                self._time(function, private.function_name(concrete), ns)
            return False
        function.traces += traced
        function.traced_ns += ns
        if concrete is not None:
            self._unless_it_fails(self._traced, called, callee, concrete, begun_ns - self._begun_ns, ns)
        called.traces += traced
        return True

    def script(self, recorded_ns: int, eager_steps: int) -> Script:
        """Return all that was seen so far."""
        functions: list[ScriptFunction] = []
        traces: list[ScriptTrace] = []
        ids: list[str] = []
        for function in sorted(self._functions.values(), key=lambda one: -one.ns):
            if not function.calls:
                continue
            ids.append(new_id(function.place.step, ids))
            functions.append(_described(ids[-1], function))
            traces.extend(_traces(ids[-1], function))
        traces.sort(key=lambda trace: trace.at_ns)
        ns = time.perf_counter_ns() - self._begun_ns
        return Script(ns, recorded_ns, tuple(functions), tuple(traces), eager_steps)

    def _new(self, place: Place) -> Called:
        function = self._functions.setdefault(place.key, Function(place))
        function.used.append([])
        return Called(function, len(function.used) - 1)

    def _used(self, called: Called) -> None:
        used, number = called.function.used[called.number], called.function.calls
        used[:] = [used[0] if used else number, number]

    def _time(self, function: Function, name: str, ns: int) -> None:
        if name in function.unrecorded or len(function.unrecorded) < _TIMED_KEPT:
            function.unrecorded.setdefault(name, Times()).add(ns)

    def _unless_it_fails(self, note: Callable[..., None], *arguments: Any) -> None:
        try:
            note(*arguments)
        except Exception as error:  # the program must not end because TensorFlow describes a type in another way
            self.notes = (NOT_COMPARED.format(first_line(error)),)

    def _traced(self, called: Called, callee: Any, concrete: Any, at_ns: int, ns: int) -> None:
        function, kind = called.function, private.function_type(concrete)
        changed = changes(function.function_type, kind) if function.function_type is not None and kind else ()
        what = self._kind(called, callee, concrete, kind)
        self._keep(function, concrete)
        function.function_type = kind
        if what == "retrace":
            changed = (MADE_ANEW, *changed) if not called.traces else changed or (ELSEWHERE,)
        elif what != "relaxed":
            changed = ()
        if len(function.logged) < _TRACES_KEPT:
            function.logged.append(Trace(function.calls, at_ns, ns, what, changed[:_SHOWN], called.number))

    def _kind(self, called: Called, callee: Any, concrete: Any, kind: Any) -> TraceKind:
        function = called.function
        if not called.traces:
            state = self._state(concrete)
            shares = any(state & known if state else not known for known in function.states)
            return "retrace" if function.states and shares else "first"
        if called.traces == 1 and private.has_created_variables(callee):
            return "variables"
        relaxes = private.is_relaxing(callee) and function.function_type is not None
        return "relaxed" if relaxes and is_relaxed(function.function_type, kind) else "retrace"

    def _state(self, concrete: Any) -> frozenset[int]:
        return frozenset(self._numbers.of(variable) for variable in private.living_variables(concrete))

    def _keep(self, function: Function, concrete: Any) -> None:
        kind = private.function_type(concrete)
        state = function.states.setdefault(self._state(concrete), len(function.states))
        shapes = tensors_of(kind) if kind is not None else ()
        if len(function.concretes) < _CONCRETES_KEPT:
            shape = function.shapes.setdefault(shapes, len(function.shapes))
            function.concretes[private.function_name(concrete)] = (state, shape)


def _described(identity: str, function: Function) -> ScriptFunction:
    return ScriptFunction(
        id=identity,
        name=function.place.name,
        source=function.place.source,
        calls=function.calls,
        ns=function.ns,
        traces=function.traces,
        traced_ns=function.traced_ns,
        concretes=tuple(function.concretes),
        objects=len([used for used in function.used if used]),
        states=tuple(state for state, _ in function.concretes.values()),
        shapes=tuple(shape for _, shape in function.concretes.values()),
        period_ns=function.periods.median_ns,
        periods=function.periods.count,
        unrecorded_ns={name: tuple(times.kept_ns) for name, times in function.unrecorded.items()},
    )


def _traces(identity: str, function: Function) -> Iterator[ScriptTrace]:
    usual_ns = function.times.median_ns
    for trace in function.logged:
        kind, changed = trace.kind, trace.changed
        if kind == "retrace" and MADE_ANEW in changed and _is_in_use(function.used[: trace.object], trace.call):
            kind, changed = "first", ()
        lost_ns = max(trace.ns - usual_ns, 0) if usual_ns is not None else None
        yield ScriptTrace(identity, trace.call, trace.at_ns, trace.ns, kind, changed, lost_ns)


def _is_in_use(earlier: Iterable[Sequence[int]], call: int) -> bool:
    """Whether objects that were made before go on being called: then the new one is another function beside them."""
    return any(used and used[1] > call for used in earlier)
