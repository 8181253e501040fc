"""The parent learns how the child ended, whatever the child does: no TensorFlow here, the children are stand-ins."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphlens.tf import launch

ECHO = """
import json, sys
request = json.loads(sys.stdin.readline())
print(json.dumps({"progress": request["say"], "done": 1, "of": 2}), flush=True)
"""
USAGE = (
    ECHO
    + """
print(json.dumps({"error": "input 'x' needs --shape", "exit": 2}), flush=True)
sys.exit(2)
"""
)
SLEEP = "import time; time.sleep(60)"
CRASH = "import os, sys; print('Check failed: it broke', file=sys.stderr, flush=True); os.abort()"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
TRACEBACK = "raise RuntimeError('no luck')"
HALF_A_LINE = "import sys; sys.stdout.write('{\"progress\": '); sys.exit(0)"

Run = tuple[launch.Outcome, list[tuple[str, int, int]]]


def run(tmp_path: Path, code: str, time_limit_s: float = 20) -> Run:
    (tmp_path / "stand_in.py").write_text(code)
    child = launch.start(tmp_path / "out", {"PYTHONPATH": str(tmp_path)}, module="stand_in")
    child.send({"say": "hello"})
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
    child = launch.start(tmp_path / "out", {"PYTHONPATH": str(tmp_path)}, module="stand_in")
    child.cancel()
    child.cancel()  # once is enough, twice does no harm
    assert child.process.poll() is not None


def test_the_parents_side_needs_the_standard_library_only() -> None:
    code = "import sys, graphlens.tf.launch; print({'tensorflow', 'numpy', 'networkx', 'google'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
