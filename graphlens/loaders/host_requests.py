"""What the steps of a host plane asked of input pipelines: when, for how long, and which iterator answered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from graphlens.ir.iterators import NO_STAGE, InputRequest
from graphlens.ir.run import Span
from graphlens.loaders.host_runs import by_thread, within
from graphlens.loaders.iterators import Iterators
from graphlens.loaders.stage_events import NO_EVENT, StageEvents

_OF_A_LOOP: Final = "ReduceIterator::"
_BODY: Final = "::Scan"  # its function is the body of a loop over a dataset: what it reads is the input of that


class Answered(NamedTuple):
    """What answers requests: the iterators of a plane with their events; and the runs that step ids mean at a time."""

    found: StageEvents
    iterators: Iterators
    threads: Sequence[int]
    run_at: Callable[[int, int], int]
    first_stage: int


def requests_of_ops(asked: Iterable[Span], named: str | None, by: Answered) -> Iterator[InputRequest]:
    """Yield the requests that ops of the step made, each with the root of the chain that answered it.

    Those that were answered with an element are ``named`` so; ``None`` where that is not told.
    """
    roots = by_thread(_roots(by, "Iterator::Root"))
    for span in asked:
        root = next(within(roots.get(span.thread, ()), span), None)
        stage = NO_STAGE if root is None else root.step_id + by.first_stage
        run = by.run_at(span.step_id, span.start_ns)
        got = None if named is None else span.name == named
        yield InputRequest(span.start_ns, span.end_ns, span.thread, run, stage, got)


def _roots(by: Answered, path: str) -> Iterator[Span]:
    """Yield the events of one path, with their stage in the place of the step id."""
    found = by.found
    codes = [code for code, name in enumerate(found.paths) if name == path]
    chosen = np.flatnonzero(np.isin(found.path, codes))
    rows = (column[chosen].tolist() for column in (found.start_ns, found.end_ns, found.line, by.iterators.stage))
    for start_ns, end_ns, line, stage in zip(*rows, strict=True):
        yield Span(path, start_ns, end_ns, by.threads[line], stage)


def requests_of_loops(reductions: Sequence[Span], by: Answered) -> Iterator[InputRequest]:
    """Yield what loops over a dataset asked for that tf.data runs: the input of their body, or what is reduced."""
    found, stages = by.found, by.iterators.stages
    reduction_of = _reductions(reductions, by)
    if not reduction_of:
        return
    bodies = [code for code, path in enumerate(found.paths) if path.startswith(_OF_A_LOOP) and path.endswith(_BODY)]
    of_body = (found.outer != NO_EVENT) & np.isin(found.path[found.outer], bodies)
    with_body = {stages[stage].chain for stage in np.unique(by.iterators.stage[found.outer[of_body]]).tolist()}
    is_root = np.isin(found.path, [code for code, path in enumerate(found.paths) if path == f"{_OF_A_LOOP}Root"])
    for event in np.flatnonzero(of_body | is_root).tolist():
        stage = int(by.iterators.stage[event])
        chain = stages[stage].chain
        if chain in reduction_of and bool(is_root[event]) != (chain in with_body):
            start_ns, end_ns = int(found.start_ns[event]), int(found.end_ns[event])
            run = by.run_at(reduction_of[chain].step_id, start_ns)
            yield InputRequest(start_ns, end_ns, by.threads[int(found.line[event])], run, stage + by.first_stage)


def _reductions(reductions: Sequence[Span], by: Answered) -> Mapping[int, Span]:
    """Return the reduction that each chain of iterators is asked by."""
    begun = by_thread(reductions)
    known: dict[int, Span] = {}
    for root in _roots(by, f"{_OF_A_LOOP}Root"):
        spans = begun.get(root.thread, ())
        last = bisect_left(spans, root.start_ns, key=lambda span: span.start_ns) - 1
        if last >= 0 and root.start_ns < spans[last].end_ns:
            known.setdefault(by.iterators.stages[root.step_id].chain, spans[last])
    return known
