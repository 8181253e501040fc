"""The events of every step, as columns: what they add up to for each op, whichever of a million they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.facts.clock.division import is_real_wait
from graphlens.facts.flat.names import Names, kernel_name, kernels_as_ops
from graphlens.ir.columns import Codes, DeviceEvents, Ints, OpEvents, first_of, in_order, looked_up, numbered, sums
from graphlens.ir.run import NO_RUN, Profile, Span


class Seen(NamedTuple):
    """An op's events: the median, over the steps in which it was seen, of their time, and its executions in all."""

    median_ns: int
    calls: int


PerOp = Mapping[str, Seen]


@dataclass(frozen=True, slots=True, eq=False)
class StepEvents:
    """The op events and the kernels of ``count`` steps, those of the first step first, and what ops waited for.

    ``op_step`` and ``kernel_step`` are the numbers of their steps.
    """

    count: int
    ops: OpEvents
    op_step: Ints
    kernels: DeviceEvents
    kernel_step: Ints
    waits: Sequence[Span]

    @staticmethod
    def of(profile: Profile, ops: OpEvents, windows: Sequence[Span], names: Names) -> StepEvents:
        """Return those of the steps ``windows``; ``ops`` are all of the profile, compiled instructions among them."""
        op_step = _steps_of(ops.run, ops.start_ns, windows)
        kernels = DeviceEvents.of(profile.kernels_on_device)
        kernel_step = _steps_of(kernels.run, kernels.start_ns, windows)
        by_op, by_kernel = _in_steps(op_step), _in_steps(kernel_step)
        waits = [wait for wait in profile.waits if is_real_wait(wait, names)]
        runs, starts_ns = [wait.run for wait in waits], [wait.start_ns for wait in waits]
        wait_step = _steps_of(np.array(runs, np.int64), np.array(starts_ns, np.int64), windows)
        return StepEvents(
            len(windows),
            ops.where(by_op),
            op_step[by_op],
            kernels.where(by_kernel),
            kernel_step[by_kernel],
            [wait for wait, step in zip(waits, wait_step.tolist(), strict=True) if step >= 0],
        )

    def nodes(self) -> list[Counter[str]]:
        """Return for each step how often every op of the host ran in it."""
        called = Codes[str]()
        node = _table([called(node) for node, _ in self.ops.kinds])[self.ops.code]
        pair = numbered(self.op_step, node)
        first, times = first_of(pair), np.bincount(pair).tolist()
        found: list[Counter[str]] = [Counter() for _ in range(self.count)]
        steps, nodes = self.op_step[first].tolist(), node[first].tolist()
        names = called.all
        for step, number, count in zip(steps, nodes, times, strict=True):
            found[step][names[number]] = count
        return found

    def on_host(self, names: Names) -> PerOp:
        """Return the time of every op by its events on the host, without what was nested in them."""
        key, keys = keyed(self.ops.code, lambda code: names.key(*self.ops.kinds[code]))
        return _per_op(self.op_step, key, self.ops.self_ns, ~self.ops.resumed, keys)

    def on_device(self, names: Names) -> PerOp:
        """Return the time of every op by its kernels."""
        key, keys = self._kernel_keys(names)
        lengths_ns = self.kernels.end_ns - self.kernels.start_ns
        return _per_op(self.kernel_step, key, lengths_ns, np.ones(len(key), bool), keys)

    def devices(self, names: Names) -> Mapping[str, set[int]]:
        """Return the numbers of the devices that ran the kernels of each op."""
        key, keys = self._kernel_keys(names)
        first = first_of(numbered(key, self.kernels.device))
        found: dict[str, set[int]] = defaultdict(set)
        for number, device in zip(key[first].tolist(), self.kernels.device[first].tolist(), strict=True):
            found[keys[number]].add(device)
        return found

    def _kernel_keys(self, names: Names) -> tuple[Ints, Sequence[str]]:
        kinds = self.kernels.kinds
        return keyed(self.kernels.code, lambda code: names.key(*kernel_name(kinds[code])))

    def measured_ns(self) -> Counter[tuple[str, str]]:
        """Return the time of events by what they call themselves: name and type."""
        found: Counter[tuple[str, str]] = Counter()
        for code, ns in _totals(self.ops.code, self.ops.self_ns):
            found[self.ops.kinds[code]] += ns
        for code, ns in _totals(self.kernels.code, self.kernels.end_ns - self.kernels.start_ns):
            found[kernel_name(self.kernels.kinds[code])] += ns
        return found

    def first_steps_ns(self, steps: int, names: Names) -> Mapping[str, int]:
        """Return for each op what its events in the first ``steps`` steps take together, on the host and on devices."""
        found: Counter[str] = Counter()
        host, device = self.op_step < steps, self.kernel_step < steps
        key, keys = keyed(self.ops.code, lambda code: names.key(*self.ops.kinds[code]))
        for number, ns in _totals(key[host], self.ops.self_ns[host]):
            found[keys[number]] += ns
        key, keys = self._kernel_keys(names)
        for number, ns in _totals(key[device], (self.kernels.end_ns - self.kernels.start_ns)[device]):
            found[keys[number]] += ns
        return found

    @property
    def threads(self) -> int:
        """How many threads and streams ran them."""
        kernels = self.kernels
        first = first_of(numbered(kernels.device, kernels.code))
        places = zip(kernels.device[first].tolist(), kernels.code[first].tolist(), strict=True)
        return len(np.unique(self.ops.thread)) + len({(device, kernels.kinds[code].stream) for device, code in places})


def all_ops(profile: Profile, names: Names) -> OpEvents:
    """Return the ops of the host, and after them the instructions that XLA ran there, as ops of their own."""
    ops = OpEvents.of(profile.ops)
    return OpEvents.joined([ops, OpEvents.of(kernels_as_ops(profile, names))]) if profile.kernels else ops


def keyed(codes: Ints, key: Callable[[int], str]) -> tuple[Ints, Sequence[str]]:
    """Return for each event the number of its key, and the keys: ``key`` is asked once for each of ``codes``.

    What comes last is asked last, as if each event was: of an op that ran as several types the last one stays known.
    """
    keys = Codes[str]()
    table = np.zeros(codes.max(initial=-1) + 1, np.int64)
    for code in reversed(in_order(codes[::-1])):
        table[code] = keys(key(code))
    return table[codes], keys.all


def _table(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, np.int64)


def _in_steps(step: Ints) -> Ints:
    """Return the positions of the events that are in a step, by step."""
    order = np.argsort(step, kind="stable")
    return order[np.searchsorted(step[order], 0) :]


def _steps_of(run: Ints, start_ns: Ints, windows: Sequence[Span]) -> Ints:
    """Return the window of each event, -1 for none: of its run where it is one, since runs of several threads overlap.

    Windows and events are laid out one run after the other, so that one search finds all.
    """
    if not windows:
        return np.full(len(run), -1)
    blocks = Codes[int]()
    own = _table([blocks(window.run) for window in windows])
    starts_ns, ends_ns = _table([window.start_ns for window in windows]), _table([window.end_ns for window in windows])
    without_one = looked_up(np.array([NO_RUN]), blocks.numbers)
    block = looked_up(run, blocks.numbers)
    block = np.where(block < 0, without_one, block)
    order = np.lexsort((starts_ns, own))
    moments = np.unique(starts_ns)
    laid_out = own * (len(moments) + 1) + np.searchsorted(moments, starts_ns, side="right")
    place = block * (len(moments) + 1) + np.searchsorted(moments, start_ns, side="right")
    last = np.searchsorted(laid_out[order], place, side="right") - 1
    window = order[np.maximum(last, 0)]
    is_in = (last >= 0) & (block >= 0) & (own[window] == block) & (start_ns < ends_ns[window])
    return np.where(is_in, window, -1)


def _per_op(step: Ints, key: Ints, self_ns: Ints, begins: NDArray[np.bool_], keys: Sequence[str]) -> PerOp:
    """Return the time and the executions of every op, by its events: step, op, self time, whether one begins."""
    pair = numbered(step, key)
    first = first_of(pair)
    own, total_ns = key[first], sums(pair, self_ns, len(first))
    # The steps of one op next to each other, by their time: the median is in the middle.
    order = np.lexsort((total_ns, own))
    borders = np.searchsorted(own[order], np.arange(len(keys) + 1))
    lower, upper = (borders[:-1] + borders[1:] - 1) // 2, (borders[:-1] + borders[1:]) // 2
    by_time = total_ns[order]
    medians_ns = np.rint((by_time[lower] + by_time[upper]) / 2).astype(np.int64).tolist() if len(first) else []
    calls = sums(key, begins.astype(np.int64), len(keys)).tolist()
    return {keys[number]: Seen(medians_ns[number], calls[number]) for number in in_order(own[np.argsort(first)])}


def _totals(code: Ints, ns: Ints) -> Iterator[tuple[int, int]]:
    """Yield what the events of each code take, in the order in which the codes first come."""
    total_ns = sums(code, ns, int(code.max(initial=-1)) + 1).tolist()
    yield from ((present, total_ns[present]) for present in in_order(code))
