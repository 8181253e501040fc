"""Recorded input pipelines: what is told of their stages is what a walk over the messages of the profile adds up to."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile

PROFILES = sorted((Path(__file__).parents[1] / "fixtures" / "input").glob("*.xplane.pb.gz"))


def walked(data: bytes) -> dict[str, list[tuple[Any, int, int]]]:
    """Every event of an iterator by what it is called: line, start and end in picoseconds, by protobuf's own reader."""
    found = defaultdict(list)
    for plane in xspace().FromString(data).planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if re.match(r"(Reduce)?Iterator::", name):
                    start = line.timestamp_ns * 1000 + event.offset_ps
                    found[name].append((line.id, start, start + event.duration_ps))
    return found


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name.partition(".")[0])
def test_every_event_is_counted_once_and_what_lies_within_it_on_its_thread_is_not_its_own(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    events, profile = walked(data), read_profile(data)
    names = {name: re.sub(r"(?<!Zip)\[\d+\]", "[*]", name) for name in events}
    assert {stage.path for stage in profile.iterators} == set(names.values())
    for stage in profile.iterators:
        own = [event for name, folded in names.items() if folded == stage.path for event in events[name]]
        inside = [
            (line, start, end)
            for name in events
            if name.startswith(
                tuple(f"{one}{mark}" for one, to in names.items() if to == stage.path for mark in (":", "["))
            )
            for line, start, end in events[name]
        ]
        nested = [one for one in inside if any(a == one[0] and b <= one[1] and one[2] <= c for a, b, c in own)]
        outermost = [
            one
            for one in nested
            if not any(a == one[0] and b <= one[1] and one[2] <= c for a, b, c in nested if (a, b, c) != one)
        ]
        assert stage.elements == len(own)
        assert stage.inclusive_ns == pytest.approx(sum(end - start for _, start, end in own) / 1000, abs=1)
        self_ns = sum(end - start for _, start, end in own) - sum(end - start for _, start, end in outermost)
        assert stage.self_ns == pytest.approx(self_ns / 1000, abs=len(own))


def test_what_a_step_asks_is_answered_by_the_chain_that_it_reads() -> None:
    by_name = {path.name.partition(".")[0]: read_profile(gzip.decompress(path.read_bytes())) for path in PROFILES}
    for name, kind in (("zip", "Root"), ("interleave", "Root"), ("loop", "FiniteTake")):
        profile = by_name[name]
        assert {profile.iterators[one.stage].kind for one in profile.requests} == {kind}, name
    assert len(by_name["zip"].requests) == 12
