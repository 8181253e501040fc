"""Replicas in the page and in the summary: each with the parts of its step, and what others wait for it."""

from __future__ import annotations

import re
from dataclasses import replace

from sample_document import RICH

from graphlens.ir.replicas import RemoteCalls, Replicas, ReplicaStep
from graphlens.report.html import render
from graphlens.report.terminal import render as render_text
from graphlens.report.view_replicas import MOST_ROWS, replicas_view

ROWS = (
    ReplicaStep(0, "a<b>", "", 9, 10_000_000, 2_000_000, 1_000_000, 6_000_000, 1_000_000, 0, 32, 0),
    ReplicaStep(1, "worker-1", "", 9, 8_000_000, 6_500_000, 1_000_000, 0, 500_000, 6_000_000, 32, 3),
)
FOUND = Replicas(
    "multi-worker", ROWS, 2.0, 4_096, 1_500_000, 1_000_000, 3_000_000, slowest=1, uneven_rows=(((1, 0), 3),),
    words="the others wait for replica 1",
)  # fmt: skip
REMOTE = (RemoteCalls("worker-0", 12, 11, 9_000_000, 6_000_000, 2_500_000), RemoteCalls("", 3, 0, 4_000_000))


def view_of(found: Replicas):
    return replicas_view(replace(RICH, replicas=found))


def test_the_parts_of_a_step_are_drawn_to_the_longest_step_of_all() -> None:
    first, second = view_of(FOUND).rows
    assert [(part.words, part.start, part.width) for part in second.parts] == [
        ("works 6.50 ms", 0.0, 65.0),
        ("exchanges 1.00 ms", 65.0, 10.0),
        ("between its ops 500 us", 75.0, 5.0),
    ]
    assert sum(part.width for part in first.parts) == 100.0
    assert (first.is_slowest, second.is_slowest) == (False, True)
    assert second.rows == "32, none in 3 steps"


def test_the_page_shows_them_and_says_names_as_they_are() -> None:
    page = render(replace(RICH, replicas=FOUND))
    (section,) = re.findall(r'<section id="replicas".*?</section>', page, re.DOTALL)
    assert "a&lt;b&gt;" in section
    assert section.count("<rect class=") == 4 + 4 + 3  # the legend, and the parts that there are
    assert "the others wait for replica 1" in section
    assert 'id="replicas"' not in render(replace(RICH, replicas=None))


def test_the_summary_has_one_line() -> None:
    text = re.sub(r"\s+", " ", render_text(replace(RICH, replicas=FOUND)))
    assert "Replicas 2 replicas on several machines: the others wait for replica 1" in text
    assert "Replicas" not in render_text(replace(RICH, replicas=None))


def test_of_many_replicas_those_are_shown_that_take_longest_by_themselves() -> None:
    many = tuple(replace(ROWS[0], number=number, work_ns=number * 1000) for number in range(300))
    found = view_of(replace(FOUND, replicas=many, slowest=299))
    assert [row.name for row in found.rows[:2]] == ["replica 299", "replica 298"]
    assert len(found.rows) == MOST_ROWS
    assert found.note == "268 more that take less by themselves are in the JSON"


def test_what_a_coordinator_waits_for_is_told_beside_what_its_workers_take() -> None:
    found = view_of(replace(FOUND, strategy="parameter-server", words="", remote=REMOTE))
    assert found.line == (
        "2 workers of parameter servers: the coordinator waits 9.00 ms for a step, of which the worker takes 6.00 ms"
    )
    assert found.remote[0] == ("worker-0", "12", "11", "9.00 ms", "6.00 ms", "2.50 ms")
    assert found.remote[1] == ("a worker that was not recorded", "3", "0", "4.00 ms", "not seen", "not seen")
