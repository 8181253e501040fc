"""When to record a program: once the calls of what takes its time are steady, and for a number of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

STEADY_CALLS: Final = 3  # calls in a row that traced nothing: caches, buffers and allocators are warm then
# A call that lasts this long is a whole epoch or a large step: waiting for three of them may be waiting for the end.
LONG_CALL_NS: Final = 1_000_000_000
# A first call that is a loop holds what TensorFlow prepares as well.  If it lasts so long, its graphs are written at
# once: a script that is killed may have done nothing else.  With a shorter one, a window of steady calls is at hand.
LONG_LOOP_NS: Final = 5_000_000_000
LONGEST_WINDOW_NS: Final = 30_000_000_000  # of slow steps fewer are recorded; a profile of minutes is of no use
# What is traced in every step, or in every second one, is never steady: after so many calls it is recorded as it is.
PATIENCE_CALLS: Final = 10
# A program is recorded in place of another one once it took this many times as long: what a script does first may be
# the preparation of its data, and each new recording costs a moment.
OUTWEIGHS: Final = 2
# A program that is not called again leaves its recording open, for as long as the others run.  It is over with so many
# times as many calls of others, and none of it, as a recording has, or as were ever made between two calls of it.
CALLS_OF_OTHERS: Final = 2
# Of a recording.  With fewer calls in it when it was over it is made again if the program is called again after all: a
# validation may take more calls than an epoch does, and it is known then how many.
ENOUGH: Final = 0.5
# Who takes the profiler away again and again will do so for ever; each recording costs a moment.
MOST_CUTS: Final = 3


@dataclass(eq=False)
class _Called:
    """How one program was called so far."""

    calls: int = 0
    steady_calls: int = 0
    untraced_ns: int = 0
    ns: int = 0
    last_ns: int = 0
    was_steady: bool = False
    is_recorded: bool = False
    is_left: bool = False  # too few of its calls were recorded before it seemed to be called no more
    left_calls: int = 0  # that were recorded then
    most_others: int = 0  # calls between two of its own
    last_number: int = 0

    @property
    def weight_ns(self) -> int:
        """How much of the program's time is its own: without traces, unless there is hardly a call without one."""
        return self.untraced_ns if self.was_steady else self.ns


class Window:
    """Is told of every call, and says when recording is to begin and when it is enough.

    Parameters
    ----------
    steps
        How many calls of the program that caused it a recording is to hold.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._called: dict[Hashable, _Called] = {}
        self._program: Hashable | None = None
        self._recorded_calls = 0
        self._calls_of_others = 0  # since its own last one
        self._calls = 0  # of all programs
        self._thread = 0
        self._recorded_ns = 0
        self._have_been: list[_Called] = []
        self._cuts = 0
        self._looked: set[Hashable] = set()

    @property
    def is_open(self) -> bool:
        """Whether calls are being recorded."""
        return self._program is not None

    @property
    def has_recorded_steady_calls(self) -> bool:
        """Whether a recording of calls that were steady has ended."""
        return not self.is_open and bool(self._have_been)

    @property
    def has_recorded_enough(self) -> bool:
        """Whether one of them is not to be made again."""
        return not self.is_open and any(not one.is_left for one in self._have_been)

    @property
    def holds_less(self) -> bool:
        """Whether what is recorded is fewer calls than were in the recording that it is made in place of."""
        one = self._called.get(self._program)
        return self.is_open and one is not None and self._recorded_calls < one.left_calls

    def opens_before(self, program: Hashable) -> bool:
        """Tell whether recording is to begin with the call of ``program`` that is about to be made."""
        if self.is_open:
            return False
        one = self._called.setdefault(program, _Called())
        is_done = one.is_recorded and not one.is_left
        if is_done or not _is_steady(one) or one.weight_ns < self._least_weight_ns(one):
            return False
        if not one.is_recorded:
            self._have_been.append(one)
        one.is_recorded, one.is_left = True, False
        self._open(program, 0)
        return True

    def opens_within(self, program: Hashable, is_loop: Callable[[], bool]) -> bool:
        """Tell whether recording is to begin in the midst of a call of ``program`` that may be all there is of it.

        That is a loop over all the data, called for the first time.  The recording ends with that call, and is none of
        steady calls.  ``is_loop`` looks through a graph, which takes longer than a step: it is asked once.
        """
        if self.is_open or program in self._looked or self._have_been:
            return False
        self._looked.add(program)
        if not is_loop():
            return False
        self._open(program, self._steps - 1)
        return True

    def _open(self, program: Hashable, recorded_calls: int) -> None:
        self._program, self._recorded_calls, self._recorded_ns = program, recorded_calls, 0
        self._calls_of_others, self._thread = 0, threading.get_ident()

    def closes_after(self, program: Hashable, ns: int, *, traced: bool) -> bool:
        """Count a call of ``program`` that took ``ns``; tell whether recording is to end with it."""
        one = self._called.setdefault(program, _Called())
        self._count(one)
        one.last_ns = ns
        one.steady_calls = 0 if traced else one.steady_calls + 1
        one.ns += ns
        one.untraced_ns += 0 if traced else ns
        one.was_steady = one.was_steady or _has_settled(one)
        if not self.is_open:
            return False
        self._recorded_calls += program == self._program
        if program == self._program:
            self._calls_of_others = 0
        elif threading.get_ident() == self._thread:  # other threads may call theirs while this one is in its own call
            self._calls_of_others += 1
        self._recorded_ns += ns
        return self._is_over() or self._recorded_calls >= self._steps or self._recorded_ns >= LONGEST_WINDOW_NS

    def _count(self, one: _Called) -> None:
        self._calls += 1
        one.calls += 1
        if one.calls > 1:
            one.most_others = max(one.most_others, self._calls - one.last_number - 1)
        one.last_number = self._calls

    def _is_over(self) -> bool:
        """Tell whether the recorded program seems to be called no more."""
        one = self._called.get(self._program)
        return self._calls_of_others >= CALLS_OF_OTHERS * max(self._steps, one.most_others if one else 0)

    def close(self, *, is_cut: bool = False) -> None:
        """Note that the recording has ended; another program may be recorded once it outweighs all so far.

        Parameters
        ----------
        is_cut
            Whether it had to end early: then it is made again.
        """
        one = self._called.get(self._program)
        if one in self._have_been and self._is_over() and self._recorded_calls < ENOUGH * self._steps:
            one.is_left, one.left_calls = True, self._recorded_calls
        self._program = None
        if is_cut and one in self._have_been and self._cuts < MOST_CUTS:
            self._cuts += 1
            self._have_been.remove(one)
            one.is_recorded = False

    def _least_weight_ns(self, program: _Called) -> int:
        """Return what a program must have taken to be recorded in place of the others that were.

        That is by all that these took, also after they were recorded: what evaluates a model between the epochs of a
        long training outweighs any number of its steps at last, and never the training.
        """
        return OUTWEIGHS * max((one.weight_ns for one in self._have_been if one is not program), default=0)


def _is_steady(one: _Called) -> bool:
    return _has_settled(one) or (not one.was_steady and one.calls >= PATIENCE_CALLS)


def _has_settled(one: _Called) -> bool:
    return one.steady_calls >= (1 if one.last_ns >= LONG_CALL_NS else STEADY_CALLS)
