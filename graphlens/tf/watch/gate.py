"""A gate before the steps of a script: it stands still there until its parent lets it make some more.

What the parent asks for comes through one pipe, and what came of it goes through another one: standard input and output
are the script's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from graphlens.children.gate_messages import (
    CompareValues,
    KeepValues,
    Over,
    RunBlock,
    RunSteps,
    RunToGate,
    TakeElements,
    TakeValues,
)
from graphlens.children.messages import Block, Failure
from graphlens.tf import private
from graphlens.tf.watch import arguments
from graphlens.tf.watch.alone import InputAlone

STEADY_CALLS: Final = 3  # as in ``window``
# Where two runs of a script are compared they have made a multiple of this many steps: a call of several steps ends
# there as well, and a call of one does.
ALIGNED: Final = 8
# A program that is traced in every call is never steady, and can be timed all the same.
PATIENCE: Final = 24

Requests = RunSteps | RunBlock | TakeElements | KeepValues | TakeValues | CompareValues


class Channel(Protocol):
    """The pipes to the parent."""

    def receive(self) -> Requests:
        """Wait for the next request."""

    def send(self, message: Any) -> None:
        """Answer it."""


class Gate:
    """Is told of every call of a script (``hooks.Caller``), and holds up those of one program.

    Parameters
    ----------
    request
        Which program, and where to stop first.
    channel
        The pipes to the parent.
    applied
        How often each option of the edits changed a call so far.
    """

    def __init__(self, request: RunToGate, channel: Channel, applied: dict[str, int]) -> None:
        self._request, self._watched = request, request.watched
        self._channel = channel
        self._applied = applied
        self.is_answering = False  # then what is done is not the script's doing
        self._thread = threading.local()
        self._objects: list[Any] = []  # the functions of the name that is watched, in the order of their first calls
        self._fetches: dict[Any, int] = {}
        self._program: Any = None
        self._calls = self._steady_calls = 0
        self._rounds = 0  # over the data of an epoch, that are being made
        self._turns = False  # from one of them to the next, since the last call
        self._ended = _now()  # the last call
        self._is_given_data = False  # the call that is held up
        self._loops = False  # over its data, the program that has stood: then the call can be made again
        self._has_stood = False
        self._first_ns = self._last_ns = 0
        self._until: Callable[[], Any | None] = self._is_at_gate
        self._input = InputAlone()

    # -- what hooks tell ----------------------------------------------------------------------------------------

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """Hold up a call of the function that is meant."""
        if self._is_within() or not private.is_executing_eagerly() or not self._is_meant(function):
            return call()
        return self._held_up(call, lambda: private.tracing_count(function))

    def execution(self, concrete: Any) -> None:
        """Note what is executed: its variables are those of the program."""
        if self._is_within() and private.is_executing_eagerly():
            name = private.base_name(private.function_name(concrete))
            # Beside it, what it takes to initialize its variables is executed.
            if name == self._watched.name or self._program is None:
                self._program = concrete

    def traced(self, _traces: Any, _concrete: Any) -> None:
        """Let functions be traced."""

    def gradient(self, _tape: Any, call: Callable[[], Any]) -> Any:
        """Let a ``GradientTape`` be."""
        return call()

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """Hold up what a Session fetches again and again."""
        from graphlens.tf.watch.programs import key_of

        if self._is_within() or self._watched.name:
            return call()
        key = (id(session), key_of(fetches))
        self._fetches[key] = self._fetches.get(key, 0) + 1
        if self._fetches[key] != max(self._fetches.values()):
            return call()
        self._program = session
        return self._held_up(call, lambda: 0)

    def profiler(self, call: Callable[[], Any]) -> Any:
        """Let the script have the profiler."""
        return call()

    def read(self, _how: str, call: Callable[[], Any]) -> Any:
        """Let tensors be read."""
        return call()

    def rows(self, _variable: Any, _method: str) -> None:
        """Let rows of variables be."""

    def iterates(self, dataset: Any) -> None:
        """Note what the script iterates over."""
        if not self.is_answering:
            self._input.note(dataset)

    @contextmanager
    def round(self) -> Iterator[Callable[[], bool]]:
        """Make a round over the data of an epoch; yield what tells whether another one is to follow.

        That is so once its steps are made for their time only: the steps of a short script would soon be over.  What
        lies between the last step of a round and the first one of the next is timed with none: there would be no round.
        """
        calls, self._rounds = self._calls, self._rounds + 1
        self._turns = self._has_stood and self._calls > 0
        try:
            yield lambda: self._has_stood and self._calls > calls
        finally:
            self._rounds -= 1

    @property
    def may_do_again(self) -> bool:
        """Whether what is done outside of the process now was done by the script itself, and may be done again."""
        return self._request.does_again and not self._has_stood

    def finish(self) -> None:
        """Say that the script is over."""
        self._channel.send(Over("the script came to its end"))

    # -- a call -------------------------------------------------------------------------------------------------

    def _is_within(self) -> bool:
        return bool(getattr(self._thread, "within", False))

    def _is_meant(self, function: Any) -> bool:
        if private.python_name(function) != self._watched.name:
            return False
        if not any(function is known for known in self._objects):
            self._objects.append(function)
        # One that is made anew for each call is the same program whichever object is called.
        return function is self._objects[min(self._watched.number, len(self._objects) - 1)] or self._is_made_anew()

    def _is_made_anew(self) -> bool:
        return len(self._objects) > PATIENCE

    def _held_up(self, call: Callable[[], Any], traces: Callable[[], int]) -> Any:
        self._thread.within = True
        self._is_given_data = is_given_data = _is_given_data(call)
        try:
            while True:
                self._arrive()
                begins_anew = is_given_data and self._loops
                steps = self._steps() if begins_anew else 0
                result = self._timed(call, traces)
                is_repeated = begins_anew and self._steps() > steps  # else its data are used up
                if not (self._watched.called_again or is_repeated):
                    return result
                call = self._to_be_made_again(call)
        finally:
            self._thread.within = False

    def _to_be_made_again(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return a call with other iterators for those that it was given and that its loop has used up."""
        if not isinstance(call, partial) or not arguments.has_iterators((call.args, call.keywords)):
            return call
        if not self._is_loop():
            return call
        args, keywords = arguments.with_new_iterators((call.args, call.keywords))
        return partial(call.func, *args, **keywords)

    def _is_loop(self) -> bool:
        from graphlens.tf.watch import programs

        return self._program is not None and programs.is_loop(self._program)

    def _timed(self, call: Callable[[], Any], traces: Callable[[], int]) -> Any:
        before, begun_ns = traces(), time.perf_counter_ns()
        try:
            return call()
        finally:
            self._ended = _now()
            self._last_ns = self._ended.wall_ns - begun_ns
            self._first_ns = self._first_ns or self._last_ns
            self._calls += 1
            self._steady_calls = 0 if traces() > before else self._steady_calls + 1

    # -- standing still -----------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        """Go on where more steps are allowed; else answer, and wait for what comes next."""
        if self._turns and isinstance(self._until, _Steps | _Timed):
            self._until.leave_out(self._ended)
        self._turns = False
        answer = self._until()
        while answer is not None:
            self._channel.send(answer)
            answer = self._answered(self._channel.receive())

    def _answered(self, request: Requests) -> Any | None:
        """Return the answer to what is done standing still, ``None`` once steps are to be made."""
        if isinstance(request, RunSteps):
            self._until = _Steps(self._steps, request.steps)
            return None
        if isinstance(request, RunBlock):
            self._until = _Timed(self._steps, request.ms)
            return None
        self.is_answering = True
        try:
            return self._answered_still(request)
        except Exception as error:  # whatever TensorFlow says to it; the script goes on
            return Failure(f"{type(error).__name__}: {error}")
        finally:
            self.is_answering = False

    def _answered_still(self, request: TakeElements | KeepValues | TakeValues | CompareValues) -> Any:
        if isinstance(request, TakeElements):
            return self._input.answer(request)
        from graphlens.tf.watch import values

        return values.answer(request, self._program)

    def _is_at_gate(self) -> Any | None:
        """Return where it stands, once the program is steady and as far as it is to be."""
        step = self._steps()
        if not self._calls or step < self._request.at_step:
            return None
        waited = self._watched.called_again or self._request.at_step > 0 or self._calls >= PATIENCE
        if not waited and (self._steady_calls < STEADY_CALLS or step % ALIGNED):
            return None
        from graphlens.tf.watch import values

        self._has_stood = True
        self._loops = self._is_given_data and self._is_loop()
        at_gate = values.at_gate(step, self._calls, (self._first_ns, self._last_ns), self._applied)
        return replace(at_gate, endless=self._rounds > 0 or self._loops)

    def _steps(self) -> int:
        """Return how many steps were made: as an optimizer counts them, which knows of several in one call."""
        if self._program is None or self._watched.called_again or private.is_session(self._program):
            return self._calls
        from graphlens.tf.watch import values

        counted = values.counted_steps(self._program)
        return self._calls if counted is None else counted


def _is_given_data(call: Callable[[], Any]) -> bool:
    """Tell whether a call is given a dataset: if it loops over it, it does so from the start each time it is made."""
    return isinstance(call, partial) and any(True for _ in arguments.datasets_in((call.args, call.keywords)))


class _Steps:
    """Allows a number of steps, and answers how long they took."""

    def __init__(self, steps: Callable[[], int], wanted: int) -> None:
        self._steps, self._end = steps, steps() + wanted
        self._clock = _Clock(steps)

    def __call__(self) -> Any | None:
        return None if self._steps() < self._end else self._clock.read()

    def leave_out(self, since: _Moment) -> None:
        """Time nothing of what was done since then."""
        self._clock.leave_out(since)


class _Timed:
    """Allows steps for a while, and answers how long each took; the first call is not timed."""

    def __init__(self, steps: Callable[[], int], ms: float) -> None:
        self._steps, self._ns = steps, ms * 1e6
        self._clock: _Clock | None = None
        self._calls = 0

    def __call__(self) -> Any | None:
        self._calls += 1
        if self._clock is None:
            self._clock = _Clock(self._steps)
            return None
        return None if self._clock.passed_ns() < self._ns else self._clock.read()

    def leave_out(self, since: _Moment) -> None:
        """Time nothing of what was done since then."""
        if self._clock is not None:
            self._clock.leave_out(since)


class _Moment(NamedTuple):
    wall_ns: int
    cpu_ns: int


def _now() -> _Moment:
    return _Moment(time.perf_counter_ns(), time.process_time_ns())


class _Clock:
    """Measures steps from when it was made on."""

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps, self._first = steps, steps()
        self._begun = _now()

    def passed_ns(self) -> int:
        return time.perf_counter_ns() - self._begun.wall_ns

    def leave_out(self, since: _Moment) -> None:
        now = _now()
        self._begun = _Moment(
            *(begun + until - left for begun, until, left in zip(self._begun, now, since, strict=True))
        )

    def read(self) -> Block:
        now, steps = _now(), max(1, self._steps() - self._first)
        return Block((now.wall_ns - self._begun.wall_ns) / steps, (now.cpu_ns - self._begun.cpu_ns) / steps)
