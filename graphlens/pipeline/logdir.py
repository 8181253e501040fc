"""Leave a recorded profile where TensorBoard and XProf look for it: in ``plugins/profile/RUN`` of a log folder."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final

from graphlens import workplace
from graphlens.errors import UsageError
from graphlens.loaders.capture import reading
from graphlens.loaders.hosts import PROFILE_SUFFIX, file_stem, hostname_of

RUNS: Final = Path("plugins", "profile")
RUN_NAME: Final = "%Y_%m_%d_%H_%M_%S"  # as TensorFlow names runs


def new_run(folder: str) -> Path:
    """Return the run that ``keep`` is to make in the log folder ``folder``; nothing is made yet.

    Raises
    ------
    UsageError
        When the folder cannot be written to, or the run exists: nothing is ever overwritten.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError(f"'{folder}' is a file; --keep-logdir names a folder")
    parent = place.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"the folder of '{folder}' does not exist; create it first")
    if not os.access(place if place.exists() else parent, os.W_OK):
        raise UsageError(f"'{folder}' cannot be written to")
    run = place / RUNS / time.strftime(RUN_NAME)
    if run.exists():
        raise UsageError(f"'{run}' exists, and is not overwritten; try again in a second, or name another folder")
    return run


def keep(recorded: str | os.PathLike[str], run: Path) -> None:
    """Write the profiles of the capture ``recorded`` into ``run``, which appears when it is complete.

    Raises
    ------
    UsageError
        When the run exists by now, or cannot be written.
    """
    capture = reading.open_capture(recorded)
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        with workplace.beside(run) as folder:
            partial = folder / "run"
            partial.mkdir()
            for host, part in reading.profile_parts(capture).items():
                _write(partial, host, capture.part(part))
            partial.rename(run)
    except OSError as error:
        raise UsageError(f"the profile cannot be kept in '{run}': {error.strerror or error}") from error


def _write(folder: Path, host: str, profile: bytes) -> None:
    name = file_stem(host or hostname_of(profile) or socket.gethostname())
    (folder / f"{name}{PROFILE_SUFFIX}").write_bytes(profile)
