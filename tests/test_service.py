"""Recording from profiler services: what they are asked, what is kept, and each failure in one line.  No TensorFlow.

The services are stand-ins that speak gRPC; `test_tf_service.py` has real ones.
"""

from __future__ import annotations

import re
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
import two_programs
from end_to_end import CAPTURES, Outcome, assert_one_line, files_in, write_saved_model
from two_programs import CALLED, Called

import graphlens
from graphlens import pipeline
from graphlens.children import service
from graphlens.children.messages import ServiceRequest
from graphlens.cli import main
from graphlens.config import Request
from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedTarget
from graphlens.loaders.capture import packing, reading
from graphlens.loaders.hosts import part_of
from graphlens.loaders.schema import PROFILER_SERVICE, profile_request, profile_response, xspace
from graphlens.loaders.xplane import read_profile, read_recordings
from graphlens.pipeline import remote

Run = Callable[..., Outcome]
Answer = Callable[[Any, Any], Any]  # (request, gRPC's context) -> response

with zipfile.ZipFile(CAPTURES / "tiny_cnn.capture") as archive:
    PROFILE = archive.read("profile.xplane.pb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `graphlens record` for half a second in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object) -> Outcome:
        try:
            code: int | str | None = main(["record", "-o", "m.capture", *map(str, arguments)])
        except SystemExit as end:  # argparse ends this way
            code = end.code
        return Outcome(int(code or 0), *capsys.readouterr())

    return run_here


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start a service that answers as it is told; returns its `host:port`."""
    servers = []

    def start(answer: Answer) -> str:
        handler = grpc.unary_unary_rpc_method_handler(
            answer, profile_request().FromString, profile_response().SerializeToString
        )
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tensorflow.ProfilerService", {"Profile": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)


def sends(profile: bytes, asked: list[Any] | None = None) -> Answer:
    """A service that sends this profile after the time that it was asked for."""

    def answer(request: Any, _context: Any) -> Any:
        if asked is not None:
            asked.append(request)
        time.sleep(request.duration_ms / 1000)
        return profile_response()(xspace=profile, empty_trace=False)

    return answer


def fails(code: grpc.StatusCode, details: str) -> Answer:
    return lambda _request, context: context.abort(code, details)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


# -- what is asked, and what is kept ----------------------------------------------------------------------------------


def test_two_services_are_profiled_at_once_into_one_capture(
    run: Run, serve: Callable[[Answer], str], tmp_path: Path
) -> None:
    asked: list[Any] = []
    first, second = serve(sends(PROFILE, asked)), serve(sends(PROFILE, asked))
    outcome = run("--service", f"grpc://{first},{second}", "--duration", "0.5")
    assert (outcome.code, outcome.out, outcome.err) == (0, "m.capture\n", "")
    evidence = reading.evidence_of(reading.open_capture(tmp_path / "m.capture"))
    assert (evidence.target.kind, evidence.target.path) == ("service", f"grpc://{first},grpc://{second}")
    assert evidence.profile is not None
    assert evidence.profile.hosts == (first, second)
    assert len(evidence.profile.ops) == 2 * len(read_profile(PROFILE).ops)
    assert files_in(tmp_path) == {"m.capture"}


def recorded(address: str, duration_s: float, folder: Path) -> bytes:
    """The profile that one service handed over."""
    service.record(ServiceRequest((address,), duration_s, CapturedTarget(address, "service")), folder, lambda _: None)
    return (folder / part_of(address)).read_bytes()


def test_all_ops_are_asked_for_and_no_weights(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    """Level 3 has the ops that a warm function hides; HLO would bring constants along."""
    asked: list[Any] = []
    address = serve(sends(PROFILE, asked))
    assert recorded(address, 0.25, tmp_path) == PROFILE
    (request,) = asked
    assert (request.duration_ms, request.emit_xspace, request.host_name) == (250, True, address)
    assert (request.opts.version, request.opts.host_tracer_level, request.opts.enable_hlo_proto) == (1, 3, False)


def test_a_service_too_old_to_send_saves_where_both_can_read(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    def saves(request: Any, _context: Any) -> Any:
        file = Path(request.repository_root, request.session_id, request.host_name.replace(":", "_") + ".xplane.pb")
        file.parent.mkdir(parents=True)
        file.write_bytes(PROFILE)
        return profile_response()()

    address = serve(saves)
    assert recorded(address, 0.1, tmp_path) == PROFILE


def test_the_targets_graph_is_stored_and_joined(run: Run, serve: Callable[[Answer], str], tmp_path: Path) -> None:
    write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    address = serve(sends(PROFILE))
    assert run("model", "--service", address, "--duration", "0.1").code == 0
    evidence = reading.evidence_of(reading.open_capture(tmp_path / "m.capture"))
    assert (evidence.target.kind, evidence.target.path) == ("saved_model", "model")
    assert evidence.traced is not None
    assert set(evidence.traced.main.graph) == {"x", "y"}
    assert evidence.profile is not None
    assert (evidence.profile.hosts, evidence.profile_path) == ((address,), address)


@pytest.mark.parametrize(("called", "with_graph"), [(CALLED[0], 0), (CALLED[1], 1)], ids=["most time", "less time"])
def test_the_targets_graph_is_that_of_the_program_that_runs_it(
    run: Run, serve: Callable[[Answer], str], tmp_path: Path, called: Called, with_graph: int
) -> None:
    """Which one that is, its ops tell; the one with most time is judged all the same, with no graph of another."""
    write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), (called.node, called.op, ("x",))])
    assert run("model", "--service", serve(sends(two_programs.profile())), "--duration", "0.1").code == 0
    analysis = graphlens.load(tmp_path / "m.capture")
    assert [row.name for row in analysis.document.programs] == [one.name for one in CALLED]
    assert [bool(row.graphs) for row in analysis.document.programs] == [with_graph == 0, with_graph == 1]
    assert (analysis.quality.join_rate == 1.0) == (with_graph == 0)
    note = f"the graph that was given is not of what took most time, but of {called.name}: --program {called.name}"
    assert (note in analysis.quality.notes) == (with_graph == 1)
    named = pipeline.analyze(Request.of(str(tmp_path / "m.capture"), static=True, program=called.name))
    assert (named.document.programs[0].name, named.quality.join_rate) == (called.name, 1.0)


def test_an_idle_program_among_busy_ones_is_noted(run: Run, serve: Callable[[Answer], str], tmp_path: Path) -> None:
    idle = serve(sends(xspace()(planes=[{"name": "/host:CPU"}]).SerializeToString()))
    assert run("--service", f"{serve(sends(PROFILE))},{idle}", "--duration", "0.1").code == 0
    analysis = graphlens.load(tmp_path / "m.capture")
    assert f"{idle} ran no op in the 0.1 s that were profiled." in analysis.quality.notes


def test_hosts_are_put_on_one_clock_with_threads_of_their_own() -> None:
    """The second profile was started a second later; its events move by that, and its threads are others."""

    def started(at_ns: int) -> bytes:
        space = xspace().FromString(PROFILE)
        plane = next(plane for plane in space.planes if plane.name == "Task Environment")
        (key,) = [key for key, meta in plane.stat_metadata.items() if meta.name == "profile_start_time"]
        for stat in plane.stats:
            if stat.metadata_id == key:
                stat.uint64_value = at_ns
        return bytes(space.SerializeToString())

    one = read_profile(PROFILE)
    both = read_recordings({"a:1": started(10**18), "b:1": started(10**18 + 10**9)}).profile
    assert both.ops[0] == one.ops[0]
    assert both.ops[-1].start_ns == one.ops[-1].start_ns + 10**9
    threads = [{event.thread for event in events.ops} for events in (one, both)]
    assert len(threads[1]) == 2 * len(threads[0])
    assert {host: round(sum(e.self_ns for e in both.ops if (e.thread > 2**63) == host)) for host in (False, True)} == {
        False: sum(event.self_ns for event in one.ops),
        True: sum(event.self_ns for event in one.ops),
    }


# -- failures ---------------------------------------------------------------------------------------------------------


def assert_nothing_recorded(outcome: Outcome, code: int, message: str, folder: Path) -> None:
    """One line on standard error and no file."""
    assert outcome.code == code, outcome.err
    assert_one_line(outcome)
    assert message in outcome.err
    assert outcome.out == ""
    assert files_in(folder) == set()


def test_the_service_that_does_not_answer_is_named(run: Run, serve: Callable[[Answer], str], tmp_path: Path) -> None:
    """Long before the others have been profiled."""
    port, start = free_port(), time.monotonic()
    outcome = run("--service", f"{serve(sends(PROFILE))},localhost:{port}", "--duration", "30")
    assert_nothing_recorded(outcome, 3, f"no profiler service answers at localhost:{port}", tmp_path)
    assert f"tf.profiler.experimental.server.start({port})" in outcome.err
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fails(grpc.StatusCode.INTERNAL, "Another profiling session active."), "is being profiled already"),
        (fails(grpc.StatusCode.UNIMPLEMENTED, ""), "is no profiler service"),
        (fails(grpc.StatusCode.DEADLINE_EXCEEDED, ""), "did not hand over its profile in time"),
        (fails(grpc.StatusCode.INTERNAL, "out of disk"), "could not be profiled: out of disk"),
        (lambda *_: profile_response()(), "is too old to send its profile"),
        (sends(b"\x0a\x05cut"), "sent what is no profile: the profile is damaged"),
        (sends(xspace()(planes=[{"name": "/host:CPU"}]).SerializeToString()), "nothing was recorded: no op ran on"),
    ],
)
def test_a_service_that_gives_no_profile(
    run: Run, serve: Callable[[Answer], str], tmp_path: Path, answer: Answer, message: str
) -> None:
    address = serve(answer)
    outcome = run("--service", address, "--duration", "0.1")
    assert address in outcome.err
    assert_nothing_recorded(outcome, 3, message, tmp_path)


def test_more_than_a_capture_can_hold(
    run: Run, serve: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written has to be read again: the limit is that of reading, here one that the two profiles exceed."""
    monkeypatch.setattr(packing, "MESSAGE_LIMIT_BYTES", len(PROFILE) * 3 // 2)
    outcome = run("--service", f"{serve(sends(PROFILE))},{serve(sends(PROFILE))}", "--duration", "0.1")
    assert_nothing_recorded(outcome, 2, "record for a shorter time, or fewer programs at once", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--service", "grpc://"], "'grpc://' in --service is no address of the form grpc://HOST:PORT"),
        (["--service", "worker"], "'worker' in --service is no address"),
        (["--service", "worker:port"], "'worker:port' in --service is no address"),
        (["--service", "worker:65536"], "'worker:65536' in --service is no address"),
        (["--service", "http://worker:80"], "'http://worker:80' in --service is no address"),
        (["--service", "a:1,,b:1"], "'' in --service is no address"),
        (["--service", "a:1,grpc://a:1"], "--service names a:1 twice"),
        (["--service", "a:1", "--duration", "0"], "'0' is not a number of seconds"),
        (["--service", "a:1", str(CAPTURES / "tiny_cnn.capture")], "is a recording already"),
        (["--service", "a:1", "nowhere"], "'nowhere' does not exist"),
        (["--duration", "1", "model"], "--duration is for --service"),
        ([], "name a TARGET to execute, or with --service the programs to profile"),
    ],
)
def test_a_wrong_use_is_refused_before_anything_is_asked(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert_nothing_recorded(run(*arguments), 2, message, tmp_path)


def test_addresses() -> None:
    assert remote.addresses("grpc://[::1]:6009, worker-1.pool_a:1") == ("[::1]:6009", "worker-1.pool_a:1")
    with pytest.raises(UsageError, match="twice"):
        remote.addresses("[::1]:1,[::1]:1")


# -- the messages -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow's headers")
@pytest.mark.parametrize(
    ("message", "file"),
    [*((name, "service") for name in ("ProfileRequest", "ProfileResponse")), ("ProfileOptions", "options")],
)
def test_fields_are_numbered_as_tensorflow_numbers_them(message: str, file: str) -> None:
    spec = find_spec("tensorflow")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    header = Path(
        spec.submodule_search_locations[0], "include/tensorflow/tsl/profiler/protobuf", f"profiler_{file}.pb.h"
    )
    text = header.read_text().partition(f"class PROTOBUF_EXPORT {message} final")[2].partition("\nclass ")[0]
    theirs = dict(re.findall(r"k(\w+)FieldNumber = (\d+),", text))
    for field, (number, _) in PROFILER_SERVICE[message].items():
        assert theirs["".join(part.title() for part in field.split("_"))] == str(number), field
