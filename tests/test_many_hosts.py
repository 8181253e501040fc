"""More hosts than are held at once: each is read by itself; the slow one is named, and what it did to the others."""

from __future__ import annotations

import json
from pathlib import Path

import many_hosts
import numpy as np
import pytest

from graphlens.config import Request, no_progress
from graphlens.ir.analysis import Document
from graphlens.pipeline import analyze, fleet, foreign

HOSTS, SLOW = 12, 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, many_hosts.Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    return folder, many_hosts.write(folder, HOSTS, SLOW)


@pytest.fixture(scope="module")
def document(written: tuple[Path, many_hosts.Hosts]) -> Document:
    return analyze(Request.of(str(written[0])), no_progress).document


def test_the_slow_host_is_named_with_what_it_did_to_the_others(document: Document) -> None:
    (slow,) = [one for one in document.findings if one.code == "GL703"]
    assert "11 replicas wait" in slow.title
    assert f"replica {SLOW} (worker-0005)" in slow.title
    assert slow.evidence["slow_ops"][0]["type"] == "PyFunc"


def test_each_host_waits_as_long_as_it_was_made_to(written: tuple[Path, many_hosts.Hosts], document: Document) -> None:
    """By hand: from when it reached an exchange until the last one did, over the exchanges of a step."""
    hosts = written[1]
    last_ns = hosts.reached_ns.max(axis=0)
    waits_ns = (last_ns - hosts.reached_ns).sum(axis=1) / hosts.reached_ns.shape[1]
    assert document.replicas is not None
    rows = document.replicas.replicas
    assert [row.host for row in rows] == hosts.names
    # Steps at either end are left out or cut off, so that it is the order of hosts that has to be the same.
    assert np.argsort([row.waiting_ns for row in rows]).tolist() == np.argsort(waits_ns).tolist()
    assert rows[SLOW].waiting_ns == 0
    assert document.replicas.slowest == SLOW


def test_read_one_by_one_hosts_tell_the_same_as_all_at_once(
    written: tuple[Path, many_hosts.Hosts], document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks differ by tens of milliseconds: exchanges are known by their numbers, and neither way compares clocks."""
    monkeypatch.setattr(foreign, "MOST_AT_ONCE", HOSTS)
    together = analyze(Request.of(str(written[0])), no_progress).document
    assert together.replicas == document.replicas


def test_one_host_is_shown_whole_and_the_others_are_counted(document: Document) -> None:
    assert document.environment["hosts"] == ["worker-0005"]
    (note,) = [one for one in document.quality.notes if "12 hosts" in one] or [json.dumps(document.quality.notes)]
    assert "worker-0005, which the others wait for" in note


def test_no_more_than_one_profile_is_held_at_a_time(
    written: tuple[Path, many_hosts.Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    held: list[weakref.ref[object]] = []
    most = 0

    def reading(file: Path) -> object:
        nonlocal most
        recorded = read(file)
        most = max(most, sum(one() is not None for one in held))
        held.append(weakref.ref(recorded.profile.ops))
        return recorded

    read = fleet._read
    monkeypatch.setattr(fleet, "_read", reading)
    analyze(Request.of(str(written[0])), no_progress)
    assert len(held) == HOSTS + 1
    assert most <= 1
