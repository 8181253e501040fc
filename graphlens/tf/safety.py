"""Say why a traced graph must not be executed, for targets whose graph the parent could not see before."""

from __future__ import annotations

from typing import Any

from graphlens.ir.unsafe import unsafe_ops
from graphlens.loaders.graphdef import build_graph


def refusal(graph_def: Any) -> str | None:
    """Return one line naming the op that touches files, network or Python; ``None`` when there is none."""
    unsafe = unsafe_ops(build_graph(graph_def))
    if not unsafe:
        return None
    name, why = unsafe[0]
    more = f" and {len(unsafe) - 1} more" if len(unsafe) > 1 else ""
    return f"not executed: op '{name}'{more} {why}; pass --trust to execute it anyway"
