"""`--keep-logdir`: the profile is left where XProf and TensorBoard look for it, and nothing is ever overwritten."""

from __future__ import annotations

import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end import CAPTURES, Outcome, assert_one_line, files_in
from xprof_oracle import host_rows, needs_xprof, our_rows, tool_data

import graphlens
from graphlens.cli import main
from graphlens.loaders.hosts import hostname_of
from graphlens.pipeline import logdir

Run = Callable[..., Outcome]
TINY = CAPTURES / "tiny_cnn.capture"
NOW = time.struct_time((2026, 5, 4, 13, 2, 1, 0, 124, 0))

with zipfile.ZipFile(TINY) as archive:
    PROFILE = archive.read("profile.xplane.pb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in an empty folder, at one and the same second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logdir, "RUN_NAME", time.strftime(logdir.RUN_NAME, NOW))

    def run_here(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run_here


RUN = "plugins/profile/2026_05_04_13_02_01"


def test_the_profile_of_a_capture_is_left_in_a_new_run(run: Run, tmp_path: Path) -> None:
    outcome = run("analyze", TINY, "--keep-logdir", "logs")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"logs/{RUN}"
    name = hostname_of(PROFILE)
    assert (tmp_path / "logs" / RUN / f"{name}.xplane.pb").read_bytes() == PROFILE
    assert files_in(tmp_path / "logs") == {"plugins", "plugins/profile", RUN, f"{RUN}/{name}.xplane.pb"}


def test_the_host_of_a_profile_that_does_not_name_it_is_this_one(tmp_path: Path) -> None:
    assert hostname_of(b"") == ""
    logdir._write(tmp_path, "", b"")
    assert files_in(tmp_path) == {f"{socket.gethostname()}.xplane.pb"}


def test_a_run_is_added_to_a_log_folder_that_has_others(run: Run, tmp_path: Path) -> None:
    earlier = tmp_path / "logs/plugins/profile/earlier/host.xplane.pb"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"theirs")
    assert run("analyze", TINY, "--keep-logdir", "logs").code == 0
    assert earlier.read_bytes() == b"theirs"
    assert len(files_in(tmp_path / "logs/plugins/profile")) == 4


@needs_xprof
def test_xprof_finds_the_same_times_in_it(run: Run, tmp_path: Path) -> None:
    run("analyze", TINY, "--keep-logdir", "logs")
    profile = graphlens.load(TINY).facts.evidence.profile  # type: ignore[union-attr]
    assert profile is not None
    (rows,) = host_rows([list((tmp_path / "logs" / RUN).iterdir())])
    assert len(rows) > 5
    for key, (_, self_ns, _) in our_rows(profile.ops).items():
        assert rows[key][1] == pytest.approx(self_ns, rel=0.01)
    ((_, steps, *_),) = tool_data("overview_page", [list((tmp_path / "logs" / RUN).glob("*.xplane.pb"))])
    shown = [row["c"][0]["v"] for row in steps["rows"]]
    assert shown == [f"graphlens_step {step.step_id}" for step in profile.steps[1:-1]]  # whole ones only, as it sees it


def refused(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2
    assert_one_line(outcome)
    assert message in outcome.err
    assert outcome.out == ""


def test_an_existing_run_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "logs" / RUN).mkdir(parents=True)
    refused(
        run("analyze", TINY, "--keep-logdir", "logs", "-o", "r.json"), f"'logs/{RUN}' exists, and is not overwritten"
    )
    assert not (tmp_path / "r.json").exists()


def test_what_cannot_hold_a_run_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    refused(run("analyze", TINY, "--keep-logdir", "file"), "'file' is a file; --keep-logdir names a folder")
    refused(run("analyze", TINY, "--keep-logdir", "no/where"), "the folder of 'no/where' does not exist")
    refused(run("analyze", TINY, "--keep-logdir", "file/logs"), "the folder of 'file/logs' does not exist")
    refused(run("analyze", TINY, "--static", "--keep-logdir", "logs"), "with --static nothing is recorded")
    refused(run("analyze", TINY, "--profile", TINY, "--keep-logdir", "logs"), "with --profile nothing is recorded")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/plugins").write_text("no folder")
    refused(run("analyze", TINY, "--keep-logdir", "logs"), f"the profile cannot be kept in 'logs/{RUN}'")


def test_a_capture_without_a_profile_leaves_none(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(TINY) as whole, zipfile.ZipFile(tmp_path / "part.capture", "w") as part:
        for name in set(whole.namelist()) - {"profile.xplane.pb"}:
            part.writestr(name, whole.read(name))
    outcome = run("analyze", "part.capture", "--keep-logdir", "logs")
    assert outcome.code == 3
    assert outcome.err == "graphlens: no profile was recorded, so --keep-logdir left none\n"
    assert files_in(tmp_path) == {"part.capture"}
