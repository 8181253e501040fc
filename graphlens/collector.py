"""Pause Python's garbage collector, for what makes many objects and for what is timed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector, unless it is paused already.

    Graphs are millions of small objects and hardly a cycle: it would walk them again and again, for half of the time of
    loading and judging.  Within a timed step it would be part of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_new() -> None:
    """Collect what was made since the last collection: what is kept from before is not walked again.

    Whoever reads one thing after the other while the collector is paused would hold all of them without it.
    """
    gc.collect(0)
