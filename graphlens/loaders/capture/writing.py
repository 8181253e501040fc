"""The capture directory: parts are written as they come, and ``capture.json`` anew after each stage.

A child that is killed leaves what it had: every file is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from graphlens._version import __version__
from graphlens.loaders.capture.parts import MANIFEST, SCHEMA_VERSION


class CaptureDirectory:
    """What has been recorded so far, and where it is kept."""

    def __init__(self, path: Path, target: dict[str, Any], trust: bool = False) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "graphlens_version": __version__,
            "target": target,
            "environment": {},
            "inputs": [],
            "unprofiled_ns": [],
            "empty_call_ns": None,
            "profiled_steps": 0,
            "roof": None,
            "executed": [],
            "trust": trust,
            "training": None,
            "notes": [],
            "errors": [],
            "stages_done": [],
            "stage_seconds": {},
        }
        path.mkdir(parents=True, exist_ok=True)
        self.save()

    def note(self, *notes: str) -> None:
        """Add what the reader must know about this measurement; repeated notes are kept once."""
        self.content["notes"].extend(note for note in notes if note not in self.content["notes"])

    def fail(self, stage: str, message: str) -> None:
        """Record that a stage could not be done, and why."""
        self.content["errors"].append({"stage": stage, "message": message})
        self.save()

    def finish(self, stage: str, seconds: float) -> None:
        """Record that a stage is done, and save."""
        self.content["stages_done"].append(stage)
        self.content["stage_seconds"][stage] = round(seconds, 3)
        self.save()

    def save(self) -> None:
        """Write ``capture.json``."""
        self.write(MANIFEST, json.dumps(self.content, indent=1).encode())

    def write(self, name: str, data: bytes) -> None:
        """Write one part; readers never see half of it."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(data)
        os.replace(partial, target)
