"""Collectors start before a program and stop after it, whoever runs it; none leaves half of what it records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from graphlens.ir.capture import CapturedTarget
from graphlens.loaders.capture.collecting import Context, collecting
from graphlens.loaders.capture.writing import CaptureDirectory


@dataclass
class Noted:
    """A collector that says what is asked of it, and does what it is told to."""

    name: str
    said: list[str]
    stage: str | None = None
    finds: bool = True
    fails_at: str = ""
    left: dict[str, bytes] = field(default_factory=dict)

    def start(self, _: Context) -> None:
        self._say("start")

    def stop(self, context: Context) -> bool:
        self._say("stop")
        context.capture.write(f"{self.name}.part", b"whole")
        return self.finds

    def cancel(self) -> None:
        self._say("cancel")

    def _say(self, what: str) -> None:
        self.said.append(f"{what} {self.name}")
        if self.fails_at == what:
            raise RuntimeError(f"no luck\nwith {self.name}")


@pytest.fixture
def capture(tmp_path: Path) -> CaptureDirectory:
    return CaptureDirectory(tmp_path, CapturedTarget())


def manifest(capture: CaptureDirectory) -> Any:
    return json.loads((capture.path / "capture.json").read_text())


def test_the_first_is_started_first_and_stopped_last(capture: CaptureDirectory) -> None:
    said: list[str] = []
    with collecting(Context(capture), [Noted("a", said), Noted("b", said)]):
        said.append("program")
    assert said == ["start a", "start b", "program", "stop b", "stop a"]


def test_a_program_that_fails_leaves_no_part(capture: CaptureDirectory) -> None:
    said: list[str] = []
    with pytest.raises(ZeroDivisionError), collecting(Context(capture), [Noted("a", said), Noted("b", said, "later")]):
        raise ZeroDivisionError
    assert said == ["start a", "start b", "cancel b", "cancel a"]
    assert [path.name for path in capture.path.iterdir()] == ["capture.json"]


def test_what_was_started_is_ended_where_the_next_cannot_be(capture: CaptureDirectory) -> None:
    said: list[str] = []
    collectors = [Noted("a", said), Noted("b", said, fails_at="start"), Noted("c", said)]
    with pytest.raises(RuntimeError, match="with b"), collecting(Context(capture), collectors):
        said.append("program")
    assert said == ["start a", "start b", "cancel a"]


def test_a_stage_that_fails_costs_that_stage_only_and_says_so(capture: CaptureDirectory) -> None:
    said: list[str] = []
    collectors = [Noted("a", said, "roof"), Noted("b", said, "hlo", fails_at="stop"), Noted("c", said, "replay")]
    with collecting(Context(capture), collectors):
        pass
    assert manifest(capture)["stages_done"] == ["replay", "roof"]
    assert manifest(capture)["errors"] == [{"stage": "hlo", "message": "the stage 'hlo' failed: no luck"}]


def test_what_the_recording_is_about_must_not_fail(capture: CaptureDirectory) -> None:
    said: list[str] = []
    collectors = [Noted("a", said), Noted("b", said, fails_at="stop")]
    with pytest.raises(RuntimeError, match="with b"), collecting(Context(capture), collectors):
        pass
    assert said == ["start a", "start b", "stop b", "cancel a"]


def test_a_stage_is_left_out_when_the_time_is_spent(capture: CaptureDirectory) -> None:
    said: list[str] = []
    with collecting(Context(capture, seconds_left=lambda: 0.0), [Noted("a", said), Noted("b", said, "roof")]):
        pass
    assert said == ["start a", "start b", "cancel b", "stop a"]
    assert capture.manifest.notes == ("The time budget was spent before the stage 'roof'.",)


def test_nothing_to_record_is_no_stage(capture: CaptureDirectory) -> None:
    with collecting(Context(capture), [Noted("a", [], "roof", finds=False)]):
        pass
    assert manifest(capture)["stages_done"] == []


def test_what_fails_beside_a_program_is_told_and_never_the_programs(capture: CaptureDirectory) -> None:
    capture.note("as it was")
    with capture.attempt("pipelines"):
        capture.manifest = replace(capture.manifest, stages_done=(1,))  # type: ignore[arg-type]  # no reader takes it
        capture.save()
    told = manifest(capture)
    assert told["notes"] == ["as it was"]
    assert "stages_done" not in told or told["stages_done"] == []
    (error,) = told["errors"]
    assert (error["stage"], error["message"][:36]) == ("pipelines", "the stage 'pipelines' failed: TypeEr")
