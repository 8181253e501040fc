"""The names of a capture's parts, for those who write them and those who read them."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "capture.json"
TRACED: Final = "traced.pb"
OPTIMIZED: Final = "optimized.pb"
BEFORE_PLACER: Final = "before_placer.pb"  # inlined and lowered, as TensorFlow hands it to its placer
PROFILE: Final = "profile.xplane.pb"
PROFILES_FOLDER: Final = "profiles/"  # one profile per host, in place of PROFILE
REPLAY: Final = "replay.json"
EXECUTED_FOLDER: Final = "executed/"
HLO_FOLDER: Final = "hlo/"
PROGRAMS_FOLDER: Final = "programs/"  # of all programs but the main one, whose graphs lie at the top


def folder_of(program: str) -> str:
    """Return where the parts of the program with that id lie, with the names that the main program's have at the top.

    >>> folder_of("eval") + TRACED
    'programs/eval/traced.pb'
    """
    return f"{PROGRAMS_FOLDER}{program}/"
