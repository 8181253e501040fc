"""The parent learns how the child ended, whatever the child does: no TensorFlow here, the children are stand-ins."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphlens.children import start as starting
from graphlens.children.messages import DemoRequest, Done, Failure, Progress, to_line
from graphlens.children.start import Outcome, start

ECHO = """
import json, sys
request = json.loads(sys.stdin.readline())
print(json.dumps({"message": "Progress", "what": request["path"], "done": 1, "of": 2}), flush=True)
"""
USAGE = (
    ECHO
    + """
print(json.dumps({"message": "Failure", "why": "input 'x' needs --shape", "exit_code": 2}), flush=True)
sys.exit(2)
"""
)
SLEEP = "import time; time.sleep(60)"
CRASH = "import os, sys; print('Check failed: it broke', file=sys.stderr, flush=True); os.abort()"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
TRACEBACK = "raise RuntimeError('no luck')"
HALF_A_LINE = "import sys; sys.stdout.write('{\"progress\": '); sys.exit(0)"

SLOW_UNLOADING = """
import os, time
print({last}, flush=True)
os.close(1)
time.sleep(60)
"""
WHERE = """
import json, sys
sys.stdin.readline()
try:
    import lies_in_the_current_folder
except ImportError:
    print(json.dumps({"message": "Failure", "why": "not importable", "exit_code": 2}), flush=True)
    sys.exit(2)
"""

Run = tuple[Outcome, list[tuple[str, int, int]]]


def run(tmp_path: Path, code: str, time_limit_s: float = 20) -> Run:
    (tmp_path / "stand_in.py").write_text(code)
    child = start(tmp_path / "out", "stand_in", {"PYTHONPATH": str(tmp_path)})
    child.send(DemoRequest("hello"))
    seen: list[tuple[str, int, int]] = []
    return child.wait(lambda *progress: seen.append(progress), time_limit_s), seen


def test_progress_arrives_and_all_is_well(tmp_path: Path) -> None:
    outcome, seen = run(tmp_path, ECHO)
    assert outcome.ok
    assert (outcome.message, seen) == ("", [("hello", 1, 2)])


def test_the_childs_own_message_is_the_outcomes(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, USAGE)
    assert outcome.usage_error
    assert outcome.message == "input 'x' needs --shape"


def test_a_child_past_its_time_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    outcome, _ = run(tmp_path, SLEEP, time_limit_s=1)
    assert time.monotonic() - start < 10
    assert outcome.timed_out
    assert not outcome.ok
    assert "took longer than the time of 1 s" in outcome.message


@pytest.mark.parametrize(
    ("last", "ok", "message"),
    [
        (Done(), True, ""),
        (Failure("no such input", 2), False, "no such input"),
        (Progress("profiling", 1, 2), False, "the recording process stopped answering"),
    ],
)
def test_a_child_that_is_slow_to_unload_is_judged_by_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: Done | Failure | Progress, ok: bool, message: str
) -> None:
    monkeypatch.setattr(starting, "_END_GRACE_S", 0.2)
    outcome, _ = run(tmp_path, SLOW_UNLOADING.replace("{last}", repr(to_line(last))))
    assert (outcome.ok, outcome.timed_out, outcome.usage_error) == (ok, False, isinstance(last, Failure))
    assert outcome.message.startswith(message)
    assert bool(outcome.message) == (not ok)


@pytest.mark.parametrize("entries", ["{0}", ":{0}", "{0}:"])
def test_a_child_cannot_import_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    """Nor where an empty entry of PYTHONPATH would stand for it; older Pythons know no PYTHONSAFEPATH."""
    here, modules = tmp_path / "here", tmp_path / "modules"
    here.mkdir()
    modules.mkdir()
    (here / "lies_in_the_current_folder.py").touch()
    (here / "runpy.py").write_text("raise SystemExit('imported from the current folder')")
    (modules / "stand_in.py").write_text(WHERE)
    monkeypatch.chdir(here)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", entries.format(modules).replace(":", os.pathsep))
    child = start(tmp_path / "out", "stand_in")
    child.send(DemoRequest("somewhere"))
    assert child.wait(time_limit_s=20).message == "not importable"


PARENT = """
import sys, time
from pathlib import Path
from graphlens.children.start import start
child = start(Path(sys.argv[1]), "stand_in", {"PYTHONPATH": sys.argv[2]})
print(child.process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(subprocess.os, "killpg"), reason="signals of POSIX")
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_a_child_does_not_outlive_its_parent(tmp_path: Path, signal: str) -> None:
    (tmp_path / "stand_in.py").write_text(SLEEP)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "out"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(getattr(signals, signal))
    deadline = time.monotonic() + 10
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(child)


HOLDS_THE_LOCK = """
import ctypes, subprocess, sys
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(started.pid, file=open(sys.argv[1] + "/started", "w"), flush=True)
ctypes.PyDLL(None).sleep(60)  # in C, with Python's lock: no thread of Python's gets a turn
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel cannot be told to do it")
def test_a_child_that_is_busy_in_c_does_not_outlive_its_parent_either_nor_does_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(HOLDS_THE_LOCK)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "out"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        started = tmp_path / "out" / "started"
        while not (started.exists() and started.read_text().strip()):
            time.sleep(0.01)
        grandchild = int(started.read_text())
        assert runs(child)
        assert runs(grandchild)
        parent.kill()
    deadline = time.monotonic() + 10
    while (runs(child) or runs(grandchild)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not runs(child)
    assert not runs(grandchild)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows keeps saying the first parent")
def test_a_child_whose_parent_was_killed_before_it_watched_ends_at_once(tmp_path: Path) -> None:
    code = "from graphlens.children import orphan; orphan.watch(1 << 30, 0); print('it goes on')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, capture_output=True, text=True, check=False, timeout=60,
        start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signals.SIGKILL, "")


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 0


def test_sending_to_a_child_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows says EINVAL where others say EPIPE."""

    class Closed:
        def write(self, _: str) -> None:
            raise OSError(22, "Invalid argument")

    (tmp_path / "stand_in.py").write_text("")
    child = start(tmp_path / "out", "stand_in", {"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(starting, "_stdin", lambda _: Closed())
    child.send(DemoRequest("somewhere"))
    assert child.wait(time_limit_s=20).ok


@pytest.mark.skipif(not hasattr(subprocess.os, "killpg"), reason="signals of POSIX")
@pytest.mark.parametrize(
    ("code", "signal", "message"),
    [(KILLED, "SIGKILL", "out of memory?"), (CRASH, "SIGABRT", "crashed (SIGABRT): Check failed: it broke")],
)
def test_a_signal_is_named(tmp_path: Path, code: str, signal: str, message: str) -> None:
    outcome, _ = run(tmp_path, code)
    assert outcome.signal == signal
    assert message in outcome.message


def test_a_traceback_becomes_one_line(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, TRACEBACK)
    assert outcome.message == "the recording process ended with code 1: RuntimeError: no luck"


def test_half_a_line_harms_nothing(tmp_path: Path) -> None:
    outcome, seen = run(tmp_path, HALF_A_LINE)
    assert (outcome.ok, seen) == (True, [])


def test_a_cancelled_child_is_gone(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(SLEEP)
    child = start(tmp_path / "out", "stand_in", {"PYTHONPATH": str(tmp_path)})
    child.cancel()
    child.cancel()  # once is enough, twice does no harm
    assert child.process.poll() is not None


def test_the_parents_side_needs_the_standard_library_only() -> None:
    code = (
        "import sys, graphlens.children.start; print({'tensorflow', 'numpy', 'networkx', 'google'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
