"""What a call is given: a loop over the same data makes as many steps in one call as in another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from graphlens.tf.watch.places import Numbers

_PLAIN: Final = (bool, int, float, str, bytes, type(None))
_OF_NO_LENGTH: Final = "numbers with a fraction"  # a learning rate, for instance: no loop is as long as that


def given_to(call: Callable[[], Any], numbers: Numbers) -> Hashable | None:
    """Return what is equal for two calls that loop over the same things; ``None`` where that is not known.

    Parameters
    ----------
    call
        A call of a function with its arguments, the function first.
    """
    if not isinstance(call, partial):
        return None
    return tuple(_told(one, numbers) for one in (*call.args[1:], *call.keywords.items()))


def _told(given: Any, numbers: Numbers) -> Hashable:
    if isinstance(given, _PLAIN):
        return type(given).__name__, given
    if isinstance(given, list | tuple):
        return tuple(_told(one, numbers) for one in given)
    if getattr(getattr(given, "dtype", None), "is_floating", False):
        return _OF_NO_LENGTH
    # An iterator is another one in each call; how much it gives is said by its dataset.
    dataset = vars(given).get("_dataset") if hasattr(given, "__dict__") else None
    return numbers.of(given if dataset is None else dataset)
