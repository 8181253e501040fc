"""What making many objects within a watched program leaves of its garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from graphlens.collector import collector_unmoved

OURS = 20_000


class Held:
    """An object in a cycle, which only the collector frees."""

    alive = 0

    def __init__(self) -> None:
        self.own = self
        Held.alive += 1

    def __del__(self) -> None:
        Held.alive -= 1


@pytest.fixture(autouse=True)
def nothing_but_ours() -> Iterator[None]:
    gc.collect()
    Held.alive = 0
    yield
    gc.enable()
    gc.unfreeze()
    gc.collect()


def test_what_is_made_is_no_survivor_that_brings_a_collection_of_everything_forward() -> None:
    with collector_unmoved():
        ours = [[number] for number in range(OURS)]
    assert len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1)) < OURS // 10
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()
    assert len(ours) == OURS


def test_garbage_of_the_program_is_not_kept_until_everything_is_collected() -> None:
    for _ in range(10):
        Held()
    with collector_unmoved():
        pass
    gc.collect(1)
    assert Held.alive == 0


def test_a_program_that_collects_itself_still_has_its_garbage_where_it_looks_for_it() -> None:
    gc.disable()
    for _ in range(10):
        Held()
    with collector_unmoved():
        assert Held.alive == 10
    assert not gc.isenabled()
    gc.collect(0)
    assert Held.alive == 0


def test_what_a_program_has_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collector_unmoved():
        pass
    assert gc.get_freeze_count() == frozen
