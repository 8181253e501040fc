"""Give what a replay saw the names of the executed graph, since the runtime numbers lowered loops differently.

A name that fits no executed op, or several, is left out: a missing record is better than a wrong one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

Record = TypeVar("Record")

# Lowering numbers what it makes, `while/body/_13/MatMul` for instance, by a counter of the whole graph.
_COUNTER = re.compile(r"/_\d+(?=/|$)")


def align(records: Mapping[str, Record], partitions: Iterable[Any]) -> dict[str, Record]:
    """Return ``records`` under the names that the executed ``partitions`` (GraphDefs) use."""
    meant: dict[str, set[str]] = defaultdict(set)
    for partition in partitions:
        for path, name in _places(partition):
            meant[_plain(path)].add(path)
            meant[_plain(name)].add(path)
    seen: dict[str, set[str]] = defaultdict(set)
    for name in records:
        seen[_plain(name)].add(name)
    pairs = (pair for key, names in seen.items() for pair in _pairs(meant[key], names))
    return {path: records[name] for path, name in pairs}


def _pairs(paths: set[str], names: set[str]) -> Iterator[tuple[str, str]]:
    """Pair the executed and the replayed ops of one key, where it is certain which is which."""
    if paths == names:
        yield from ((name, name) for name in names)
    elif len(paths) == len(names) == 1:
        yield next(iter(paths)), next(iter(names))


def _places(partition: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(path, name)`` of a partition's ops: inside functions called as such, the path leads through the call."""
    bodies = {function.signature.name: function.node_def for function in partition.library.function}
    todo = [("", partition.node, frozenset[str]())]
    while todo:
        prefix, nodes, entered = todo.pop()
        for node in nodes:
            yield prefix + node.name, node.name
            called = node.attr["f"].func.name if "f" in node.attr else ""
            if called in bodies and called not in entered:
                todo.append((f"{prefix}{node.name}/", bodies[called], entered | {called}))


def _plain(name: str) -> str:
    return _COUNTER.sub("/_", name)
