"""Marks of a watch are read out of TensorFlow's own profile as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphlens.facts.clock import hosts
from graphlens.ir.run import THREADS_OF_A_HOST, Mark, Profile, Span
from graphlens.loaders.marks import event_name, read_mark, written
from graphlens.loaders.xplane import read_recording


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mark, ...]:
    """What was marked before, while and after a profile was recorded."""
    import tensorflow as tf

    from graphlens.tf.watch import marks

    folder: Path = tmp_path_factory.mktemp("profile")
    with marks.Mark("read", "before"):
        early = marks.Mark("step", "begun before")
    tf.profiler.experimental.start(str(folder))
    early.end()
    outer = marks.Mark("step", "007", "a,b=c#d%41/größe.py:12")
    with marks.Mark("read"):
        pass
    late = marks.Mark("session")
    late.end("1.50", "x.py:3")
    late.end("again")
    outer.end()
    unended = marks.Mark("step", "never ended")
    tf.profiler.experimental.stop()
    unended.end()
    profile = read_recording(next(folder.rglob("*.xplane.pb")).read_bytes()).profile
    return profile.marks


def test_marks_are_those_made_while_a_profile_was_recorded(recorded: tuple[Mark, ...]) -> None:
    assert [mark.kind for mark in recorded] == ["step", "read", "session"]


def test_what_a_mark_says_is_read_as_it_was_told(recorded: tuple[Mark, ...]) -> None:
    step, read, session = recorded
    assert (step.detail, step.source) == ("007", "a,b=c#d%41/größe.py:12")
    assert (read.detail, read.source) == ("", "")
    assert (session.detail, session.source) == ("1.50", "x.py:3")


def test_marks_lie_within_each_other_as_they_were_made(recorded: tuple[Mark, ...]) -> None:
    step, read, session = recorded
    assert step.start_ns <= read.start_ns <= read.end_ns <= session.start_ns <= session.end_ns <= step.end_ns
    assert len({mark.thread for mark in recorded}) == 1


@pytest.mark.parametrize("text", ["", ":", "%3A", "1e5", "a#b#", "two\nlines", "-0"])
def test_any_text_is_kept(text: str) -> None:
    assert read_mark(event_name("read"), 0, 1, 2, {"detail": written(text)}).detail == text


def test_marks_stay_with_their_host_and_its_clock() -> None:
    on = [Mark("read", 10 * host, 10 * host + 1, host * THREADS_OF_A_HOST) for host in range(2)]
    steps = tuple(Span("step", 10 * host, 10 * host + 5, host * THREADS_OF_A_HOST) for host in range(2))
    profile = Profile(steps=steps, marks=tuple(on), hosts=("a", "b"))
    assert [own.marks for own in hosts.each(profile)] == [(on[0],), (on[1],)]
    moved = hosts.in_turn(profile)
    assert [mark.start_ns - step.start_ns for mark, step in zip(moved.marks, moved.steps, strict=True)] == [0, 0]
