"""Record from TensorFlow's profiler service, on one or many machines: every task profiles itself and sends its XPlane.

A ``ServiceRequest`` says what to record.  The service is what a program opens with
``tf.profiler.experimental.server.start(port)``; it is asked over gRPC, and TensorFlow need not be installed here.

TensorFlow's own client (``tf.profiler.experimental.client.trace``) is not used for it.  With that one, each task writes
its profile to its own disk, where only a shared folder makes it readable; a task that cannot be reached is left out and
merely logged; and the level of tracing cannot be chosen, so that cheap ops of a warm function are missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from graphlens.children.channel import carry_out, requests, reserve_stdout
from graphlens.children.messages import Emit, Progress, ServiceRequest
from graphlens.errors import ExecutionError, MissingDependencyError
from graphlens.ir.capture import CapturedHost
from graphlens.loaders.capture.collecting import Context, collecting
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.loaders.hosts import part_of
from graphlens.loaders.schema import profile_request, profile_response

METHOD: Final = "/tensorflow.ProfilerService/Profile"

# Level 2 leaves out ops that the executor found to be cheap, which after some 90 executions is most of them; the
# programs behind a service are warm.  Level 3 has all ops, for about twice the events.
HOST_TRACER_LEVEL: Final = 3
DEVICE_TRACER_LEVEL: Final = 1
OPTIONS_VERSION: Final = 1  # without it the service takes its own defaults

CONNECT_TIMEOUT_MS: Final = 10_000  # gRPC's own is 20 s, long for somebody who mistyped an address
# What a task may take to hand over its profile after it was taken; TensorFlow's client gives at least as much.
LEAST_GRACE_S: Final = 60.0
POLL_S: Final = 0.1
SAVED_HERE: Final = "service.part"  # where a task that cannot send its profile is told to save it

NOT_EXECUTED: Final = "the programs were profiled where they run, and nothing was executed here"


def main(arguments: list[str]) -> int:
    """Serve one request; returns the exit code: 0 done or cancelled, 2 wrong usage, 3 nothing could be recorded."""
    emit = reserve_stdout()
    for request in requests(ServiceRequest):
        return carry_out(lambda: record(request, Path(arguments[0]), emit), emit)  # noqa: B023  # there is one
    return 0


def record(request: ServiceRequest, directory: Path, emit: Emit) -> None:
    """Profile all services of ``request`` at once, into a capture in ``directory``.

    Raises
    ------
    ExecutionError
        When one of them cannot be reached, refuses, or does not hand over its profile; the message names it.
    """
    capture = CaptureDirectory(directory, request.target)
    capture.manifest = replace(
        capture.manifest,
        environment={"hosts": list(request.services)},
        static_reason=NOT_EXECUTED,
        profiled_s=request.duration_s,
    )
    context = Context(capture, lambda what, done, of: emit(Progress(what, done, of)))
    profiles = ServiceProfiles(request.services, request.duration_s)
    with capture.stage("profile"), collecting(context, [profiles]):
        profiles.wait(context)  # the programs run where they are


class ServiceProfiles:
    """Writes the profile of each service (``host:port``), all of the same stretch of time."""

    stage = None

    def __init__(self, services: Sequence[str], duration_s: float) -> None:
        self._services = services
        self._duration_s = duration_s
        self._channels: dict[str, Any] = {}
        self._calls: dict[str, Any] = {}
        self._answers: dict[str, Any] = {}

    def start(self, context: Context) -> None:
        self._channels = _channels(self._services)
        limit_s = self._duration_s + max(LEAST_GRACE_S, self._duration_s)
        saved = context.capture.path / SAVED_HERE
        for service, channel in self._channels.items():
            profile = channel.unary_unary(METHOD, _serialized, profile_response().FromString)
            self._calls[service] = profile.future(_request(service, self._duration_s, saved), timeout=limit_s)

    def wait(self, context: Context) -> None:
        """Wait for all; the first failure ends the waiting."""
        start_s = time.monotonic()
        while len(self._answers) < len(self._calls):
            for service, call in self._calls.items():
                if service not in self._answers and call.done():
                    self._answers[service] = _result(service, call)
            passed_s = time.monotonic() - start_s
            if passed_s < self._duration_s:
                context.progress("profiling", int(passed_s), round(self._duration_s))
            else:
                context.progress("collecting profiles", len(self._answers), len(self._calls))
            time.sleep(POLL_S)

    def stop(self, context: Context) -> bool:
        self.cancel()
        for service in self._services:
            profile = _profile(service, self._answers[service], context.capture.path / SAVED_HERE)
            context.capture.write(part_of(service), profile)
        hosts = tuple(CapturedHost(name, part_of(name)) for name in self._services)
        context.capture.manifest = replace(context.capture.manifest, hosts=hosts)
        return True

    def cancel(self) -> None:
        for call in self._calls.values():
            call.cancel()
        for channel in self._channels.values():
            channel.close()


def _channels(services: Sequence[str]) -> dict[str, Any]:
    try:
        import grpc
    except ImportError as error:
        raise MissingDependencyError(
            f"gRPC cannot be imported ({error}); install it with: pip install grpcio"
        ) from error
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),  # bounds the first attempt, too
        ("grpc.enable_http_proxy", 0),
    ]
    return {service: grpc.insecure_channel(service, options) for service in services}


def _serialized(request: Any) -> bytes:
    return bytes(request.SerializeToString())


def _request(service: str, duration_s: float, saved: Path) -> Any:
    """Ask for the profile itself (``emit_xspace``); older services do not know that and save it as they are told."""
    request = profile_request()(
        duration_ms=round(duration_s * 1000),
        repository_root=str(saved),
        session_id="run",
        host_name=service,
        emit_xspace=True,
    )
    options = request.opts
    options.version = OPTIONS_VERSION
    options.include_dataset_ops = True
    options.host_tracer_level = HOST_TRACER_LEVEL
    options.device_tracer_level = DEVICE_TRACER_LEVEL
    options.duration_ms = request.duration_ms
    return request


def _result(service: str, call: Any) -> Any:
    import grpc

    try:
        return call.result()
    except grpc.RpcError as error:
        raise ExecutionError(_failure(service, error.code(), error.details() or "")) from error


def _failure(service: str, code: Any, details: str) -> str:
    """Say in one line what a status means for the user."""
    import grpc

    port = service.rpartition(":")[2]
    if code == grpc.StatusCode.UNAVAILABLE:
        why = details.rpartition("last error: ")[2].rpartition("UNKNOWN: ")[2]
        return (
            f"no profiler service answers at {service} ({why}); "
            f"the program there has to call tf.profiler.experimental.server.start({port})"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"what answers at {service} is no profiler service; "
            "name the port that the program gave to tf.profiler.experimental.server.start"
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{service} did not hand over its profile in time; profile for a shorter --duration"
    if "profiling session active" in details:
        return f"{service} is being profiled already; try again when that has ended"
    return f"{service} could not be profiled: {details or code.name}"


def _profile(service: str, answer: Any, saved: Path) -> bytes:
    if answer.xspace:
        return bytes(answer.xspace)
    file = saved / "run" / f"{service.replace(':', '_')}.xplane.pb"
    if file.is_file():
        return file.read_bytes()
    raise ExecutionError(
        f"the TensorFlow at {service} is too old to send its profile, and has saved it on its own disk as {file}; "
        "update it, or record on that machine"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
