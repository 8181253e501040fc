"""Two programs with TensorFlow's own profiler service, recorded together over loopback into one analysis."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from end_to_end import REPOSITORY, python, run_python
from oracles import allocations_by_op, op_totals_ps
from xprof_oracle import assert_xprof_agrees, host_rows, needs_xprof, our_rows, tool_data

import graphlens
from graphlens.ir.ops import runtime_type
from graphlens.ir.run import host_of_thread

pytestmark = pytest.mark.tf

ROWS = (64, 512)  # the second program has eight times the work
WITHOUT_TENSORFLOW = "import sys; sys.modules['tensorflow'] = None; from graphlens.cli import main; sys.exit(main())"


class Recorded(NamedTuple):
    """What one recording of both programs left."""

    hosts: tuple[str, ...]
    capture: Path
    run: Path

    def files(self) -> list[Path]:
        return [self.run / f"{host.replace(':', '_')}.xplane.pb" for host in self.hosts]


@pytest.fixture(scope="module")
def programs() -> Iterator[tuple[str, ...]]:
    """Start both programs, and return where their services are once they compute."""
    with socket.socket() as one, socket.socket() as other:
        for held in (one, other):
            held.bind(("127.0.0.1", 0))
        ports = [held.getsockname()[1] for held in (one, other)]
    program = REPOSITORY / "tests" / "profiled_program.py"
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, str(program), str(port), str(rows)], stdout=subprocess.PIPE, env=env, text=True
        )
        for port, rows in zip(ports, ROWS, strict=True)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield tuple(f"localhost:{port}" for port in ports)
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def recorded(programs: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record both, with the graph of their step, by the command line."""
    folder = tmp_path_factory.mktemp("services")
    capture = folder / "both.capture"
    outcome = run_python(
        "-m", "graphlens", "record", "tests.profiled_program:dense_step", "-o", str(capture), "--duration", "0.5",
        "--service", ",".join(f"grpc://{host}" for host in programs), "--keep-logdir", str(folder / "logs"),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    first, run = outcome.out.splitlines()
    assert first == str(capture)
    return Recorded(programs, capture, Path(run))


@pytest.fixture(scope="module")
def document(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The analysis of the capture, made where TensorFlow cannot be imported."""
    report = tmp_path_factory.mktemp("report") / "both.json"
    python("-c", WITHOUT_TENSORFLOW, "analyze", str(recorded.capture), "-o", str(report))
    return json.loads(report.read_text())  # type: ignore[no-any-return]


def test_the_capture_has_one_profile_for_each_host(recorded: Recorded) -> None:
    with zipfile.ZipFile(recorded.capture) as archive:
        assert set(archive.namelist()) == {
            "capture.json", "traced.pb", *(f"profiles/{path.name}" for path in recorded.files()),
        }  # fmt: skip
        for path in recorded.files():
            assert archive.read(f"profiles/{path.name}") == path.read_bytes()


def test_every_op_of_both_hosts_is_read(recorded: Recorded) -> None:
    """Also the cheap ones, which TensorFlow's own client does not record of a warm function."""
    evidence = graphlens.load(recorded.capture).facts.evidence  # type: ignore[union-attr]
    assert evidence.profile is not None
    assert evidence.profile.hosts == recorded.hosts
    totals = [op_totals_ps(path.read_bytes()) for path in recorded.files()]
    for seen in totals:
        kernels = {(name, runtime_type(kernel)) for name, _, kernel in (key.rpartition(":") for key in seen)}
        assert {("x", "_Arg"), ("dense/BiasAdd", "_FusedMatMul"), ("mean", "Mean")} <= kernels
    assert len(evidence.profile.ops) == sum(count for seen in totals for count, _ in seen.values())


def test_one_analysis_shows_both_hosts_and_joins_the_ops_of_both(document: dict[str, Any], recorded: Recorded) -> None:
    assert [row["name"] for row in document["distribution"]["hosts"]] == list(recorded.hosts)
    light, heavy = document["distribution"]["hosts"]
    assert min(light["steps"], heavy["steps"]) > 10
    assert heavy["busy_ns"] / heavy["steps"] > light["busy_ns"] / light["steps"]
    assert document["quality"]["join_rate"] > 0.99
    assert document["step"]["n"] == light["steps"] + heavy["steps"] - 2  # without the first one of each
    assert sum(row["ns"] for row in document["ledger"]) == document["step"]["median_ns"]
    timed = {row["name"]: row["calls_per_step"] for row in document["ops"] if row["self_ns"]}
    assert timed.keys() >= {"dense/BiasAdd", "squashed", "mean"}
    assert timed["dense/BiasAdd"] == pytest.approx(1, abs=0.1)


@needs_xprof
def test_xprof_opens_the_kept_run(recorded: Recorded) -> None:
    """Both programs are in it, with the time of each op in sum."""
    profile = graphlens.load(recorded.capture).facts.evidence.profile  # type: ignore[union-attr]
    assert profile is not None
    ours = our_rows(profile.ops)
    (theirs,) = host_rows([recorded.files()])
    assert set(theirs) - {("IDLE", "IDLE")} == set(ours)
    for key, (_, self_ns, total_ns) in ours.items():
        assert theirs[key][1:] == (pytest.approx(self_ns, rel=0.01), pytest.approx(total_ns, rel=0.01))
    (overview,) = tool_data("overview_page", [recorded.files()])
    _, steps, environment, *_ = overview
    assert len(steps["rows"]) > 10
    assert environment["p"]["task_count"].startswith("2 ")


@needs_xprof
def test_xprof_counts_the_same_on_each_host(recorded: Recorded, tmp_path: Path) -> None:
    profile = graphlens.load(recorded.capture).facts.evidence.profile  # type: ignore[union-attr]
    assert profile is not None
    alone = [tmp_path / path.stem / path.name for path in recorded.files()]  # XProf keeps caches beside what it reads
    for path, copied in zip(recorded.files(), alone, strict=True):
        copied.parent.mkdir()
        shutil.copy(path, copied)
    for position, (path, rows) in enumerate(zip(alone, host_rows([[path] for path in alone]), strict=True)):
        ours = our_rows(event for event in profile.ops if host_of_thread(event.thread) == position)
        assert_xprof_agrees(rows, ours, allocations_by_op(path.read_bytes()))
