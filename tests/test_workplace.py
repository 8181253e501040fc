"""The folders in which work is done: they go with it, also where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from graphlens import workplace

pytest.importorskip("fcntl", reason="without locks nobody can tell whose folder it is")

ROOT = Path(__file__).parents[1]
HELD = """
import sys, time
from pathlib import Path
from graphlens import workplace

with workplace.beside(Path(sys.argv[1])) if sys.argv[1:] else workplace.temporary() as folder:
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


def abandoned(folder: Path) -> Path:
    """A folder as a killed run leaves it."""
    folder.mkdir()
    (folder / ".graphlens-lock").touch()
    return folder


def test_only_folders_of_the_same_target_are_removed(tmp_path: Path) -> None:
    kept = [".other.graphlens-1", "model", ".model"]
    for name in kept:
        abandoned(tmp_path / name)
    (tmp_path / ".model.graphlens-file").write_text("no folder")
    (tmp_path / ".model.graphlens-link").symlink_to(tmp_path / "model")
    abandoned(tmp_path / ".model.graphlens-old")
    workplace.remove_abandoned(tmp_path / "model")
    assert {one.name for one in tmp_path.iterdir()} == {*kept, ".model.graphlens-file", ".model.graphlens-link"}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_temporary_files_of_a_killed_run_go_with_the_next_and_those_of_a_living_one_do_not(temporary: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    held = Path(other.stdout.readline().strip())
    with workplace.temporary() as folder:
        assert {folder, held} == set(temporary.iterdir())
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert list(temporary.iterdir()) == [held]
    with workplace.temporary() as folder:
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_what_only_bears_the_name_is_not_removed(temporary: Path) -> None:
    """A folder of the user's own, and links that lead out of the folder for temporary files."""
    elsewhere = abandoned(temporary / "elsewhere")
    (temporary / "graphlens-results").mkdir()
    (temporary / "graphlens-link").symlink_to(elsewhere)
    (temporary / "graphlens-trap").mkdir()
    (temporary / "graphlens-trap" / ".graphlens-lock").symlink_to(elsewhere / ".graphlens-lock")
    before = set(temporary.iterdir())
    with workplace.temporary():
        pass
    assert set(temporary.iterdir()) == before
    assert (elsewhere / ".graphlens-lock").exists()


def test_what_another_user_left_is_not_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = abandoned(temporary / "graphlens-old")
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with workplace.temporary():
        assert left.exists()


def test_a_long_name_makes_no_longer_one(tmp_path: Path) -> None:
    with workplace.beside(tmp_path / ("ü" * 120)) as folder:
        assert len(folder.name.encode()) < 255


WRITES = """
import sys, time
from pathlib import Path
from graphlens import workplace

with workplace.whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_file_that_a_killed_run_left_goes_with_the_next_one_and_that_of_a_living_run_does_not(tmp_path: Path) -> None:
    target = tmp_path / "report [1].html"
    other = subprocess.Popen([sys.executable, "-c", WRITES, str(target)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == "written\n"
    (left,) = tmp_path.iterdir()
    with workplace.whole_file(target) as file:
        file.write(b"mine")
    assert left.exists(), "who writes it is alive"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with workplace.whole_file(target) as file:
        file.write(b"whole")
    assert [one.name for one in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize("name", [".r.json.unfinished", ".r.json.x.unfinished", ".other.json.1.unfinished", "r.json.1"])
def test_a_file_of_another_name_is_not_taken_for_a_leftover(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("somebody's")
    with workplace.whole_file(tmp_path / "r.json") as file:
        file.write(b"{}")
    assert (tmp_path / name).read_text() == "somebody's"


def test_no_file_appears_when_writing_fails(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), workplace.whole_file(tmp_path / "r.json") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
