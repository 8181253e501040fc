"""What several processes of one run of the tests share (``pytest -n``): made by the first of them that asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole run: that above those of its workers, where it has several."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """Return ``place``, which the first process that asks for it makes, while the others wait."""
    place.parent.mkdir(parents=True, exist_ok=True)
    done = place.with_name(place.name + ".made")
    with one_at_a_time(place.with_name(place.name + ".lock")):
        if not done.exists():
            make(place)
            done.touch()
    return place


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one worker at a time go on; a lock of the system, which also a worker that dies gives back."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl  # not on Windows, where the tests run in one process

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
