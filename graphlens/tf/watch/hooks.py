"""Where TensorFlow is called from Python: functions, Sessions and the profiler, wrapped when their module is imported.

Nothing is imported for the script's sake: a module that it never needs is never wrapped.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, Protocol, TypeAlias

from graphlens.tf.datasets import creation
from graphlens.tf.record import layers
from graphlens.tf.watch import arguments

_FUNCTIONS: Final = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_CONCRETE: Final = "tensorflow.python.eager.polymorphic_function.concrete_function"
_TRACES: Final = "tensorflow.core.function.polymorphism.function_cache"
_TAPES: Final = "tensorflow.python.eager.backprop"
_TENSORS: Final = "tensorflow.python.framework.ops"
# What makes a value of Python of a tensor; its shape is known without.  Variables are shown by the one with the
# underscore; where the buffer of a tensor is read, as by ``np.asarray``, no method is called.
_READING: Final = (
    "numpy", "_numpy", "__array__", "__bool__", "__complex__", "__float__", "__format__", "__index__", "__int__",
    "__repr__", "__str__",
)  # fmt: skip
_SESSIONS: Final = "tensorflow.python.client.session"
_VARIABLES: Final = "tensorflow.python.ops.resource_variable_ops"
_ITERATORS: Final = "tensorflow.python.data.ops.iterator_ops"
_PROFILER: Final = "tensorflow.python.profiler.profiler_v2"

# The methods of a variable that read or write rows of it by their numbers.
ROW_METHODS: Final = frozenset(
    {"sparse_read", "gather_nd"}
    | {f"scatter_{how}" for how in ("sub", "add", "max", "min", "mul", "div", "update")}
    | {f"scatter_nd_{how}" for how in ("sub", "add", "max", "min", "update")}
)


class Caller(Protocol):
    """Who is told of calls; each runs ``call``, and returns or raises what it does."""

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """A ``tf.function`` or a ``ConcreteFunction`` is called; ``call`` is a ``partial`` with what it is given."""

    def execution(self, concrete: Any) -> None:
        """A ``ConcreteFunction`` is about to be executed, or to be called within a trace."""

    def traced(self, traces: Any, concrete: Any) -> None:
        """This thread has traced a function: ``traces`` has all that it has, the new one among them."""

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        """A ``GradientTape`` is asked for gradients."""

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """A Session runs what it takes to fetch ``fetches``."""

    def profiler(self, call: Callable[[], Any]) -> Any:
        """TensorFlow's profiler, of which there is one in a process, is started."""

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        """An eager tensor becomes a value of Python: ``how`` is the method."""

    def rows(self, variable: Any, method: str) -> None:
        """Rows of a variable are about to be read or written by their numbers."""

    def iterates(self, dataset: Any) -> None:
        """A dataset is about to be iterated over."""


class Hooks:
    """What TensorFlow offers to a program, wrapped so that a caller is told, and as it was before."""

    def __init__(self, caller: Caller) -> None:
        self._placed: list[_Placed] = []
        self._caller = caller
        self._finder = Finder(
            {
                _FUNCTIONS: lambda module: self._put(module.Function, "__call__", _function, caller),
                _CONCRETE: lambda module: self._put_concrete(module.ConcreteFunction, caller),
                _TRACES: lambda module: self._put(module.FunctionCache, "add", _traced, caller),
                _TAPES: lambda module: self._put(module.GradientTape, "gradient", _gradient, caller),
                _TENSORS: lambda module: self._put_reads(module._EagerTensorBase, caller),
                _SESSIONS: lambda module: self._put(module.BaseSession, "run", _session, caller),
                _VARIABLES: lambda module: self._put_rows(module.BaseResourceVariable, caller),
                _ITERATORS: lambda module: self._put(module.OwnedIterator, "__init__", _iterator, caller),
                creation.DEFINING: lambda module: self._put_datasets(module.DatasetV2, caller),
                _PROFILER: lambda module: self._put(module, "start", _profiler, caller),
                **{place.module: functools.partial(self._put_noting, place) for place in layers.PLACES},
            }
        )

    def install(self) -> None:
        """Tell the caller of every call from now on, of modules that are imported already and that will be."""
        self._finder.install()

    def remove(self) -> None:
        """Leave what is wrapped as it was; what somebody else has wrapped since stays, and its caller is still told."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        while self._placed:
            self._placed.pop().take_back()

    def _put(self, owner: Any, name: str, wrapper_of: _WrapperOf, caller: Caller) -> None:
        before = getattr(owner, name)
        wrapper = functools.wraps(before)(wrapper_of(before, caller))
        self._placed.append(_Placed(owner, name, wrapper, before, is_own=name in vars(owner)))
        setattr(owner, name, wrapper)

    def _put_noting(self, place: layers.Place, module: ModuleType) -> None:
        self._put(getattr(module, place.owner), place.method, lambda before, _: place.wrapper(before), self._caller)

    def _put_concrete(self, kind: Any, caller: Caller) -> None:
        self._put(kind, "__call__", _function, caller)
        self._put(kind, "_call_flat", _execution, caller)

    def _put_reads(self, kind: Any, caller: Caller) -> None:
        for name in _READING:
            if name in vars(kind):
                self._put(kind, name, partial(_read, "numpy" if name == "_numpy" else name), caller)

    def _put_datasets(self, kind: Any, caller: Caller) -> None:
        self._put(kind, "__init__", lambda initialize, _: creation.noting(initialize), caller)
        self._put(kind, "reduce", _reduction, caller)

    def _put_rows(self, kind: Any, caller: Caller) -> None:
        for name in ROW_METHODS & vars(kind).keys():
            before = vars(kind)[name]
            told = _RowMethod(before, name, caller)
            self._placed.append(_Placed(kind, name, told, before, is_own=True))
            setattr(kind, name, told)


def are_installed() -> bool:
    """Whether somebody is told of the calls of this process."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


_WrapperOf: TypeAlias = Callable[[Callable[..., Any], Caller], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A wrapper and what it is around; ``is_own`` where that is not inherited."""

    owner: Any
    name: str
    wrapper: Any
    before: Any
    is_own: bool

    def take_back(self) -> None:
        """Put back what was there, unless the wrapper itself was replaced."""
        if vars(self.owner).get(self.name) is not self.wrapper:
            return
        if self.is_own:
            setattr(self.owner, self.name, self.before)
        else:
            delattr(self.owner, self.name)


class _RowMethod:
    """A method of a variable, of which the caller is told when it is looked up.

    Calling it leaves no frame of ours between the user's line and the op that is made.
    """

    def __init__(self, method: Any, name: str, caller: Caller) -> None:
        self._method, self._name, self._caller = method, name, caller

    def __get__(self, variable: Any, kind: Any = None) -> Any:
        if variable is not None:
            self._caller.rows(variable, self._name)
        return self._method.__get__(variable, kind)


def _function(call: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        for dataset in arguments.datasets_in((args, kwargs)):  # which the function may loop over
            caller.iterates(dataset)
        return caller.function(self, partial(call, self, *args, **kwargs))

    return called


def _execution(execute: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        caller.execution(self)
        return execute(self, *args, **kwargs)

    return executed


def _traced(add: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def added(self: Any, concrete: Any, *args: Any, **kwargs: Any) -> Any:
        returned = add(self, concrete, *args, **kwargs)
        caller.traced(self, concrete)
        return returned

    return added


def _gradient(gradient: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def differentiated(self: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.gradient(self, lambda: gradient(self, *args, **kwargs))

    return differentiated


def _read(name: str, method: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.read(name, lambda: method(self, *args, **kwargs))

    return read


def _iterator(initialize: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def initialized(self: Any, dataset: Any = None, *args: Any, **kwargs: Any) -> None:
        if dataset is not None:
            caller.iterates(dataset)
        initialize(self, dataset, *args, **kwargs)

    return initialized


def _reduction(reduce: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def reduced(self: Any, *args: Any, **kwargs: Any) -> Any:
        caller.iterates(self)
        return reduce(self, *args, **kwargs)

    return reduced


def _session(run: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def ran(self: Any, fetches: Any, *args: Any, **kwargs: Any) -> Any:
        return caller.session(self, fetches, lambda: run(self, fetches, *args, **kwargs))

    return ran


def _profiler(start: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def started(*args: Any, **kwargs: Any) -> Any:
        return caller.profiler(lambda: start(*args, **kwargs))

    return started


class Finder(MetaPathFinder):
    """Finds what the others find; what is to be wrapped is, once it was executed: ``wrappers`` by module."""

    def __init__(self, wrappers: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self.wrappers = wrappers

    def install(self) -> None:
        """Wrap what is imported already, and from now on what will be."""
        for name in self.wrappers.keys() & sys.modules.keys():
            self.wrappers[name](sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.wrappers:
            return None
        # Only those behind this one: another one of its kind would ask it again.
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader, self.wrappers[fullname])
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
