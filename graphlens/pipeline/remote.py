"""Record programs that run elsewhere: profile them through TensorFlow's profiler service, into one capture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphlens import workplace
from graphlens.children.messages import ServiceRequest
from graphlens.children.start import start
from graphlens.config import Progress, Request, no_progress
from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.ir.capture import CapturedTarget
from graphlens.ir.run import Profile
from graphlens.loaders import hosts, sniff
from graphlens.loaders.capture import packing, reading
from graphlens.loaders.profile_files import PROFILE_KINDS
from graphlens.loaders.xplane import read_profile
from graphlens.pipeline.gather import Gathered, gather

_MODULE: Final = "graphlens.children.service"
_SCHEME: Final = "grpc://"
_ADDRESS: Final = re.compile(r"^(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]+)$")
_LAST_PORT: Final = 65_535

# On top of the profiled time: starting Python, and what tasks may take to hand over their profiles.
_LEAST_GRACE_S: Final = 120.0


def addresses(text: str) -> tuple[str, ...]:
    """Return the ``host:port`` of every service in ``grpc://a:6009,grpc://b:6009``; the scheme may be left out.

    Raises
    ------
    UsageError
        For an address that is none, or one that is named twice.

    >>> addresses("grpc://a:6009, b:6009")
    ('a:6009', 'b:6009')
    """
    found = [_address(part.strip()) for part in text.split(",")]
    for address in found:
        if sum(hosts.file_stem(other) == hosts.file_stem(address) for other in found) > 1:
            raise UsageError(f"--service names {address} twice")
    return tuple(found)


def _address(text: str) -> str:
    match = _ADDRESS.match(text.removeprefix(_SCHEME))
    if match is None or not 0 < int(match["port"]) <= _LAST_PORT:
        raise UsageError(f"'{text}' in --service is no address of the form grpc://HOST:PORT")
    return match[0]


@contextmanager
def recorded(
    request: Request, services: Sequence[str], duration_s: float, progress: Progress = no_progress
) -> Iterator[Path]:
    """Profile ``services`` for ``duration_s`` seconds, and yield the folder of a capture with one profile for each.

    A target that ``request`` names is traced, never executed, and its graph stored beside the profiles.

    Raises
    ------
    ExecutionError
        When a service cannot be profiled, or none of the programs ran an op in that time.
    """
    with workplace.temporary() as folder:
        if not request.source.target:
            _profile(folder, request, services, duration_s, progress)
            yield folder
            return
        _refuse_recording(request)
        with gather(request.but(static=True), progress) as gathered:
            _profile(folder, request, services, duration_s, progress)
            _add_target(folder, gathered)
            yield folder


def _refuse_recording(request: Request) -> None:
    if sniff.identify(request.source.target).kind in PROFILE_KINDS | {"capture"}:
        raise UsageError(
            f"'{request.source.target}' is a recording already; with --service, name the model that is running"
        )


def _profile(folder: Path, request: Request, services: Sequence[str], duration_s: float, progress: Progress) -> None:
    child = start(folder, _MODULE)
    child.send(ServiceRequest(tuple(services), duration_s, _described(services)))
    limit_s = request.recording.time_budget_s or 2 * duration_s + _LEAST_GRACE_S
    outcome = child.wait(progress, limit_s)
    if not outcome.ok:
        raise ExecutionError(outcome.message)
    _note_idle(folder, duration_s)


def _described(services: Sequence[str]) -> CapturedTarget:
    return CapturedTarget(",".join(_SCHEME + service for service in services), "service")


def _note_idle(folder: Path, duration_s: float) -> None:
    """Say which programs ran no op while they were profiled; when it is all of them, there is nothing to keep."""
    capture = reading.open_capture(folder)
    parts = reading.profile_parts(capture)
    idle = [host for host, part in parts.items() if not _ran(_read(host, capture.part(part)))]
    if len(idle) == len(parts):
        raise ExecutionError(
            f"nothing was recorded: no op ran on {', '.join(idle)} in {duration_s:g} s; "
            "record while the program computes, or for longer (--duration)"
        )
    packing.amend(folder, notes=[f"{host} ran no op in the {duration_s:g} s that were profiled." for host in idle])


def _read(host: str, profile: bytes) -> Profile:
    try:
        return read_profile(profile)
    except TargetError as error:
        raise ExecutionError(f"{host} sent what is no profile: {error}") from error


def _ran(profile: Profile) -> bool:
    return bool(profile.ops or profile.kernels or profile.kernels_on_device)


def _add_target(folder: Path, gathered: Gathered) -> None:
    """Store the traced graph of the target, so that the profiled ops can be joined to it."""
    target, loaded = gathered.evidence.target, gathered.loaded
    if loaded is not None:
        packing.add_traced(folder, loaded.graph_def, loaded.graph.main)
        packing.name_main(folder, loaded.traced_root, loaded.signature)
    elif gathered.directory is not None:
        packing.take_traced(folder, gathered.directory)
    packing.amend(folder, target=target, notes=gathered.evidence.notes)
