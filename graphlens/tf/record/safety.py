"""Say why a traced graph must not be executed: the last word, on the very function that is going to run."""

from __future__ import annotations

from typing import Any

from graphlens.ir import unsafe
from graphlens.loaders import judged


def refusal(graph_def: Any) -> str | None:
    """Return one line naming the op that touches files, network or Python; ``None`` when there is none."""
    return unsafe.refusal(judged.of_traced(graph_def).all_blockers())
