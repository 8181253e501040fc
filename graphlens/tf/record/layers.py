"""Which scope of a graph is which Keras layer's, noted while Keras traces: scopes are numbered, layers are not.

A layer opens the scope of its name once to be built and once more to be called, and TensorFlow numbers what it has seen
before: ops of the layers ``dense`` and ``dense_1`` stand in the scopes ``dense_1`` and ``dense_1_2``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, ref

from graphlens.ir.training import LayerScope
from graphlens.loaders.sources import user_line

_SCOPES: Final = "keras.src.backend.tensorflow.core"  # the module of ``name_scope``, which everything in Keras opens
_LAYERS: Final = "keras.src.layers.layer"

_NOTING: Final = "graphlens_notes"


class Place(NamedTuple):
    """What has to be wrapped: a method of a class in a module, and what makes the wrapper."""

    module: str
    owner: str
    method: str
    wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]


_noted: WeakKeyDictionary[Any, dict[str, LayerScope | None]] = WeakKeyDictionary()
# By identity: a layer of the user may be no key of a dictionary.
_made: dict[int, tuple[ref[Any], str]] = {}


def watch() -> None:
    """Note scopes from now on, where this process has imported Keras."""
    for place in PLACES:
        owner = getattr(sys.modules.get(place.module), place.owner, None)
        before = getattr(owner, place.method, None)
        if before is not None and not hasattr(before, _NOTING):
            noting = functools.wraps(before)(place.wrapper(before))
            setattr(noting, _NOTING, True)  # so that it is wrapped once
            setattr(owner, place.method, noting)


def noted(concrete: Any) -> dict[str, LayerScope]:
    """Return scope -> layer of the graph of a function, and of those that were traced within it.

    A function that was traced within another one before is called, not traced: scopes that mean one and the same in all
    other traces count as well.
    """
    own = _noted.get(concrete.graph, {})
    others: dict[str, LayerScope | None] = {}
    for graph, scopes in list(_noted.items()):
        for scope, layer in scopes.items() if graph is not concrete.graph else ():
            others[scope] = layer if others.setdefault(scope, layer) == layer else None
    return {scope: layer for scope, layer in {**others, **own}.items() if layer is not None}


def _entered(enter: Callable[..., Any]) -> Callable[..., Any]:
    def entered(self: Any) -> Any:
        found = enter(self)
        tf = sys.modules["tensorflow"]
        if self.caller is not None and self._pop_on_exit and not tf.executing_eagerly():
            _note(tf.compat.v1.get_default_graph(), self.caller)
        return found

    return entered


def _note(graph: Any, caller: Any) -> None:
    kind: ModuleType | None = sys.modules.get(_LAYERS)
    if kind is None or not isinstance(caller, kind.Layer):
        return
    scope = graph.get_name_scope()
    layer = LayerScope(str(caller.path or caller.name), type(caller).__name__, _line_of(caller))
    scopes = _noted.setdefault(_outermost(graph), {})
    scopes[scope] = layer if scopes.setdefault(scope, layer) == layer else None


def _line_of(layer: Any) -> str:
    made = _made.get(id(layer))
    return made[1] if made is not None and made[0]() is layer else ""


def _outermost(graph: Any) -> Any:
    """Return the function in whose trace this one is traced, in however many steps."""
    while hasattr(outer := getattr(graph, "outer_graph", None), "outer_graph"):
        graph = outer
    return graph


def _initialized(initialize: Callable[..., Any]) -> Callable[..., Any]:
    def initialized(self: Any) -> Any:
        if id(self) not in _made:
            line = user_line(_frames(self))
            if line is not None:
                _made[id(self)] = ref(self, functools.partial(_forget, id(self))), line
        return initialize(self)

    return initialized


def _forget(key: int, _: object) -> None:
    _made.pop(key, None)


def _frames(layer: Any) -> Iterator[tuple[str, int]]:
    """Yield file and line of each call that made ``layer``, from the first one outside its own classes on."""
    frame = sys._getframe(2).f_back
    while frame is not None:
        if frame.f_code.co_name != "__init__" or frame.f_locals.get("self") is not layer:
            yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


PLACES: Final = (
    Place(_SCOPES, "name_scope", "__enter__", _entered),
    # Not ``__init__``: of a class without one of its own, Keras looks at the arguments of that.
    Place(_LAYERS, "Layer", "_initialize_tracker", _initialized),
)
