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


@contextmanager
def collector_unmoved() -> Iterator[None]:
    """Pause the collector for what is done within a program that is only watched, and have it collect as without that.

    Python walks all objects anew once a quarter more of them have survived two collections: some ten thousand of ours
    bring that forward, which takes 0.2 s in a program that has imported TensorFlow.  What is frozen and thawed at once
    is among the oldest without being counted as a survivor.

    So are the program's own youngest objects then, and what of these is garbage would stay until all are walked, with
    the memory of the tensors that it holds: it is collected before.  A program that has frozen objects itself, or
    collects them itself, is left alone.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        with collector_paused():
            yield
        return
    gc.collect(1)
    with collector_paused():
        yield
        gc.freeze()
        gc.unfreeze()


def collect_new() -> None:
    """Collect what was made since the last collection: what is kept from before is not walked again.

    Whoever reads one thing after the other while the collector is paused would hold all of them without it.
    """
    gc.collect(0)
