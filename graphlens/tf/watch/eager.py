"""Eager loops of a script: where gradients are asked for outside of any function, and with which call a step begins."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Hashable
from typing import Any, Final, NamedTuple

from graphlens.ir.eager import GRADIENT, Asked, How
from graphlens.loaders.eager_steps import leader
from graphlens.tf import private
from graphlens.tf.watch.marks import Mark
from graphlens.tf.watch.stack import Place, user_place

# Of steps without the profiler as many as are usually recorded tell what one takes; more than this are not kept.
_FEWEST_TIMED: Final = 20
_MOST_TIMED: Final = 400


class Gradients(NamedTuple):
    """A call for gradients: ``step_ns`` is the time since a step began, where one begins now and one did before."""

    asked: Asked
    source: str
    begins: bool
    step_ns: int | None

    def mark(self) -> Mark:
        """Begin to mark the call in the profile."""
        return Mark(GRADIENT, self.asked.text(), self.source)


class EagerLoops:
    """Is told of calls for gradients, and tells with which of them a step begins: of every thread for itself."""

    def __init__(self) -> None:
        self._sites: dict[Hashable, int] = {}
        self._thread = threading.local()
        self._was_recorded = False
        self._unprofiled_ns: deque[int] = deque(maxlen=_MOST_TIMED)

    @property
    def unprofiled_ns(self) -> tuple[int, ...]:
        """The lengths of the last steps that were made once some had been recorded: all is warm, and no profiler is on.

        Empty where they are too few to tell what a usual one is.
        """
        return tuple(self._unprofiled_ns) if len(self._unprofiled_ns) >= _FEWEST_TIMED else ()

    def ended(self, ns: int, *, recorded: bool) -> None:
        """Note how long a step took that has ended, and whether it was recorded."""
        if not recorded and self._was_recorded:
            self._unprofiled_ns.append(ns)
        self._was_recorded |= recorded

    def asks(self, tape: Any) -> Gradients | None:
        """Return what is known of a call; ``None`` for one that is none of the user's, or goes on with one before.

        A persistent tape may be asked for one gradient after the other in the same place.
        """
        place = user_place(tape)
        if place is None:
            return None
        site = self._sites.setdefault(place.stack, len(self._sites))
        return self._loop().asks(tape, Asked(site, _how(place), place.function), place.source)

    def _loop(self) -> _Loop:
        if not hasattr(self._thread, "loop"):
            self._thread.loop = _Loop()
        loop: _Loop = self._thread.loop
        return loop


class _Loop:
    """The calls of one thread."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._last: tuple[Any, int] = (lambda: None, -1)
        self._begun_ns: int | None = None

    def asks(self, tape: Any, asked: Asked, source: str) -> Gradients | None:
        last_tape, last_site = self._last
        self._last = weakref.ref(tape), asked.site
        if last_tape() is tape and last_site == asked.site:
            return None
        self._counts[asked.site] += 1
        begins = leader(self._counts) == asked.site
        before_ns, now_ns = self._begun_ns, time.perf_counter_ns()
        if begins:
            self._begun_ns = now_ns
        return Gradients(asked, source, begins, now_ns - before_ns if begins and before_ns is not None else None)


def _how(place: Place) -> How:
    return "functions" if private.runs_functions_eagerly() else "keras" if place.within_keras else "loop"
