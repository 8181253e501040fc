"""The data of an epoch, gone through again and again by a trial: the steps of a short script would soon be over."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from graphlens.tf.watch.gate import Gate
from graphlens.tf.watch.hooks import Finder

_EPOCHS: Final = "keras.src.trainers.epoch_iterator"  # of ``fit``, ``evaluate`` and ``predict``


def install(gate: Gate) -> None:
    """Have Keras go through its data again where the gate wants more steps."""

    def wrap(module: ModuleType) -> None:
        owner: Any = module.EpochIterator
        owner._enumerate_iterator = functools.wraps(owner._enumerate_iterator)(again(gate, owner._enumerate_iterator))

    Finder({_EPOCHS: wrap}).install()


def again(gate: Gate, enumerate_epoch: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    """Return what yields the batches of an epoch, and those of a next one behind them where the gate wants it."""

    def enumerated(self: Any) -> Iterator[Any]:
        wants_another = True
        while wants_another:
            with gate.round() as wanted:
                yield from enumerate_epoch(self)
                wants_another = wanted()

    return enumerated
