"""Divide every instant of the steps among what was running in it: kernels, copies, ops, waits, or a known state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.facts.clock.division import COPY, DISPATCH, EXECUTOR, HANDOFF, Division, is_real_wait, wait_name
from graphlens.facts.clock.sweep import Intervals, Windows, divide_among, touching
from graphlens.facts.flat.names import Names, kernel_name
from graphlens.ir.columns import Codes, DeviceEvents, Ints, OpEvents, Spans, alone, in_order
from graphlens.ir.instructions import is_wait
from graphlens.ir.run import CopyEvent, Profile, Span

Mask = NDArray[np.bool_]


def divide(profile: Profile, ops: OpEvents, windows: Sequence[Span], names: Names) -> Division:
    """Give every instant of every window to what was running in it, else to the most specific known state.

    An accelerator's kernels come first: what else happens while one runs costs no time.  Then the instructions that
    only wait for a copy, and the copies between memories, during which the device waits; then the host.  ``ops`` are
    those of the profile, compiled instructions among them.
    """
    keys = Codes[str]()
    waiting, kernels = _kernels(profile, names, keys)
    within = Windows.of(windows)
    layers = [
        kernels,
        waiting,
        _all(profile.copies, keys(COPY)),
        _own_pieces(profile, ops, within, names, keys),
        _waits(profile, names, keys),
        _joined(_of_spans(profile.executors, keys(EXECUTOR)), _of_spans(profile.executions, keys(EXECUTOR))),
        _of_spans(profile.functions, keys(HANDOFF)),
    ]
    # What lies between a marker that the program set and the function it runs is the program's; between steps that were
    # found on a device, or not at all, it may be anything.
    outside = keys(DISPATCH if profile.steps else HANDOFF)
    active_ns: dict[str, float] = {}
    called = keys.all
    for share in sorted(divide_among(within, layers, outside), key=lambda share: (share.first, called[share.key])):
        active_ns[called[share.key]] = active_ns.get(called[share.key], 0.0) + share.ns
    return Division(active_ns, int(np.sum(within.ends_ns - within.starts_ns)), len(windows))


def _kernels(profile: Profile, names: Names, keys: Codes[str]) -> tuple[Intervals, Intervals]:
    """Return the kernels that only wait for a copy, and those that compute."""
    kernels = DeviceEvents.of(profile.kernels_on_device)
    key = np.zeros(len(kernels.kinds), np.int64)
    waits = np.zeros(len(kernels.kinds), bool)
    for code in in_order(kernels.code):
        key[code] = keys(names.key(*kernel_name(kernels.kinds[code])))
        waits[code] = is_wait(kernels.kinds[code].category)
    found = Intervals(kernels.start_ns, kernels.end_ns, key[kernels.code])
    return found.where(waits[kernels.code]), found.where(~waits[kernels.code])


def _of_spans(spans: Sequence[Span], key: int) -> Intervals:
    columns = Spans.of(spans)
    return Intervals(columns.start_ns, columns.end_ns, np.full(len(columns), key))


def _all(events: Sequence[CopyEvent | Span], key: int) -> Intervals:
    starts_ns = np.fromiter((event.start_ns for event in events), np.int64, len(events))
    ends_ns = np.fromiter((event.end_ns for event in events), np.int64, len(events))
    return Intervals(starts_ns, ends_ns, np.full(len(events), key))


def _joined(one: Intervals, other: Intervals) -> Intervals:
    parts = ((one.start_ns, other.start_ns), (one.end_ns, other.end_ns), (one.key, other.key))
    return Intervals(*map(np.concatenate, parts))


def _waits(profile: Profile, names: Names, keys: Codes[str]) -> Intervals:
    waits = [wait for wait in profile.waits if is_real_wait(wait, names)]
    found = _all(waits, 0)
    key = [keys(names.key(*wait_name(wait, names))) for wait in waits]
    return Intervals(found.start_ns, found.end_ns, np.array(key, np.int64))


# -- what ran nested in what --------------------------------------------------------------------------------------

_NO_OP = -1


class _Nesting(NamedTuple):
    """What may run in each other, one thread after the other, by start; what contains others comes before them."""

    thread: Ints
    start_ns: Ints
    end_ns: Ints
    key: Ints  # of an op; `_NO_OP` for an executor and for an execution of a compiled function

    def where(self, chosen: Any) -> _Nesting:
        return _Nesting(*(column[chosen] for column in self))

    def borders(self) -> Ints:
        """Return where each thread begins, and how many there are in all."""
        return np.searchsorted(self.thread, np.arange(self.thread.max(initial=-1) + 2))


def _own_pieces(profile: Profile, ops: OpEvents, within: Windows, names: Names, keys: Codes[str]) -> Intervals:
    """Return the stretches in which an op itself ran, without what ran nested in it on the same thread.

    A ``_Send`` runs its receiver, and whatever that makes ready, before it returns.
    """
    key = np.zeros(len(ops.kinds), np.int64)
    for code in _by_thread(profile, ops):
        key[code] = keys(names.key(*ops.kinds[code]))
    nesting = _nesting(profile, ops, key[ops.code], within)
    nesting = nesting.where((nesting.key != _NO_OP) | _begins_in_an_op(nesting))
    is_alone = alone(nesting.borders(), nesting.start_ns, nesting.end_ns)
    whole = nesting.where(is_alone & (nesting.key != _NO_OP))
    pieces = list(_innermost(nesting.where(~is_alone)))
    columns = np.array(pieces, np.int64).reshape(-1, 3).T
    return _joined(Intervals(*columns), Intervals(whole.start_ns, whole.end_ns, whole.key))


def _nesting(profile: Profile, ops: OpEvents, key: Ints, within: Windows) -> _Nesting:
    """Return what ran on threads of the host in some windows."""
    # An executor that lasts exactly as long as its only op contains it, so it has to come first.
    rank = np.where(np.arange(len(ops)) < len(profile.ops), 1, 3)
    threads = Codes[int]()
    parts = [(threads.renumbered(ops.threads, ops.thread), ops.start_ns, ops.end_ns, key, rank)]
    for number, spans in ((0, Spans.of(profile.executors)), (2, Spans.of(profile.executions))):
        none = np.full(len(spans), _NO_OP)
        thread = threads.renumbered(spans.threads, spans.thread)
        parts.append((thread, spans.start_ns, spans.end_ns, none, np.full(len(spans), number)))
    *columns, rank = map(np.concatenate, zip(*parts, strict=True))
    found = _Nesting(*columns)
    near = np.flatnonzero(touching(found.start_ns, found.end_ns, within))
    found, rank = found.where(near), rank[near]
    return found.where(np.lexsort((rank, -found.end_ns, found.start_ns, found.thread)))


def _begins_in_an_op(nesting: _Nesting) -> Mask:
    """Tell what begins while an op goes on: an executor takes time from the op that it runs in, and from no other."""
    until_ns = np.where(nesting.key != _NO_OP, nesting.end_ns, np.iinfo(np.int64).min)
    for first, last in pairwise(nesting.borders().tolist()):
        until_ns[first:last] = np.maximum.accumulate(until_ns[first:last])
    return nesting.start_ns < until_ns


def _by_thread(profile: Profile, ops: OpEvents) -> list[int]:
    """Return the codes of the ops as they come on the first thread, then on the second, and so on.

    Of an op that ran as several types the first one stays known.
    """
    executors = Spans.of(profile.executors)
    threads = Codes[int]()
    for events in (executors, ops):
        for thread in in_order(events.thread):
            threads(events.threads[thread])
    lasting = np.flatnonzero(ops.end_ns > ops.start_ns)
    rank = threads.renumbered(ops.threads, ops.thread)[lasting]
    first = in_order(ops.code[lasting[np.argsort(rank, kind="stable")]])
    return [*first, *sorted(set(in_order(ops.code)) - set(first))]


def _innermost(nesting: _Nesting) -> Iterator[tuple[int, int, int]]:
    """Yield when each op itself ran, and its key."""
    for first, last in pairwise(nesting.borders().tolist()):
        rows = (column[first:last].tolist() for column in (nesting.start_ns, nesting.end_ns, nesting.key))
        yield from _on_thread(zip(*rows, strict=True))


def _on_thread(rows: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Walk one thread's nested intervals; each instant belongs to the last one that was opened and not yet closed."""
    opened: list[tuple[int, int]] = []
    since_ns = 0
    for start_ns, end_ns, key in rows:
        while opened and opened[-1][0] <= start_ns:
            until_ns, own = opened.pop()
            if own != _NO_OP and until_ns > since_ns:
                yield since_ns, until_ns, own
            since_ns = max(since_ns, until_ns)
        if opened and opened[-1][1] != _NO_OP and start_ns > since_ns:
            yield since_ns, start_ns, opened[-1][1]
        opened.append((end_ns, key))
        since_ns = start_ns
    while opened:
        until_ns, own = opened.pop()
        if own != _NO_OP and until_ns > since_ns:
            yield since_ns, until_ns, own
        since_ns = max(since_ns, until_ns)
