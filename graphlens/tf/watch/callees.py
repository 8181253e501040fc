"""What a program called and whose graphs are to be written: functions as traced, and Sessions."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Final

# Graphs of one function: what is traced in every step has one for each, and they are nearly the same.
_MOST_GRAPHS: Final = 4
_MOST: Final = 64  # graphs of all of them, where they are no more than remembered


class Callees:
    """What was called, each once, and of one function a few traces.

    Parameters
    ----------
    are_held
        Whether they stay: else what nobody else holds any more is gone, with the memory of its variables.
    """

    def __init__(self, *, are_held: bool = True) -> None:
        self._are_held = are_held
        self._found: dict[int, Callable[[], Any]] = {}
        self._counts: Counter[Hashable] = Counter()

    def add(self, function: Hashable, callee: Any) -> None:
        """Add what was called as a ``function``, unless enough of that are there."""
        known = self._found.get(id(callee))
        if known is not None and known() is callee:
            return
        if self._counts[function] >= _MOST_GRAPHS or (not self._are_held and len(self._found) >= _MOST):
            return
        self._counts[function] += 1
        self._found[id(callee)] = (lambda: callee) if self._are_held else weakref.ref(callee)

    def alive(self) -> list[Any]:
        """Return them, those that are left."""
        return [callee for found in self._found.values() if (callee := found()) is not None]
