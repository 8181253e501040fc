"""A program that is watched goes on where watching it fails: its calls are made once, and end as they would alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from graphlens.tf.watch.hooks import Caller


class Watching(Caller, Protocol):
    """Who is told of calls, and can be told to stop watching."""

    def give_up(self, error: Exception) -> None:
        """Watch no more: it has failed, and why is left with what was recorded."""


class _Once(partial[Any]):
    """A call of the program that remembers how it went, so that it is never made again."""

    has_run = False
    returned: Any = None
    error: BaseException | None = None

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.has_run = True
        try:
            self.returned = super().__call__()
        except BaseException as error:
            self.error = error
            raise
        return self.returned


class Harmless:
    """Hands on to ``watching`` what hooks tell, and keeps its errors from the program (``hooks.Caller``).

    What the program's own call raises is the program's, and so is ``SystemExit``, with which a watch ends a program
    that is to stop.
    """

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """Hand on a call of a function."""
        return self._run(call, lambda once: self._watching.function(function, once))

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        """Hand on that gradients are asked for."""
        return self._run(call, lambda once: self._watching.gradient(tape, once))

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """Hand on a call of a Session."""
        return self._run(call, lambda once: self._watching.session(session, fetches, once))

    def profiler(self, call: Callable[[], Any]) -> Any:
        """Hand on that the profiler is started."""
        return self._run(call, self._watching.profiler)

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        """Hand on that a tensor becomes a value of Python."""
        return self._run(call, lambda once: self._watching.read(how, once))

    def execution(self, concrete: Any) -> None:
        """Hand on that a function is about to be executed."""
        self._tell(lambda: self._watching.execution(concrete))

    def traced(self, traces: Any, concrete: Any) -> None:
        """Hand on that a function was traced."""
        self._tell(lambda: self._watching.traced(traces, concrete))

    def rows(self, variable: Any, method: str) -> None:
        """Hand on that rows of a variable are read or written."""
        self._tell(lambda: self._watching.rows(variable, method))

    def iterates(self, dataset: Any) -> None:
        """Hand on that a dataset is iterated over."""
        self._tell(lambda: self._watching.iterates(dataset))

    def _run(self, call: Callable[[], Any], watched: Callable[[_Once], Any]) -> Any:
        once = _Once(call)
        try:
            try:
                return watched(once)
            except Exception as error:  # whatever it is: it must not become the program's
                if error is once.error:
                    raise
                self._give_up(error)
            return self._as_it_went(once)  # out here, so that its own error is raised in no context of ours
        finally:
            once.returned = once.error = None  # the program may be done with it before the watch is

    @staticmethod
    def _as_it_went(once: _Once) -> Any:
        if once.error is not None:
            raise once.error
        return once.returned if once.has_run else once()

    def _tell(self, watched: Callable[[], Any]) -> None:
        try:
            watched()
        except Exception as error:  # as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        with suppress(Exception):  # there is nobody left to be told
            self._watching.give_up(error)
