"""The names of a capture's parts, for those who write them and those who read them."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "capture.json"
TRACED: Final = "traced.pb"
OPTIMIZED: Final = "optimized.pb"
BEFORE_PLACER: Final = "before_placer.pb"  # inlined and lowered, as TensorFlow hands it to its placer
PROFILE: Final = "profile.xplane.pb"
PROFILES_FOLDER: Final = "profiles/"  # one profile per host, in place of PROFILE
REPLAY: Final = "replay.json"
EXECUTED_FOLDER: Final = "executed/"
HLO_FOLDER: Final = "hlo/"
