"""The folder in which a model is written: it goes with the work, also with work that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from graphlens.pipeline import workplace

pytest.importorskip("fcntl", reason="without locks nobody can tell whose folder it is")

ROOT = Path(__file__).parents[1]
HELD = """
import sys, time
from pathlib import Path
from graphlens.pipeline import workplace

with workplace.beside(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("written")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_was_made_is_renamed_into_its_place_and_nothing_else_stays(tmp_path: Path) -> None:
    with workplace.beside(tmp_path / "model") as folder:
        (folder / "made").mkdir()
        (folder / "made").rename(tmp_path / "model")
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_nothing_stays_when_the_work_fails(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), workplace.beside(tmp_path / "model") as folder:
        (folder / "half").write_text("written")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_with_the_next_and_what_a_living_one_holds_does_not(tmp_path: Path) -> None:
    target = tmp_path / "a model"
    other = subprocess.Popen([sys.executable, "-c", HELD, str(target)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    held = Path(other.stdout.readline().strip())
    workplace.remove_abandoned(target)
    assert (held / "half").exists()
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert (held / "half").exists()
    with workplace.beside(target) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_only_folders_of_the_same_target_are_removed(tmp_path: Path) -> None:
    kept = [".other.graphlens-1", "model", ".model"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".model.graphlens-file").write_text("no folder")
    (tmp_path / ".model.graphlens-link").symlink_to(tmp_path / "model")
    (tmp_path / ".model.graphlens-old").mkdir()
    workplace.remove_abandoned(tmp_path / "model")
    assert {one.name for one in tmp_path.iterdir()} == {*kept, ".model.graphlens-file", ".model.graphlens-link"}


def test_a_long_name_makes_no_longer_one(tmp_path: Path) -> None:
    with workplace.beside(tmp_path / ("ü" * 120)) as folder:
        assert len(folder.name.encode()) < 255
