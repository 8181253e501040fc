"""The capture directory: parts are written as they come, and ``capture.json`` anew after each stage.

A child that is killed leaves what it had: every file is written under a temporary name and renamed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphlens._version import __version__
from graphlens.errors import first_line
from graphlens.ir.capture import CapturedProgram, CapturedTarget, Manifest, new_id
from graphlens.ir.failure import AnalysisError
from graphlens.loaders.capture.manifest import to_bytes
from graphlens.loaders.capture.parts import EXECUTED_FOLDER, HLO_FOLDER, MANIFEST, OPTIMIZED, TRACED, folder_of


@dataclass(frozen=True, slots=True)
class ProgramParts:
    """The graphs of one program, serialized: one executed graph per device, the text of HLO modules."""

    traced: bytes | None = None
    optimized: bytes | None = None
    executed: Sequence[bytes] = ()
    hlo: Sequence[str] = ()


NO_PARTS: Final = ProgramParts()


class CaptureDirectory:
    """What has been recorded so far, and where it is kept.

    Attributes
    ----------
    path
        The folder.
    manifest
        What is said of the recording.  Recorders replace it, and :meth:`save` writes it.
    """

    def __init__(self, path: Path, target: CapturedTarget, trust: bool = False) -> None:
        self.path = path
        self.manifest = Manifest(graphlens_version=__version__, target=target, trust=trust)
        path.mkdir(parents=True, exist_ok=True)
        self.save()

    def note(self, *notes: str) -> None:
        """Add what the reader must know about this measurement; repeated notes are kept once."""
        self.manifest = replace(self.manifest, notes=tuple(dict.fromkeys((*self.manifest.notes, *notes))))

    def fail(self, stage: str, message: str) -> None:
        """Record that a stage could not be done, and why."""
        self.manifest = replace(self.manifest, errors=(*self.manifest.errors, AnalysisError(stage, message)))
        self.save()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record that what is done within is done, and how long it took; nothing when it fails."""
        start_s = time.monotonic()
        yield
        self.finish(name, time.monotonic() - start_s)

    @contextmanager
    def attempt(self, stage: str) -> Iterator[None]:
        """Record why what is done within failed, and drop what it has said: whoever is recorded goes on in any case."""
        before = self.manifest
        try:
            yield
        except Exception as error:  # of whatever kind: a program that is watched must not end by it
            self.manifest = before
            with suppress(OSError):  # where nothing can be written, nothing can be told
                self.fail(stage, f"the stage '{stage}' failed: {type(error).__name__}: {first_line(error)}")

    def finish(self, stage: str, seconds: float) -> None:
        """Record that a stage is done, and save."""
        self.manifest = replace(
            self.manifest,
            stages_done=(*self.manifest.stages_done, stage),
            stage_seconds={**self.manifest.stage_seconds, stage: round(seconds, 3)},
        )
        self.save()

    def id_for(self, name: str) -> str:
        """Return an id for one more program, which reads like its ``name``."""
        return new_id(name, [listed.id for listed in self.manifest.programs])

    def write_program(self, program: CapturedProgram, parts: ProgramParts = NO_PARTS) -> None:
        """Write one program's parts and what is known of it, in place of what was said of it before.

        Of the main program only that it is one of the programs: its parts are written at the top.
        """
        listed = program if program.main else self._written(program, parts)
        others = [one for one in self.manifest.programs if one.id != program.id]
        self.manifest = replace(self.manifest, programs=(*others, listed))
        self.save()

    def _written(self, program: CapturedProgram, parts: ProgramParts) -> CapturedProgram:
        folder = folder_of(program.id)
        for name, graph in ((TRACED, parts.traced), (OPTIMIZED, parts.optimized)):
            if graph is not None:
                self.write(folder + name, graph)
        self._write_all(folder + HLO_FOLDER, ".txt", (module.encode() for module in parts.hlo))
        executed = self._write_all(folder + EXECUTED_FOLDER, ".pb", parts.executed)
        return replace(program, executed=executed or program.executed)

    def _write_all(self, folder: str, suffix: str, contents: Iterable[bytes]) -> tuple[str, ...]:
        """Write parts that are numbered; returns their names."""
        names = []
        for number, content in enumerate(contents):
            names.append(f"{folder}{number}{suffix}")
            self.write(names[-1], content)
        return tuple(names)

    def save(self) -> None:
        """Write ``capture.json``.

        Raises
        ------
        TypeError
            When it would hold what no reader could read: a mistake of whoever put it there.
        """
        self.write(MANIFEST, to_bytes(self.manifest))

    def write(self, name: str, data: bytes) -> None:
        """Write one part; readers never see half of it."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(data)
        os.replace(partial, target)
