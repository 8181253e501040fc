"""The steps within a run: how many elements of a dataset it was handed, and where each iteration over them ended."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Final, NamedTuple

from graphlens.ir.run import NO_RUN, Run, Span, Window
from graphlens.loaders.host_runs import RunTable

_NUMBERS = re.compile(r"_\d+")  # by which names are told apart that would be the same

# Of the iterations of a loop, as many may begin their heaviest op before the one before them has ended: one may be
# late.  Where more do, the loop runs several iterations at a time.
_OVERLAPPING: Final = 0.25
# An iteration that runs fewer of the usual ops than this, for less of the usual time, only found that the loop is over.
_IDLE_OPS: Final = 0.5
_IDLE_TIME: Final = 0.1


class Element(NamedTuple):
    """One request for the next element of a dataset.

    ``root`` is the iterator's own number, 0 where it is not known; ``got`` tells whether there was an element.
    """

    start_ns: int
    step_id: int
    root: int
    got: bool


class LoopOp(NamedTuple):
    """One execution of an op in a loop, with the iteration that it is part of."""

    node: str
    iteration: int
    start_ns: int
    end_ns: int


def count_elements(table: RunTable, elements: Iterable[Element]) -> None:
    """Note how many elements each run was handed: of the iterator that gave it most."""
    got: dict[int, Counter[int]] = defaultdict(Counter)
    for element in elements:
        position = table.at(element.step_id, element.start_ns)
        if position != NO_RUN:
            got[position][element.root] += element.got
    for position, by_root in got.items():
        table.runs[position] = table.runs[position]._replace(elements=max(by_root.values()))


def split_loops(table: RunTable, ops: Mapping[int, Sequence[LoopOp]]) -> None:
    """Split the runs that loop over a dataset into their steps; ``ops`` are those of such runs."""
    for position in loops_of(table):
        run, within = table.runs[position], ops.get(position, ())
        if position in table.loops:
            bodies = sorted(table.loops[position], key=lambda span: span.start_ns)
            count = _working(_in_bodies(within, bodies), len(bodies))
            windows = _between_starts(bodies[:count], run)
        else:
            count = run.elements or 0
            within = _of_the_loop(within, count)
            count = _working(within, count)
            windows = (
                _between_ends(_once_in_each(within, count), run)
                or _between_ends(_once_in_copies(within, count), run)
                or _even(run, count)
            )
        table.runs[position] = run._replace(iterations=windows)


def loops_of(table: RunTable) -> frozenset[int]:
    """Return the runs that take several elements, or loop within tf.data: they are several steps."""
    return frozenset(
        position
        for position, run in enumerate(table.runs)
        if position in table.loops or (run.elements is not None and run.elements > 1)
    )


def between_bodies(table: RunTable, reductions: Iterable[Span]) -> Iterator[Span]:
    """Yield when loops that tf.data runs do not run their bodies: they ask for the next element then."""
    for reduction in reductions:
        bodies = table.loops.get(table.at(reduction.step_id, reduction.start_ns), ())
        since_ns = reduction.start_ns
        for body in sorted(bodies, key=lambda span: span.start_ns):
            if reduction.start_ns <= body.start_ns < reduction.end_ns:
                if body.start_ns > since_ns:
                    yield reduction._replace(start_ns=since_ns, end_ns=body.start_ns)
                since_ns = max(since_ns, body.end_ns)


def _working(ops: Iterable[LoopOp], count: int) -> int:
    """Return how many of ``count`` iterations did the work of the loop.

    A loop that is left early is handed elements ahead, and finds only then that it has ended: the last iterations run a
    few ops that cost nothing.  Steps in the middle count in any case, whatever they do.
    """
    ran: dict[int, set[str]] = defaultdict(set)
    took_ns: Counter[int] = Counter()
    for op in ops:
        ran[op.iteration].add(op.node)
        took_ns[op.iteration] += op.end_ns - op.start_ns
    numbers = sorted(ran)[:count]
    if len(numbers) < count:
        return count
    usual_ops, usual_ns = median(len(ran[number]) for number in numbers), median(took_ns[number] for number in numbers)
    while count > 1 and len(ran[numbers[count - 1]]) < _IDLE_OPS * usual_ops:
        if took_ns[numbers[count - 1]] >= _IDLE_TIME * usual_ns:
            break
        count -= 1
    return count


def _of_the_loop(ops: Sequence[LoopOp], count: int) -> Sequence[LoopOp]:
    """Return the ops of a loop of ``count`` iterations without those of loops within it, which count on their own.

    Those run in an iteration of the same number again and again.  Where what is left does not run in ``count``
    iterations, it is an inner loop that takes the elements.
    """
    ran = Counter((op.node, op.iteration) for op in ops)
    again = {node for (node, _), times in ran.items() if times > 1}
    once = [op for op in ops if op.node not in again]
    return once if len({op.iteration for op in once}) >= count else ops


def _in_bodies(ops: Iterable[LoopOp], bodies: Sequence[Span]) -> Iterator[LoopOp]:
    """Yield the ops that ran in one of the bodies, numbered by it."""
    starts_ns = [body.start_ns for body in bodies]
    for op in ops:
        number = bisect_right(starts_ns, op.start_ns) - 1
        if number >= 0:
            yield op._replace(iteration=number)


def _between_starts(bodies: Sequence[Span], run: Run) -> tuple[Window, ...]:
    """Return the iterations that tf.data ran one after the other: each lasts until the next one begins."""
    borders_ns = [*(span.start_ns for span in bodies), min(bodies[-1].end_ns, run.end_ns)]
    return tuple(Window(start, end) for start, end in pairwise(borders_ns) if end > start)


def _between_ends(once: Sequence[Sequence[LoopOp]], run: Run) -> tuple[Window, ...]:
    """Return the iterations of a loop that the executor ran: each lasts from the end of the one before to its own.

    An iteration ends with the last of the ops that run ``once`` in each; empty where there is no such op, or where one
    iteration does its work while another still does, or ends before it: then only what they take on average means
    anything.
    """
    if not once:
        return ()
    ends_ns = list(accumulate((max(op.end_ns for op in iteration) for iteration in zip(*once, strict=True)), max))
    heaviest = max(once, key=lambda items: sum(op.end_ns - op.start_ns for op in items))
    early = sum(op.start_ns < end_ns for op, end_ns in zip(heaviest[1:], ends_ns, strict=False))
    windows = tuple(Window(start, end) for start, end in pairwise([run.start_ns, *ends_ns]))
    if early > len(ends_ns) * _OVERLAPPING or any(window.end_ns <= window.start_ns for window in windows):
        return ()
    return windows


def _once_in_each(ops: Iterable[LoopOp], count: int) -> list[list[LoopOp]]:
    """Return the executions, by iteration, of each op that runs once in each of ``count`` iterations."""
    by_node: dict[str, list[LoopOp]] = defaultdict(list)
    for op in ops:
        by_node[op.node].append(op)
    return [
        sorted(found, key=lambda op: op.iteration)
        for found in by_node.values()
        if len(found) == count == len({op.iteration for op in found})
    ]


def _once_in_copies(ops: Iterable[LoopOp], count: int) -> list[list[LoopOp]]:
    """Return the same of a loop that was unrolled: the copies of an op differ by numbers in their names."""
    by_name: dict[str, list[LoopOp]] = defaultdict(list)
    for op in ops:
        by_name[_NUMBERS.sub("", op.node)].append(op)
    return [sorted(found, key=lambda op: op.start_ns) for found in by_name.values() if len(found) == count]


def _even(run: Run, count: int) -> tuple[Window, ...]:
    """Divide a run whose iterations cannot be told apart: each takes the mean, which is all that is known."""
    borders_ns = [run.start_ns + (run.end_ns - run.start_ns) * step // count for step in range(count + 1)]
    return tuple(Window(start, end) for start, end in pairwise(borders_ns))
