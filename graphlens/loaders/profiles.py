"""A path to a profile: of any format, of one host or of many."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from graphlens.errors import TargetError
from graphlens.loaders.events import Recorded
from graphlens.loaders.files import read_bytes
from graphlens.loaders.hosts import PROFILE_SUFFIX, by_host
from graphlens.loaders.profile_files import TRACE_SUFFIX, ProfileKind, profile_files
from graphlens.loaders.step_stats import read_run_metadata
from graphlens.loaders.timeline import read_timeline
from graphlens.loaders.xplane import read_recording, read_recordings

_RUN_NAME = re.compile(r"^\d{4}(_\d\d){5}$")  # how TensorFlow names the folder of one recording: by its time


def read_recorded(path: Path, kind: ProfileKind) -> Recorded:
    """Return the profile in ``path``, a file or the folder of a recording.

    Raises
    ------
    TargetError
        When it is damaged, or is no profile.
    """
    if path.is_dir():
        return _read_folder(path)
    if kind == "xplane":
        return read_recording(read_bytes(path))
    if kind == "run_metadata":
        return read_run_metadata(read_bytes(path), path)
    return Recorded(read_timeline(read_bytes(path), path))


def files_of_hosts(folder: Path) -> list[Path]:
    """Return the profiles of the newest recording in a folder where each host has one of its own; none otherwise."""
    found = profile_files(folder)
    files = _newest_run(found)[0] if found else []
    return files if len(files) > 1 and files[0].name.endswith(PROFILE_SUFFIX) else []


def _read_folder(folder: Path) -> Recorded:
    files, others = _newest_run(profile_files(folder))
    if files[0].name.endswith(PROFILE_SUFFIX):
        recorded = _read_hosts({path.name.removesuffix(PROFILE_SUFFIX): read_bytes(path) for path in files})
    elif len(files) == 1:
        recorded = Recorded(read_timeline(read_bytes(files[0]), files[0]))
    else:
        raise TargetError(f"'{folder}' holds traces of {len(files)} hosts; name one of the *{TRACE_SUFFIX} files")
    if not others:
        return recorded
    newest = files[0].parent.name
    note = f"'{folder}' holds {len(others) + 1} recordings; read was the newest, {newest}, and not {', '.join(others)}"
    return recorded._replace(profile=replace(recorded.profile, notes=(note, *recorded.profile.notes)))


def _read_hosts(profiles: Mapping[str, bytes]) -> Recorded:
    return read_recordings(by_host(profiles)) if len(profiles) > 1 else read_recording(*profiles.values())


def _newest_run(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the files of the newest recording, and the names of the others."""
    runs: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        runs[file.parent].append(file)
    if all(_RUN_NAME.match(run.name) for run in runs):
        newest = max(runs, key=lambda run: run.name)
    else:
        newest = max(runs, key=lambda run: max(file.stat().st_mtime_ns for file in runs[run]))
    return runs[newest], sorted(run.name for run in runs if run != newest)
