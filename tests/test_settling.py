"""Before a profile ends, threads end what they do: as long as that takes, and no longer."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.skipif(sys.platform != "linux", reason="threads are looked at on Linux")]


def test_a_thread_that_works_is_seen_and_one_that_waits_is_not() -> None:
    from graphlens.tf.record.collectors.profile import others_run

    works, ends = threading.Event(), threading.Event()

    def worker() -> None:
        works.wait()
        while not ends.is_set():
            sum(range(1000))

    thread = threading.Thread(target=worker)
    thread.start()
    try:
        assert any(not others_run() for _ in _moments())
        works.set()
        assert any(others_run() for _ in _moments())
    finally:
        works.set()
        ends.set()
        thread.join()


def _moments() -> Iterator[None]:
    """Look again and again: other tests may have left threads that work now and then."""
    for _ in range(1000):
        yield
        time.sleep(0.002)
