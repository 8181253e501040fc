"""What a large profile costs, in counts that are the same on every machine: `make bench` has the times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import big_profile
import pytest
from floors import walk_profile

import graphlens
from graphlens.facts.flat.names import Names
from graphlens.ir import columns
from graphlens.loaders import event_columns
from graphlens.loaders.schema import xspace_part

EXECUTIONS = 5  # that `big_profile` tells apart: of each the first executor is looked at by itself


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many events were made objects: from columns, or as messages."""
    counts: Counter[str] = Counter()
    rows = columns._parts

    def counted_rows(events, names):
        counts[type(events).__name__] += len(events)
        return rows(events, names)

    def counted_message(name):
        counts[name] += 1
        return xspace_part(name)

    monkeypatch.setattr(columns, "_parts", counted_rows)
    monkeypatch.setattr(event_columns, "xspace_part", counted_message)
    return counts


def test_a_profile_is_judged_without_an_object_for_each_event(tmp_path: Path, made: Counter[str]) -> None:
    """Of a million events each walk that makes objects of them takes as long as reading them."""
    path = tmp_path / "large.xplane.pb"
    events = big_profile.write(path, 50_000)
    assert walk_profile(path) == events > 45_000
    found = graphlens.load(str(path))
    assert found.step is not None
    assert sum(row.kernels for row in found.document.devices) == 16_000
    assert +made == {"Spans": EXECUTIONS}


def test_what_events_mean_is_asked_once_for_what_they_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many steps of the same ops: as many questions."""
    counts: Counter[int] = Counter()
    key = Names.key
    for steps in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Names, "key", lambda *asked: counts.update([steps]) or key(*asked))  # noqa: B023
            path = tmp_path / f"{steps}.xplane.pb"
            big_profile.write(path, steps * 6 * big_profile.OPS)
            assert graphlens.load(str(path)).step is not None
    assert counts[1] == counts[2] > big_profile.OPS
