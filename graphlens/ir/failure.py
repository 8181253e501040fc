"""What could not be done: noted while something is recorded, and told in the analysis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnalysisError:
    """What could not be done, at which stage, in one sentence that says what to do next."""

    stage: str
    message: str
