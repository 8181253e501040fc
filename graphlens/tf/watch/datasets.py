"""Which datasets a script iterates over: noted as it does, and read as pipelines once its steps were recorded."""

from __future__ import annotations

import weakref
from typing import Any, Final

from graphlens.errors import first_line
from graphlens.ir.pipelines import WrittenPipeline
from graphlens.tf import private
from graphlens.tf.datasets import serializing

# The last ones that are still there: those for training and for validation, and a few more.
MOST_PIPELINES: Final = 6
# Of the data that datasets hold themselves: as much as their graphs may hold.
MOST_KEPT_BYTES: Final = serializing.MOST_HELD_BYTES
NOT_READ: Final = "An input pipeline of the script could not be read: {0}."


class IteratedDatasets:
    """Notes datasets without keeping them: what the script lets go of is gone, unless it is being recorded."""

    def __init__(self) -> None:
        self._seen: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._kept: list[Any] = []

    def note(self, dataset: Any) -> None:
        """Note that a dataset is iterated over; of one within a function that is traced, what the script made of it."""
        made = outside_of_functions(dataset)
        if made is not None:
            self._seen.pop(id(made), None)
            self._seen[id(made)] = made

    def keep(self) -> None:
        """Keep what is there now until it is read: a script may end, or be done with it, while it is recorded.

        Not what holds more data than could be read: the script may count on its memory.
        """
        self._kept, held_bytes = [], 0
        for dataset in reversed(self._alive()):
            own_bytes = serializing.held_bytes(dataset)
            if held_bytes + own_bytes <= MOST_KEPT_BYTES:
                self._kept.append(dataset)
                held_bytes += own_bytes

    def let_go(self) -> None:
        """Keep nothing any more."""
        self._kept = []

    def _alive(self) -> list[Any]:
        return list(self._seen.values())[-MOST_PIPELINES:]

    def pipelines(self) -> tuple[tuple[WrittenPipeline, ...], tuple[str, ...]]:
        """Return what is still there as pipelines, and notes on what could not be read; nothing is iterated over."""
        from graphlens.tf.datasets import reading

        found: list[WrittenPipeline] = []
        notes: list[str] = []
        with private.eagerly():
            for number, dataset in enumerate(self._alive(), start=1):
                try:
                    pipeline, more = reading.pipeline_of(dataset, f"pipeline-{number}")
                except Exception as error:  # whatever TensorFlow says to a dataset; the script goes on
                    notes.append(NOT_READ.format(first_line(error)))
                    continue
                found.append(pipeline)
                notes += more
        return tuple(found), tuple(notes)


def outside_of_functions(dataset: Any) -> Any | None:
    """Return a dataset that is no part of a function's graph: itself, or the first such one that it is made of."""
    level, seen = [dataset], dict[int, Any]()
    while level:
        for one in level:
            if private.is_eager_tensor(private.dataset_variant(one)):
                return one
        seen |= {id(one): one for one in level}
        below = {id(read): read for one in level for read in private.dataset_inputs(one)}
        level = [read for number, read in below.items() if number not in seen]
    return None
