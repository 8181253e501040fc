"""Divide every instant of the steps among what was running in it: kernels, copies, ops, waits, or a known state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from graphlens.facts.names import Names, kernel_name, kernels_as_ops
from graphlens.ir.instructions import is_wait
from graphlens.ir.ops import ASYNCHRONOUS, COMPOSITE
from graphlens.ir.run import OpEvent, Profile, Span

# The states of an instant in which no op runs.  No op can be called that: names never begin with a zero byte.  A
# function runs during a hand-off, but neither an op nor the executor on any thread: its cause is not known.
COPY: Final = "\0copy"
EXECUTOR: Final = "\0executor"
HANDOFF: Final = "\0hand-off"
DISPATCH: Final = "\0dispatch"
STATES: Final = frozenset({COPY, EXECUTOR, HANDOFF, DISPATCH})


class Interval(NamedTuple):
    """A stretch of time in which ``key`` was active."""

    start_ns: int
    end_ns: int
    key: str


class Division(NamedTuple):
    """Wall time by what was running, over ``steps`` steps of ``wall_ns`` in all."""

    active_ns: Mapping[str, float]
    wall_ns: int
    steps: int

    def share(self, name: str) -> float | None:
        """Return the share of the wall time during which ``name`` ran."""
        return self.active_ns.get(name, 0.0) / self.wall_ns if self.wall_ns else None


def divide(profile: Profile, windows: Sequence[Span], names: Names) -> Division:
    """Give every instant of every window to what was running in it, else to the most specific known state.

    An accelerator's kernels come first: what else happens while one runs costs no time.  Then the instructions that
    only wait for a copy, and the copies between memories, during which the device waits; then the host.
    """
    waiting, kernels = _kernels(profile, names)
    copies = [Interval(copy.start_ns, copy.end_ns, COPY) for copy in profile.copies]
    ops = [Interval(start, end, names.key(e.node, e.op)) for e, start, end in _own_pieces(profile, names)]
    waits = [
        Interval(span.start_ns, span.end_ns, names.key(*wait_name(span, names)))
        for span in profile.waits
        if is_real_wait(span, names)
    ]
    executors = [Interval(s.start_ns, s.end_ns, EXECUTOR) for s in (*profile.executors, *profile.executions)]
    functions = [Interval(s.start_ns, s.end_ns, HANDOFF) for s in profile.functions]
    # What lies between a marker that the program set and the function it runs is the program's; between steps that were
    # found on a device, or not at all, it may be anything.
    outside = DISPATCH if profile.steps else HANDOFF
    active_ns = _sweep(windows, (kernels, waiting, copies, ops, waits, executors, functions), outside)
    return Division(active_ns, _covered_ns(windows), len(windows))


def _covered_ns(windows: Sequence[Span]) -> int:
    """Return the time in at least one window: those of several threads overlap."""
    total_ns, until_ns = 0, min((window.start_ns for window in windows), default=0)
    for window in sorted(windows, key=lambda window: window.start_ns):
        total_ns += max(0, window.end_ns - max(window.start_ns, until_ns))
        until_ns = max(until_ns, window.end_ns)
    return total_ns


def _kernels(profile: Profile, names: Names) -> tuple[list[Interval], list[Interval]]:
    """Return the kernels that only wait for a copy, and those that compute."""
    found: tuple[list[Interval], list[Interval]] = [], []
    for kernel in profile.kernels_on_device:
        interval = Interval(kernel.start_ns, kernel.end_ns, names.key(*kernel_name(kernel)))
        found[not is_wait(kernel.category)].append(interval)
    return found


def _own_pieces(profile: Profile, names: Names) -> Iterator[tuple[OpEvent, int, int]]:
    """Yield the stretches in which an op itself ran, without what ran nested in it on the same thread.

    A ``_Send`` runs its receiver, and whatever that makes ready, before it returns.
    """
    threads: dict[int, list[OpEvent | Span]] = defaultdict(list)
    # An executor that lasts exactly as long as its only op contains it, so it has to come first.
    running: list[OpEvent | Span] = [*profile.executors, *profile.ops, *profile.executions]
    running += kernels_as_ops(profile, names)
    for item in running:
        threads[item.thread].append(item)
    for items in threads.values():
        yield from _innermost(sorted(items, key=lambda item: (item.start_ns, -item.end_ns)))


def _innermost(items: Sequence[OpEvent | Span]) -> Iterator[tuple[OpEvent, int, int]]:
    """Walk one thread's nested intervals; each instant belongs to the last one that was opened and not yet closed."""
    stack: list[OpEvent | Span] = []
    since_ns = 0
    for item in [*items, None]:
        start_ns = item.start_ns if item else None
        while stack and (start_ns is None or stack[-1].end_ns <= start_ns):
            top = stack.pop()
            if isinstance(top, OpEvent) and top.end_ns > since_ns:
                yield top, since_ns, top.end_ns
            since_ns = max(since_ns, top.end_ns)
        if item is None:
            return
        if stack and isinstance(stack[-1], OpEvent) and item.start_ns > since_ns:
            yield stack[-1], since_ns, item.start_ns
        stack.append(item)
        since_ns = item.start_ns


def wait_name(span: Span, names: Names) -> tuple[str, str]:
    """Return the op that a wait is of, and its type."""
    name, _, op = span.name.rpartition(":") if ":" in span.name else (span.name, "", "")
    return name, op or names.types.get(names.find(name) or "", "wait")


def is_real_wait(span: Span, names: Names) -> bool:
    """Tell whether an op itself waits: a call waits for what it calls."""
    name, op = wait_name(span, names)
    op = names.types.get(names.find(name) or "", op)
    return op in ASYNCHRONOUS and op not in COMPOSITE


def _sweep(windows: Sequence[Span], layers: Sequence[Sequence[Interval]], outside: str) -> dict[str, float]:
    """Divide the windows among the intervals.

    ``layers`` are ordered by precedence: an instant belongs to the first layer that has an active interval; the
    layer's active keys share it equally.  What no layer covers is ``outside``.
    """
    boundaries = _boundaries(windows, layers)
    active: list[Counter[str]] = [Counter() for _ in layers]
    shares: dict[str, float] = defaultdict(float)
    inside, last_ns = 0, 0
    for time_ns, layer, change, key in boundaries:
        if inside and time_ns > last_ns:
            _share(shares, active, time_ns - last_ns, outside)
        last_ns = time_ns
        if layer < 0:
            inside += change
        elif change > 0:
            active[layer][key] += 1
        else:
            _remove(active[layer], key)
    return shares


def _boundaries(windows: Sequence[Span], layers: Sequence[Sequence[Interval]]) -> list[tuple[int, int, int, str]]:
    boundaries = [
        (time_ns, layer, change, item.key)
        for layer, intervals in enumerate(layers)
        for item in intervals
        if item.end_ns > item.start_ns
        for time_ns, change in ((item.start_ns, 1), (item.end_ns, -1))
    ]
    for window in windows:
        boundaries += [(window.start_ns, -1, 1, ""), (window.end_ns, -1, -1, "")]
    boundaries.sort()
    return boundaries


def _share(shares: dict[str, float], active: Sequence[Counter[str]], ns: int, outside: str) -> None:
    for counter in active:
        if counter:
            for key in counter:
                shares[key] += ns / len(counter)
            return
    shares[outside] += ns


def _remove(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
