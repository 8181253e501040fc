"""Clusters of processes and replicas on one machine through the command line, from the fixture scripts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "fixtures" / "scripts"

pytestmark = pytest.mark.heavy


def run(tmp_path: Path, script: str, *words: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Run a script with `graphlens run`; return how it ended, and the analysis (empty where there is none)."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "graphlens", "run", "--no-prove", "-o", str(found), str(SCRIPTS / script), *words]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return ended, json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}


def codes(document: dict) -> set[str]:
    return {finding["code"] for finding in document["findings"]}


def test_48_small_all_reduces_are_found(tmp_path: Path) -> None:
    _, document = run(tmp_path, "mirrored.py", "loop", "collective", "many")
    assert document["replicas"]["collectives"] == 48.0
    (finding,) = [one for one in document["findings"] if one["code"] == "GL701"]
    assert finding["evidence"]["all_reduces_per_step"] == 48.0
    assert finding["evidence"]["buckets"] == 1


def test_the_same_gradients_in_one_bucket_are_silent(tmp_path: Path) -> None:
    _, document = run(tmp_path, "mirrored.py", "loop", "collective", "deep")
    assert document["replicas"]["collectives"] == 1.0
    assert "GL701" not in codes(document)


def test_keras_under_a_mirrored_strategy_has_two_replicas_and_an_empty_one(tmp_path: Path) -> None:
    ended, document = run(tmp_path, "mirrored.py", "fit", "collective", "uneven")
    assert ended.returncode == 0
    assert [row["device"] for row in document["replicas"]["replicas"]] == ["CPU:0", "CPU:1"]
    assert [rows for rows, _ in document["replicas"]["uneven_rows"]] == [[1, 0]]
    assert "GL703" in codes(document)


def test_copies_through_one_device_are_waited_for_as_well(tmp_path: Path) -> None:
    _, document = run(tmp_path, "mirrored.py", "loop", "hierarchical", "slow")
    found = document["replicas"]
    assert found["slowest"] == 1
    assert found["replicas"][0]["waiting_ns"] > 15_000_000 > found["replicas"][1]["waiting_ns"]


def test_one_worker_of_two_is_recorded_and_its_exchanges_are_bounded_by_its_own_steps(tmp_path: Path) -> None:
    ended, document = run(tmp_path, "multi_worker.py")
    assert ended.returncode == 0
    assert document["replicas"]["least_of"] == "steps"
    assert document["replicas"]["collectives"] == 2.0


def test_that_keras_does_not_fit_on_several_workers_is_said(tmp_path: Path) -> None:
    ended, document = run(tmp_path, "multi_worker.py", "fit")
    assert (ended.returncode, document) == (1, {})
    assert "PerReplica" in ended.stderr  # what Keras raises is told as Python tells it
    assert "graphlens: Keras 3 does not support fit, evaluate and predict under a strategy of" in ended.stderr


def test_a_coordinator_alone_is_said_to_run_nothing_itself(tmp_path: Path) -> None:
    ended, document = run(tmp_path, "parameter_server.py")
    assert ended.returncode == 0
    (note,) = [one for one in document["quality"]["notes"] if "coordinator" in one]
    assert "graphlens record --service" in note


@pytest.mark.parametrize("script", ["multi_worker.py", "parameter_server.py"])
def test_nothing_is_left_of_a_cluster_that_is_killed(script: str) -> None:
    words = [str(SCRIPTS / script), *(["loop"] if script == "multi_worker.py" else []), "serve"]
    first = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert first.stderr is not None
    told = next(line for line in first.stderr if line.startswith("services"))
    assert re.fullmatch(r"services (\w+-\d=127\.0\.0\.1:\d+,?)+\n", told)
    children = _children(first.pid)
    assert children
    first.send_signal(signal.SIGKILL)
    first.wait()
    until = time.monotonic() + 30
    while any(map(_is_alive, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(_is_alive, children))


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
