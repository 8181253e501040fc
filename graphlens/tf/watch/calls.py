"""The log of all calls of a program: counted by function, with each trace and what caused it."""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, NamedTuple

from graphlens.errors import first_line
from graphlens.ir.capture import new_id
from graphlens.ir.run import SESSION
from graphlens.ir.script import ANOTHER_CONTEXT, MADE_ANEW, Script, ScriptFunction, ScriptTrace, TraceKind
from graphlens.tf import private
from graphlens.tf.watch.changes import changes, is_relaxed, tensors_of
from graphlens.tf.watch.given import given_to
from graphlens.tf.watch.places import Numbers, Place, place_of

# What is kept of a program that runs for days: what it traces again and again is told by the first ones.
_TRACES_KEPT: Final = 1000
_CONCRETES_KEPT: Final = 4000
_TIMES_KEPT: Final = 512
_TIMED_KEPT: Final = 64  # traces whose calls are timed; a step has one, or few
_LONG_NS: Final = 1_000_000  # a shorter call makes no steps of which several are worth to be told apart
_SHOWN: Final = 6  # arguments of one trace
# With so many traces before it each new one is compared: with all of them takes long where there are hundreds.
_COMPARED: Final = 8
# Of so many calls alike the median tells what such a call takes.
_FEWEST_TIMED: Final = 3

NOT_COMPARED: Final = "what changed from one trace of a function to the next could not be told: {}"


class Made(NamedTuple):
    """A trace that a thread has made: ``concrete`` is one of ``traces``, of which there were ``number`` then."""

    traces: Any
    number: int
    concrete: Any


class Call(NamedTuple):
    """A call that has ended: what it executed, all that its thread traced in it, when it began, how long it took.

    ``concrete`` is ``None`` where nothing was executed by that name: by Sessions, and where a graph is built.
    ``run`` is the call itself, with what it was given.
    """

    concrete: Any
    made: Sequence[Made]
    begun_ns: int
    ns: int
    run: Callable[[], Any] | None = None


@dataclass
class Trace:
    """A call in which a function was traced; ``name`` is what the trace is called."""

    call: int
    at_ns: int
    ns: int
    kind: TraceKind
    changed: tuple[str, ...]
    object: int
    name: str


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

    ``function_type`` is that of the latest trace of any object, ``times`` are of calls in which nothing was traced, and
    ``used`` is when each Python object behind it was called first and last, by number of the call.  ``periods`` are
    from call to call, of which ``begun`` is the last: its thread, how often recordings had begun or ended, and when it
    was.
    ``unrecorded`` are those of ``times`` while nothing was recorded, by the trace that ran, ``by_given`` the long ones
    among them by what the call was given as well; ``recorded_given`` is what those calls were given that are recorded.
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
    by_given: dict[tuple[str, Hashable], Times] = field(default_factory=dict)
    recorded_given: dict[str, set[Hashable]] = field(default_factory=lambda: defaultdict(set))

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
            if private.tracing_count(function) and private.traces_of(function) is None:
                self.notes = (private.NO_TRACES,)
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
        if self._is_recording:
            for function in self._functions.values():
                function.recorded_given.clear()

    def ended(self, called: Called, callee: Any, call: Call) -> bool:
        """Count a call that has ended, and return whether its function was traced in it."""
        function, own = called.function, [one for one in call.made if one.traces is private.traces_of(callee)]
        function.calls += 1
        function.ns += call.ns
        function.begins(threading.get_ident(), self._recordings, call.begun_ns)
        self._used(called)
        if call.concrete is not None and call.ns >= _LONG_NS:
            self._note_given(function, call, is_timed=not own)
        if own:
            function.traces += len(own)
            function.traced_ns += call.ns
            self._unless_it_fails(self._traced, called, callee, own, call)
        elif not private.is_building_graph():
            self._untraced(function, call.concrete, call.ns)
        return bool(own)

    def _untraced(self, function: Function, concrete: Any, ns: int) -> None:
        function.times.add(ns)
        if concrete is None:
            return
        if not function.concretes:  # it was traced before anybody watched
            self._unless_it_fails(self._keep, function, concrete)
        if not self._is_recording:
            self._time(function, private.function_name(concrete), ns)

    @property
    def _is_recording(self) -> bool:
        return self._recordings % 2 == 1

    def _note_given(self, function: Function, call: Call, *, is_timed: bool) -> None:
        if call.run is None or (given := given_to(call.run, self._numbers)) is None:
            return
        name = private.function_name(call.concrete)
        if self._is_recording:
            function.recorded_given[name].add(given)
        elif is_timed and ((name, given) in function.by_given or len(function.by_given) < _TIMED_KEPT):
            function.by_given.setdefault((name, given), Times()).add(call.ns)

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

    def _traced(self, called: Called, callee: Any, made: Sequence[Made], call: Call) -> None:
        function, concrete, earlier = called.function, made[-1].concrete, made[0].number - 1
        kind = private.function_type(concrete)
        before = _nearest(private.types_traced(made[0].traces)[:earlier] or [function.function_type], kind)
        what = self._kind(called, callee, concrete, earlier, before)
        changed = changes(before, kind) if before is not None and kind is not None else ()
        self._keep(function, concrete)
        function.function_type = kind
        if what == "retrace":
            changed = changed or (ANOTHER_CONTEXT,) if earlier else (MADE_ANEW, *changed)
        elif what != "relaxed":
            changed = ()
        if len(function.logged) < _TRACES_KEPT:
            at_ns, name = call.begun_ns - self._begun_ns, private.function_name(concrete)
            function.logged.append(Trace(function.calls, at_ns, call.ns, what, changed[:_SHOWN], called.number, name))

    def _kind(self, called: Called, callee: Any, concrete: Any, earlier: int, before: Any) -> TraceKind:
        function = called.function
        if not earlier:
            state = self._state(concrete)
            shares = any(state & known if state else not known for known in function.states)
            return "retrace" if function.states and shares else "first"
        if earlier == 1 and private.has_created_variables(callee):
            return "variables"
        relaxes = private.is_relaxing(callee) and before is not None
        return "relaxed" if relaxes and is_relaxed(before, private.function_type(concrete)) else "retrace"

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
        alike_ns=dict(_of_given_ns(function)),
    )


def _of_given_ns(function: Function) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield how long calls took that were given what the recorded ones of the same trace were given, all the same."""
    for name, recorded in function.recorded_given.items():
        times = function.by_given.get((name, next(iter(recorded)))) if len(recorded) == 1 else None
        if times is not None:
            yield name, tuple(times.kept_ns)


def _traces(identity: str, function: Function) -> Iterator[ScriptTrace]:
    usual_ns, alike_ns = function.times.median_ns, _alike_ns(function)
    for trace in function.logged:
        kind, changed = trace.kind, trace.changed
        if kind == "retrace" and MADE_ANEW in changed and _is_in_use(function.used[: trace.object], trace.call):
            kind, changed = "first", ()
        without_ns = alike_ns.get(function.concretes.get(trace.name), usual_ns)
        lost_ns = max(trace.ns - without_ns, 0) if without_ns is not None else None
        yield ScriptTrace(identity, trace.call, trace.at_ns, trace.ns, kind, changed, lost_ns)


def _nearest(types: Sequence[Any], kind: Any) -> Any:
    """Return what the fewest arguments tell from a type: what else is new, was so before.

    Of several it is one with the same tensors, for they were known then, and of those the latest.
    """
    known = [one for one in types[-_COMPARED:] if one is not None]
    if kind is None or not known:
        return known[-1] if known else None
    tensors = tensors_of(kind)
    return min(reversed(known), key=lambda one: (len(changes(one, kind)), tensors_of(one) != tensors))


def _alike_ns(function: Function) -> Mapping[tuple[int, int] | None, int]:
    """Return what a call takes without a trace and without the profiler, by what tells its work: variables, shapes."""
    alike: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for name, times in function.unrecorded.items():
        if name in function.concretes:
            alike[function.concretes[name]] += times.kept_ns
    return {key: round(median(ns)) for key, ns in alike.items() if len(ns) >= _FEWEST_TIMED}


def _is_in_use(earlier: Iterable[Sequence[int]], call: int) -> bool:
    """Whether objects that were made before go on being called: then the new one is another function beside them."""
    return any(used and used[1] > call for used in earlier)
