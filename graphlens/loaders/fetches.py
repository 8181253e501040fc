"""The elements of datasets that a step asks for: how large each is, and how many rows it has."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Final

from graphlens.ir.run import Fetch, Span
from graphlens.loaders import host_runs
from graphlens.loaders.asynchronous import Done
from graphlens.loaders.collectives import RunAt

# Bytes of one number of the types that a dataset may hold, as tf.data writes them down.
_BYTES: Final[Mapping[str, int]] = {
    "float": 4, "double": 8, "half": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4,
    "uint32": 4, "int64": 8, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip

Fed = tuple[Span, int | None, str, str]  # a request, bytes of the element, shapes and types of its components


def fed_by(
    requests: Sequence[Span],
    sizes: Sequence[int | None],
    roots: Sequence[Span],
    specs: Mapping[tuple[int, int], tuple[str, str]],
) -> Iterator[Fed]:
    """Yield the requests with what the root of the chain says that answered each.

    Parameters
    ----------
    specs
        Shapes and types of components, by thread and start of a root.
    """
    by_thread = host_runs.by_thread(roots)
    for request, size in zip(requests, sizes, strict=True):
        inner = host_runs.within(by_thread.get(request.thread, ()), request)
        told = (specs[root.thread, root.start_ns] for root in inner)
        yield (request, size, *next(told, ("", "")))


def fetches_of(requests: Iterable[Fed], done: Iterable[Done], run_at: RunAt) -> Iterator[Fetch]:
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
    >>> _rows(4, "[?,²]", "float")
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
    return _BYTES[kind] * prod(map(int, sizes[1:])) if all(size.isdecimal() for size in sizes[1:]) else None
