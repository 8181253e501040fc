"""Where TensorFlow is called from Python: functions, Sessions and the profiler, wrapped when their module is imported.

Nothing is imported for the script's sake: a module that it never needs is never wrapped.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, Protocol

_FUNCTIONS: Final = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_CONCRETE: Final = "tensorflow.python.eager.polymorphic_function.concrete_function"
_TAPES: Final = "tensorflow.python.eager.backprop"
_SESSIONS: Final = "tensorflow.python.client.session"
_PROFILER: Final = "tensorflow.python.profiler.profiler_v2"


class Caller(Protocol):
    """Who is told of calls; each runs ``call``, and returns or raises what it does."""

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """A ``tf.function`` or a ``ConcreteFunction`` is called."""

    def execution(self, concrete: Any) -> None:
        """A ``ConcreteFunction`` is about to be executed, or to be called within a trace."""

    def gradient(self, call: Callable[[], Any]) -> Any:
        """A ``GradientTape`` is asked for gradients."""

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """A Session runs what it takes to fetch ``fetches``."""

    def profiler(self, call: Callable[[], Any]) -> Any:
        """TensorFlow's profiler, of which there is one in a process, is started."""


def install(caller: Caller) -> None:
    """Tell ``caller`` of every call from now on, of modules that are imported already and of those that will be."""
    wrappers: dict[str, Callable[[ModuleType], None]] = {
        _FUNCTIONS: lambda module: _wrap_function(module.Function, caller),
        _CONCRETE: lambda module: _wrap_concrete(module.ConcreteFunction, caller),
        _TAPES: lambda module: _wrap_gradient(module.GradientTape, caller),
        _SESSIONS: lambda module: _wrap_session(module.BaseSession, caller),
        _PROFILER: lambda module: _wrap_profiler(module, caller),
    }
    for name in wrappers.keys() & sys.modules.keys():
        wrappers.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _Finder(wrappers))


def _wrap_function(kind: Any, caller: Caller) -> None:
    call = kind.__call__

    @functools.wraps(call)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.function(self, lambda: call(self, *args, **kwargs))

    kind.__call__ = called


def _wrap_concrete(kind: Any, caller: Caller) -> None:
    _wrap_function(kind, caller)
    execute = kind._call_flat

    @functools.wraps(execute)
    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        caller.execution(self)
        return execute(self, *args, **kwargs)

    kind._call_flat = executed


def _wrap_gradient(kind: Any, caller: Caller) -> None:
    gradient = kind.gradient

    @functools.wraps(gradient)
    def differentiated(self: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.gradient(lambda: gradient(self, *args, **kwargs))

    kind.gradient = differentiated


def _wrap_session(kind: Any, caller: Caller) -> None:
    run = kind.run

    @functools.wraps(run)
    def ran(self: Any, fetches: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.session(self, fetches, lambda: run(self, fetches, *args, **kwargs))

    kind.run = ran


def _wrap_profiler(module: Any, caller: Caller) -> None:
    start = module.start

    @functools.wraps(start)
    def started(*args: Any, **kwargs: Any) -> Any:
        return caller.profiler(lambda: start(*args, **kwargs))

    module.start = started


class _Finder(MetaPathFinder):
    """Finds what the others find; what is to be wrapped is, once it was executed."""

    def __init__(self, wrappers: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._wrappers = wrappers

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._wrappers:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader, self._wrappers[fullname])
        return spec


class _Wrapping(Loader):
    """Loads as another loader does, and steps back: whoever asks the module for its source asks that one."""

    def __init__(self, loader: Loader, wrap: Callable[[ModuleType], None]) -> None:
        self._loader, self._wrap = loader, wrap

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._wrap(module)
