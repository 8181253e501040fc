"""Open a dataset as a target: a step takes its next element, and begins anew where it has no more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from graphlens.children.messages import Block
from graphlens.errors import ExecutionError
from graphlens.ir.pipelines import DATASET
from graphlens.tf.open.opened import Opened, Traced

EMPTY: Final = "the dataset has no element; nothing can be measured of it"
# What was made ahead while it stood still is used up before elements are counted: a share of the block, and this least.
DRAINED_SHARE: Final = 0.3
FEWEST_IN_BLOCK: Final = 4
WARM_UP_S: Final = 0.5  # TensorFlow has chosen its threads then


def open_dataset(dataset: Any) -> Opened:
    """Open a ``tf.data.Dataset``.  Nothing is iterated over until a step is made."""

    def next_element(iterator: Any) -> Any:
        return iterator.get_next()

    def trace(_: Sequence[Any]) -> Traced:
        function = tf.function(next_element, autograph=False)
        concrete = function.get_concrete_function(tf.data.IteratorSpec(dataset.element_spec))
        elements = Elements(dataset, concrete)
        return Traced(concrete, lambda _: elements.next())

    return Opened(DATASET, (), trace, owner=dataset)


class Elements:
    """The elements of a dataset, epoch after epoch, each taken by a function of an iterator.

    An iterator that a process stood still with is kept for good: ending one takes seconds then, which nobody who trains
    has to wait for.
    """

    def __init__(self, dataset: Any, take: Any = next) -> None:
        self._dataset, self._take = dataset, take
        self._iterator: Any = None
        self._kept: list[Any] = []

    def stood_still(self) -> None:
        """Keep the iterator that is under way, since the process stood still meanwhile."""
        if self._iterator is not None and not any(self._iterator is one for one in self._kept):
            self._kept.append(self._iterator)

    def next(self) -> Any:
        """Return the next element; that of a new epoch where one has ended.

        Raises
        ------
        ExecutionError
            If the dataset is empty.
        """
        if self._iterator is not None:
            try:
                return self._take(self._iterator)
            except (tf.errors.OutOfRangeError, StopIteration):
                pass
        self._iterator = iter(self._dataset)
        try:
            return self._take(self._iterator)
        except (tf.errors.OutOfRangeError, StopIteration):
            raise ExecutionError(EMPTY) from None

    def warm_up(self) -> None:
        """Take elements that are not timed."""
        self.take_for(WARM_UP_S)

    def take_for(self, seconds: float, fewest: int = 1) -> int:
        """Take elements for a while, and return how many."""
        end_ns = time.perf_counter_ns() + seconds * 1e9
        count = 0
        while count < fewest or time.perf_counter_ns() < end_ns:
            self.next()
            count += 1
        return count


def timed_block(elements: Elements, block_ms: float) -> Block:
    """Take elements for a while, as fast as they come, once those are used up that were made ahead; say what one takes.

    Raises
    ------
    ExecutionError
        If there are none.
    """
    elements.take_for(DRAINED_SHARE * block_ms / 1e3)
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    count = elements.take_for(block_ms / 1e3, FEWEST_IN_BLOCK)
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return Block(wall / count, cpu / count)
