"""The process of a script: it runs as it would without GraphLens, and a window of it is recorded.

Called as ``FOLDER STEPS THEN SCRIPT [ARGUMENTS]``, or ``FOLDER STEPS THEN -m MODULE [ARGUMENTS]``; ``THEN`` is what
the script does once its window was recorded: ``stop``, or ``go-on``.
"""

from __future__ import annotations

import atexit
import builtins
import os
import runpy
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from graphlens.collector import collector_unmoved
from graphlens.ir.script import DEEDS, UNSUPPORTED
from graphlens.tf.watch import hooks, outside, unsupported, writes
from graphlens.tf.watch.harmless import Harmless

FAILED: Final = "watching the program failed before anything was recorded: {}"
_NOT_THE_SCRIPT: Final = (__name__, "runpy", "<frozen runpy>")
_WATCHING: Final = (__name__, *(f"graphlens.tf.watch.{name}" for name in ("hooks", "harmless", "watch")))


class Late:
    """Stands in for the watch, which needs TensorFlow, until TensorFlow is called for the first time."""

    def __init__(self, folder: Path, name: str, steps: int, *, stops: bool = False) -> None:
        self._made: Any = None
        self._lock = threading.Lock()  # two threads may make the first call at once
        self._arguments = (folder, name, steps)
        self._stops = stops
        self._why_not = ""  # it could not be made, where that failed
        self._iterated: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """Hand on a call of a function."""
        return self._watch().function(function, call)

    def execution(self, concrete: Any) -> None:
        """Hand on that a function is about to be executed."""
        if self._made is not None:
            self._made.execution(concrete)

    def traced(self, traces: Any, concrete: Any) -> None:
        """Hand on that a function was traced."""
        if self._made is not None:
            self._made.traced(traces, concrete)

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        """Hand on that gradients are asked for."""
        return self._watch().gradient(tape, call)

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """Hand on a call of a Session."""
        return self._watch().session(session, fetches, call)

    def profiler(self, call: Callable[[], Any]) -> Any:
        """Hand on that the profiler is started."""
        return call() if self._made is None else self._made.profiler(call)

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        """Hand on that a tensor becomes a value of Python."""
        return call() if self._made is None else self._made.read(how, call)

    def rows(self, variable: Any, method: str) -> None:
        """Hand on that rows of a variable are read or written."""
        self._watch().rows(variable, method)

    def iterates(self, dataset: Any) -> None:
        """Hand on that a dataset is iterated over; before anything is called, it is noted for later."""
        if self._made is not None:
            self._made.iterates(dataset)
        else:
            self._iterated.pop(id(dataset), None)  # so that the last ones are the last
            self._iterated[id(dataset)] = dataset

    def finish(self) -> None:
        """End what is being recorded, if anything ever was."""
        try:
            if self._made is not None:
                self._made.finish()
        except Exception as error:  # the program's end is its own, whatever it is
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Watch no more: it has failed, which is told where that can be written."""
        if self._made is not None:
            self._made.give_up(error)
        elif not self._why_not:
            from graphlens.errors import first_line

            self._why_not = FAILED.format(f"{type(error).__name__}: {first_line(error)}")
            noted = self._arguments[0] / UNSUPPORTED
            noted.write_text(self._why_not, encoding="utf-8", errors="backslashreplace")

    def leave(self) -> None:
        """Do nothing but the calls from now on, and have TensorFlow keep no graphs any more."""
        if self._made is not None:
            self._made.leave()

    @property
    def has_recorded(self) -> bool:
        """Whether a recording of steady calls is complete."""
        return self._made is not None and self._made.has_recorded

    def _watch(self) -> Any:
        with self._lock:
            if self._why_not:  # whatever it imports is not to be tried again with each call
                raise RuntimeError(self._why_not)
            if self._made is None:
                with collector_unmoved():
                    from graphlens.tf.watch.watch import Watch

                made = Watch(*self._arguments, stops=self._stops)
                for dataset in list(self._iterated.values()):
                    made.iterates(dataset)
                self._made = made
        return self._made


def main(arguments: list[str]) -> None:
    """Run the script; whatever ends it ends this process."""
    folder, steps, then, *script = arguments
    name = script[1] if script[0] == "-m" else script[0]
    watch = Late(Path(folder), name, int(steps), stops=then == "stop")
    hooks.Hooks(Harmless(watch)).install()
    for watching in (outside.watch, writes.watch):
        watching(lambda deed: _note(Path(folder), watch, deed), own=folder, caches=True)
    end = atexit.register(watch.finish)
    try:
        run(script)
    except KeyboardInterrupt:
        atexit.unregister(end)
        atexit.register(_interrupted, watch)
        raise
    except Exception as error:
        why = unsupported.explanation(error)
        if why:
            (Path(folder) / UNSUPPORTED).write_text(why, encoding="utf-8")
        _tell(error)
        sys.exit(1)


def _interrupted(watch: Late) -> None:
    """End what is recorded, and have Python end as it does after an interrupt: by the signal, as shells expect it.

    It remembers that the interrupt was caught by nobody until the next source text is executed, which importing
    dataclasses does; that is so from 3.8 to 3.13 (``run_eval_code_obj`` of ``pythonrun.c``).
    """
    watch.finish()
    with suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")


def _note(folder: Path, watch: Late, deed: str) -> None:
    """Write down what the script is about to do outside of itself, as long as its steps are not recorded."""
    if watch.has_recorded:
        return
    # A name of a file may be no text at all, and a disk may be full: neither is to be an error of the script.
    with suppress(OSError), (folder / DEEDS).open("a", encoding="utf-8", errors="backslashreplace") as notes:
        notes.write(deed + "\n")


def run(script: list[str]) -> None:
    """Run a file, or ``-m`` and a module, with its arguments, as Python does."""
    if script[0] == "-m":
        _run_module(script[1], script[2:])
    else:
        _run_file(script[0], script[1:])


def _tell(error: BaseException) -> None:
    """Say what the script raised, as Python says it: from the first line of the script on, without what watches."""
    trace = error.__traceback__
    while trace is not None and _is_of(trace, _NOT_THE_SCRIPT):
        trace = trace.tb_next
    for one in _chain(error):
        one.__traceback__ = _without_ours(trace if one is error else one.__traceback__)
    sys.excepthook(type(error), error, error.__traceback__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that Python tells before it."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the calls of what watches, which stand between the script's line and TensorFlow."""
    kept: TracebackType | None = None
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    for one in reversed(frames):
        if not _is_of(one, _WATCHING):
            one.tb_next = kept
            kept = one
    return kept


def _is_of(trace: TracebackType, modules: tuple[str, ...]) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")) in modules


def _run_module(module: str, arguments: list[str]) -> None:
    sys.path.insert(0, os.getcwd())
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _run_file(path: str, arguments: list[str]) -> None:
    """Run a file as Python does: as the module ``__main__``, which stays there until the process ends."""
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    sys.argv = [path, *arguments]
    module = ModuleType("__main__")
    module.__file__ = os.path.abspath(path)
    vars(module)["__builtins__"] = builtins
    sys.modules["__main__"] = module
    exec(compile(Path(path).read_bytes(), module.__file__, "exec"), vars(module))
