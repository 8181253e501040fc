"""How files with profiles are called, without what it takes to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from graphlens.loaders.hosts import PROFILE_SUFFIX

ProfileKind = Literal["xplane", "run_metadata", "timeline"]
PROFILE_KINDS: Final = frozenset({"xplane", "run_metadata", "timeline"})

TRACE_SUFFIX: Final = ".trace.json.gz"


def profile_files(folder: Path) -> list[Path]:
    """Return the profiles below ``folder``, whatever recording they belong to."""
    return sorted(folder.glob(f"**/*{PROFILE_SUFFIX}")) or sorted(folder.glob(f"**/*{TRACE_SUFFIX}"))
