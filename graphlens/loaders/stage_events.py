"""The events of tf.data's iterators on a host plane as columns: which lies within which, and who called a function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.columns import Codes, Ints, looked_up
from graphlens.ir.run import Span
from graphlens.loaders.event_columns import PlaneEvents

LEVEL: Final = "::"
NO_EVENT: Final = -1
ELEMENTS: Final = "[*]"

IS_STAGE: Final = re.compile(r"^(Reduce)?Iterator::")
NAME: Final = "name"
_ID: Final = "id"
_ITERATOR: Final = "Iterator"  # what calls a function while it is made, and is no stage yet
# What stands in brackets behind these tells their inputs apart; behind other stages it counts elements.
_ELEMENT_NUMBER: Final = re.compile(r"(?<!Zip)(?<!Concatenate)(?<!DirectedInterleave)\[\d+\]")


class StageEvents:
    """The events of stages on a plane, sorted by line and start, and which of them lies within which."""

    def __init__(self, events: PlaneEvents, names: Mapping[int, str], stat_names: Mapping[int, str]) -> None:
        found = {key: name for key, name in names.items() if IS_STAGE.match(name)}
        places = np.flatnonzero(looked_up(events.name, dict.fromkeys(found, 1)) == 1)
        order = np.lexsort((-events.end_ps[places], events.start_ps[places], events.line[places]))
        self._events, self._stat_names = events, stat_names
        self.place = places[order]
        self.line, self.start_ps, self.end_ps = (
            column[self.place] for column in (events.line, events.start_ps, events.end_ps)
        )
        self.start_ns, self.end_ns = events.start_ns[self.place], events.end_ns[self.place]
        paths = Codes[str]()
        codes = {key: paths(_ELEMENT_NUMBER.sub(ELEMENTS, name)) for key, name in found.items()}
        self.path = looked_up(events.name[self.place], codes)
        self.paths = paths.all
        self.outer = _outer(self.line, self.start_ps, self.end_ps)

    def __len__(self) -> int:
        return len(self.place)

    def numbers(self, name: str, otherwise: int = 0) -> Ints:
        """Return a statistic that is a number for each event; ``otherwise`` where it has none."""
        stats = self._events.stats.of_events(self._mask()).among(self._keys({name}))
        found = np.full(len(self._events), otherwise)
        found[stats.event] = stats.numbers()
        return found[self.place]

    def names_of(self, chosen: Ints) -> Ints:
        """Return what some events call their dataset, as codes."""
        mask = np.zeros(len(self._events), bool)
        mask[self.place[chosen]] = True
        stats = self._events.stats.of_events(mask).among(self._keys({NAME}))
        found = np.full(len(self._events), NO_EVENT)
        found[stats.event] = stats.distinct()[1]
        return found[self.place[chosen]]

    def stats_of(self, events: Ints) -> Sequence[Mapping[str, Any]]:
        """Return all statistics of some events."""
        mask = np.zeros(len(self._events), bool)
        mask[self.place[events]] = True
        stats = self._events.stats.of_events(mask)
        told: dict[int, dict[str, Any]] = {int(place): {} for place in self.place[events]}
        for place, key, value in zip(stats.event.tolist(), stats.key.tolist(), stats.values(), strict=True):
            told[place][self._stat_names.get(key, "")] = value
        return [told[int(place)] for place in self.place[events]]

    def calls(self, places: Ints, threads: Sequence[int]) -> Iterator[Span]:
        """Yield the calls of functions at ``places`` among all events, under the name of the stage that made them."""
        events = self._events
        mask = np.zeros(len(events), bool)
        mask[places] = True
        stats = events.stats.of_events(mask).among(self._keys({_ID}))
        ids = dict(zip(stats.event.tolist(), stats.numbers().tolist(), strict=True))
        event, is_below = self.callers(events.line[places], events.start_ps[places])
        plain = [path.replace(ELEMENTS, "") for path in self.paths]
        columns = (places, events.start_ns[places], events.end_ns[places], events.line[places], event, is_below)
        for place, start_ns, end_ns, line, own, below in zip(*(column.tolist() for column in columns), strict=True):
            stage = plain[self.path[own]] if own != NO_EVENT else _ITERATOR
            name = stage.rpartition(LEVEL)[0] if below and stage.count(LEVEL) > 1 else stage
            yield Span(name, start_ns, end_ns, threads[line], ids.get(place, 0))

    def callers(self, line: Ints, start_ps: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the event of the stage that each call of a function was made by, ``NO_EVENT`` where none is known.

        That is the innermost around the call.  A stage that works ahead calls from a loop of its own, next to where it
        asks the stage below it: then the event is of that one, and the second array holds.
        """
        if not len(self):
            return np.full(len(line), NO_EVENT), np.zeros(len(line), bool)
        found = self._begun_before(line, start_ps)
        below = np.full(len(line), NO_EVENT)
        while True:
            is_over = (found != NO_EVENT) & (self.end_ps[found] <= start_ps)
            if not is_over.any():
                break
            below[is_over] = found[is_over]
            found[is_over] = self.outer[found[is_over]]
        return np.where(found == NO_EVENT, below, found), (found == NO_EVENT) & (below != NO_EVENT)

    def _begun_before(self, line: Ints, start_ps: Ints) -> Ints:
        """Return the last event on each line that began by a moment."""
        all_lines = np.concatenate([self.line, line])
        order = np.lexsort(
            (np.arange(len(all_lines)) >= len(self), np.concatenate([self.start_ps, start_ps]), all_lines)
        )
        last = np.maximum.accumulate(np.where(order < len(self), order, NO_EVENT))
        found = np.empty(len(all_lines), np.int64)
        found[order] = last
        found = found[len(self) :]
        return np.where((found != NO_EVENT) & (self.line[found] == line), found, NO_EVENT)

    def _mask(self) -> NDArray[np.bool_]:
        mask = np.zeros(len(self._events), bool)
        mask[self.place] = True
        return mask

    def _keys(self, names: Iterable[str]) -> frozenset[int]:
        return frozenset(key for key, name in self._stat_names.items() if name in names)


def _outer(line: Ints, start_ps: Ints, end_ps: Ints) -> Ints:
    """Return for each event the innermost one around it on its line; they are sorted, the longer ones first."""
    found: list[int] = []
    opened: list[int] = []
    ends, last_line = end_ps.tolist(), None
    for number, (own_line, start, end) in enumerate(zip(line.tolist(), start_ps.tolist(), ends, strict=True)):
        if own_line != last_line:
            opened, last_line = [], own_line
        while opened and (ends[opened[-1]] <= start or ends[opened[-1]] < end):
            opened.pop()
        found.append(opened[-1] if opened else NO_EVENT)
        opened.append(number)
    return np.array(found, np.int64)
