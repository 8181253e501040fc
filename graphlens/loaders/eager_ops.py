"""What ran op by op in the steps of an eager loop: kernels, under the type of the op that was asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from graphlens.ir.run import OpEvent, Run, Span


def eager_ops(
    calls: Iterable[Span], kernels: Iterable[Span], runs: Sequence[tuple[int, Run]], functions: Iterable[Span]
) -> Iterator[OpEvent]:
    """Yield the ops within ``runs``, given with their positions: of each the time of its kernel, less what that called.

    There is no graph, and an op no name of its own: it is called after its type.

    Parameters
    ----------
    calls
        The execution of an op, under its type.
    kernels
        What ran of it: the rest is dispatch.
    functions
        Executions of whole functions, which are no ops.
    """
    threads = _by_thread(calls, kernels, functions)
    for position, run in runs:
        yield from _within(position, run, threads.get(run.thread, ()))


_Item = tuple[int, int, int, Span]  # start, minus end, what it is, itself
_FUNCTION, _CALL, _KERNEL = range(3)


def _by_thread(calls: Iterable[Span], kernels: Iterable[Span], functions: Iterable[Span]) -> Mapping[int, list[_Item]]:
    threads: dict[int, list[_Item]] = defaultdict(list)
    for kind, spans in ((_FUNCTION, functions), (_CALL, calls), (_KERNEL, kernels)):
        for span in spans:
            threads[span.thread].append((span.start_ns, -span.end_ns, kind, span))
    for items in threads.values():
        items.sort(key=lambda item: item[:3])
    return threads


class _Open:
    """What goes on: its end, whose kernel it is (empty: of a function), and the time of kernels within it."""

    __slots__ = ("inner_ns", "kernel", "op", "until_ns")

    def __init__(self, op: str, until_ns: int, kernel: Span | None) -> None:
        self.op, self.until_ns, self.kernel, self.inner_ns = op, until_ns, kernel, 0


def _within(position: int, run: Run, items: Sequence[_Item]) -> Iterator[OpEvent]:
    opened: list[_Open] = []
    for start_ns, _, kind, span in items[bisect_left(items, run.start_ns, key=lambda item: item[0]) :]:
        if start_ns >= run.end_ns:
            break
        while opened and opened[-1].until_ns <= start_ns:
            yield from _closed(opened, position)
        if kind == _KERNEL:
            op = opened[-1].op if opened else ""
            opened.append(_Open(op, span.end_ns, span if op else None))
        else:
            is_of_a_function = kind == _FUNCTION or bool(opened and not opened[-1].op)
            opened.append(_Open("" if is_of_a_function else span.name, span.end_ns, None))
    while opened:
        yield from _closed(opened, position)


def _closed(opened: list[_Open], position: int) -> Iterator[OpEvent]:
    last = opened.pop()
    kernel = last.kernel
    taken_ns = last.inner_ns
    if kernel is not None:
        taken_ns = kernel.end_ns - kernel.start_ns
        self_ns = max(0, taken_ns - last.inner_ns)
        yield OpEvent(last.op, last.op, kernel.start_ns, kernel.end_ns, self_ns, kernel.thread, position)
    if opened:
        opened[-1].inner_ns += taken_ns
