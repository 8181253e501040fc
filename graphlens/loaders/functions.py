"""Which functions the nodes of a GraphDef refer to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a node refers to."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            yield from (function.name for function in value.list.func)
