"""What the replicas of a step do with each other and what each is fed: collectives, and the elements of datasets."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

from graphlens.ir.run import Collective, Fetch, Span

COLLECTIVE_OP: Final = "Collective"  # how the types of all of them begin
GET_NEXT: Final = "IteratorGetNext"  # likewise of the ops that fetch an element
INSTANCE: Final = "instance_key"
GROUP: Final = "group_key"

# Bytes of one number of the types that a dataset may hold, as tf.data writes them down.
_BYTES: Final[Mapping[str, int]] = {
    "float": 4, "double": 8, "half": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4,
    "uint32": 4, "int64": 8, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip

RunAt = Callable[[int, int], int]  # the run of a step id at a time


class Executed(NamedTuple):
    """A collective while it is under way, which begins when its turn comes: after its op was reached."""

    node: str
    op: str
    start_ns: int
    end_ns: int
    thread: int
    stats: Mapping[str, Any]


class Done(NamedTuple):
    """The completion of an asynchronous op: it is told on the thread that did the op's work."""

    node: str
    start_ns: int
    thread: int


def collectives_of(executed: Iterable[Executed], waits: Sequence[Span], run_at: RunAt) -> Iterator[Collective]:
    """Yield the collectives, each from the moment at which its replica reached it.

    Parameters
    ----------
    waits
        The asynchronous ops from their start to their completion, named ``node:Op``.
    """
    reached: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for wait in waits:
        reached[wait.name, wait.step_id].append(wait)
    for one in executed:
        step_id = int(one.stats.get("step_id", 0))
        around = [
            wait
            for wait in reached.get((f"{one.node}:{one.op}", step_id), ())
            if wait.start_ns <= one.start_ns <= wait.end_ns
        ]
        start_ns = min((wait.start_ns for wait in around), default=one.start_ns)
        # The event itself ends when its thread has also told those who wait for it, and run what they do then.
        end_ns = max((wait.end_ns for wait in around), default=one.end_ns)
        instance, group = int(one.stats[INSTANCE]), int(one.stats.get(GROUP, 0))
        run = run_at(step_id, one.start_ns)
        yield Collective(one.node, one.op, start_ns, end_ns, one.thread, instance, group, run)


def fetches_of(
    requests: Iterable[tuple[Span, int | None, str, str]], done: Iterable[Done], run_at: RunAt
) -> Iterator[Fetch]:
    """Yield the elements that were asked for.

    Parameters
    ----------
    requests
        Each with the bytes of the element, ``None`` where there was none, and shapes and types of its components.
    done
        The completions of the ops that ask for elements.
    """
    by_thread: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for one in sorted(done, key=lambda one: one.start_ns):
        by_thread[one.thread].append((one.start_ns, one.node))
    for span, nbytes, shapes, types in requests:
        told = by_thread.get(span.thread, [])
        index = bisect_left(told, (span.end_ns, ""))
        node = told[index][1] if index < len(told) else ""
        run = run_at(span.step_id, span.start_ns)
        yield Fetch(node, span.start_ns, span.end_ns, span.thread, nbytes, _rows(nbytes, shapes, types), run)


def _rows(nbytes: int | None, shapes: str, types: str) -> int | None:
    """Return how many rows an element has, ``None`` where its bytes do not tell.

    >>> _rows(2688, "[?,20] [?]", "float int32"), _rows(0, "[?,20] [?]", "float int32"), _rows(9, "[?]", "string")
    (32, 0, None)
    """
    if not nbytes:
        return nbytes
    sizes = [_row_bytes(shape, kind) for shape, kind in zip(shapes.split(" "), types.split(" "), strict=False)]
    row_bytes = 0
    for size in sizes:
        if size is None:
            return None
        row_bytes += size
    return nbytes // row_bytes if row_bytes and nbytes % row_bytes == 0 else None


def _row_bytes(shape: str, kind: str) -> int | None:
    """Return what a row of a component takes; ``None`` where a size within a row, or that of a number, is not known."""
    sizes = shape.strip("[]").split(",")
    if not shape.startswith("[") or not sizes[0] or kind not in _BYTES:
        return None
    return _BYTES[kind] * prod(map(int, sizes[1:])) if all(size.isdigit() for size in sizes[1:]) else None
