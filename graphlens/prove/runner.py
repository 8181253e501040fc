"""Who applies edits and takes times: a child process that is started anew when a fix has killed it.

Edits that are settings take effect when a process starts: a variant with such a one lives in a second child.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from graphlens.children.messages import (
    Apply,
    Block,
    Calls,
    Compare,
    Comparison,
    Compiled,
    Drop,
    Failure,
    Keep,
    Load,
    Observe,
    Open,
    OpenedTarget,
    Pair,
    Pairs,
    RecordRequest,
    Refusal,
    TimeBlock,
    TimePairs,
    Write,
    Written,
)
from graphlens.children.start import Child, ChildGone, start
from graphlens.errors import RewriteError
from graphlens.ir.edits import Edit
from graphlens.ir.settings import ONEDNN, Settings, graph_edits, settings_of

CHILD_MODULE: Final = "graphlens.tf.trial.child"
ORIGINAL: Final = "original"
INTRA_OP: Final = "intra_op"  # the pool whose threads share the work of one op
ANSWERS: Final = (OpenedTarget, Calls, Comparison, Pairs, Block, Written, Refusal)

Edits = Sequence[Edit]  # of one fix: applied together or not at all


class TrialError(Exception):
    """A trial came to nothing; the message says why, as the rest of a sentence."""


class RefusedError(TrialError):
    """The edits cannot be applied to this program; ``edit`` is the number of the group to blame, if one is."""

    def __init__(self, why: str, edit: int | None = None) -> None:
        super().__init__(why)
        self.edit = edit


class FailedError(TrialError):
    """TensorFlow failed on the changed program."""


class GoneError(TrialError):
    """The child ended or took too long; the next request starts another one."""


class NotOpenedError(TrialError):
    """The target itself cannot be opened or run, with no fix at fault."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The target is open.

    Attributes
    ----------
    accelerated
        Whether it runs on more than CPUs, so that CPU time tells nothing.
    start_s
        Where every variant is a process of its own, and A against A is measured between two: how long it takes one to
        get to the first step that is timed.
    overlaps
        Whether what is gained is that work is done at the same time, which takes no less of the CPU.
    """

    accelerated: bool = False
    start_s: float | None = None
    overlaps: bool = False

    @property
    def apart(self) -> bool:
        """Whether every variant is a process of its own."""
        return self.start_s is not None


@dataclass(frozen=True, slots=True)
class Applied:
    """A changed program is ready; the first call includes compiling it, the second shows what a call takes.

    ``where`` says in words what its process is set to, where that is not the process of the original.
    ``longer_ns`` is by how much its first call takes longer than that of the original, where both are known.
    """

    first_call_ns: int
    second_call_ns: int
    compiled: Compiled | None = None
    where: str = ""
    longer_ns: int | None = None

    @property
    def compile_ns(self) -> int | None:
        """What the first call took longer than the second, where XLA compiled the program in it."""
        return max(0, self.first_call_ns - self.second_call_ns) if self.compiled is not None else None


class Timer(Protocol):
    """Times two variants of one target in turns; it may raise ``TrialError``."""

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Time pairs of blocks in the order A B, B A, A B, …; fewer where the time is up."""


class Runner(Protocol):
    """Applies edits to copies of one target, and compares and times them.  Every method may raise ``TrialError``."""

    def open(self, time_limit_s: float) -> Opening:
        """Open the target."""

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        """Make ``variant`` from the original by one fix after another, and call it twice.

        If any edit is a setting, it is made in a process of its own, of which there is one at a time.
        """

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        """Compare the outputs of ``variant`` with the original's; ``computes_in`` is the type the edits change to."""

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        """Compare the original with itself, with other threads and variables off by a bit; say so in words."""

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Time pairs of blocks in the order A B, B A, A B, …; fewer where the time is up."""

    def drop(self, variant: str) -> None:
        """Forget a variant."""

    def close(self) -> None:
        """End everything; harmless when nothing runs."""


class TrialRunner:
    """The runner that measures: ``graphlens.tf.trial.child`` in a child process.

    Parameters
    ----------
    request
        What the recording child was asked for.
    directory
        An empty folder for the children's logs.
    env
        Additional environment variables of the child.
    rtol
        What the user allows outputs to be off by; ``None``: by their types.
    """

    def __init__(
        self,
        request: RecordRequest,
        directory: Path,
        env: Mapping[str, str] | None = None,
        rtol: float | None = None,
    ) -> None:
        self._request = request
        self._rtol = rtol
        self._directory = directory
        self._env = dict(env or {})
        self._child: Child | None = None
        self._second: Child | None = None
        self._in_second: str | None = None  # the variant that lives there
        self._accelerated = False
        self._threads: Mapping[str, int] = {}
        self._started = 0

    def start(self) -> None:
        """Start a child, which imports TensorFlow meanwhile; optional, and early is good."""
        if self._child is None:
            self._child = self._launched({})

    def _launched(self, environment: Mapping[str, str]) -> Child:
        self._started += 1
        folder = self._directory / f"trial-{self._started}"
        return start(folder, CHILD_MODULE, {**self._env, **environment}, answers=ANSWERS, dumps_xla=True)

    def open(self, time_limit_s: float) -> Opening:
        """Let the child open the target.

        Raises
        ------
        NotOpenedError
            If it cannot.
        """
        self.start()
        try:
            answer = self._ask(Open(self._request), time_limit_s)
        except TrialError as error:
            self.close()
            raise NotOpenedError(str(error)) from error
        self._accelerated, self._threads = bool(answer.accelerated), answer.threads
        return Opening(self._accelerated)

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        """Make ``variant``, in a new child if the last one is gone."""
        if self._child is None:
            self.open(time_limit_s)
        settings = _settings(fixes)
        where = "" if settings is None else self._open_second(variant, settings, time_limit_s)
        edits = tuple(graph_edits(edits) for edits in fixes)
        calls = self._ask(Apply(variant, edits), time_limit_s, of=variant)
        return Applied(calls.first_ns, calls.second_ns, calls.compiled, where)

    def _open_second(self, variant: str, settings: Settings, time_limit_s: float) -> str:
        """Open the target once more, in a child that starts with ``settings``; return in words what came of them."""
        if self._accelerated:
            raise NotOpenedError("a second process would find the accelerator's memory taken by the first")
        self._end_second()
        self._second, self._in_second = self._launched(settings.environment), variant
        opened = self._ask(Open(self._request, settings.threads), time_limit_s, of=variant)
        check_effect(settings, opened)
        return ", ".join((*settings.lines(), _found(opened)))

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        """Compare on the target's own inputs and on random ones."""
        outputs = self._outputs(variant, time_limit_s) if variant == self._in_second else None
        compared: Comparison = self._ask(Compare(variant, computes_in, outputs, self._rtol), time_limit_s)
        return compared

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        """Run the original in a third child, with one thread for each op and variables that are off by a bit."""
        if self._accelerated:
            raise NotOpenedError("a second process would find the accelerator's memory taken by the first")
        values, outputs = (str(self._directory / f"{what}-{self._started}.npz") for what in ("values", "unchanged"))
        self._ask(Keep(values), time_limit_s)
        threads = 1 if _all_threads(self._threads) > 1 else 2
        other = self._launched({})
        try:
            opened = _answer(other, Open(self._request, {INTRA_OP: threads}), time_limit_s)
            check_effect(Settings(threads={INTRA_OP: threads}), opened)
            _answer(other, Observe(ORIGINAL, outputs, values), time_limit_s)
        except ChildGone as error:
            raise GoneError(str(error)) from error
        finally:
            other.cancel()
        compared: Comparison = self._ask(Compare(ORIGINAL, None, outputs), time_limit_s)
        return compared, f"{threads} thread{'s' if threads > 1 else ''} for an op and variables off by their last bit"

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Time pairs of blocks; of two processes, one is idle while the other one is timed."""
        if after == self._in_second:
            end_s = time.monotonic() + time_limit_s
            block_ms = max(block_ms, _BLOCK_ACROSS_MS)
            return [self._pair_across(before, after, number % 2 == 1, block_ms, end_s) for number in range(pairs)]
        return list(self._ask(TimePairs(before, after, pairs, block_ms), time_limit_s).pairs)

    def _outputs(self, variant: str, time_limit_s: float) -> str:
        """Have a variant of the second child write its outputs; return the file."""
        file = str(self._directory / f"outputs-{self._started}.npz")
        self._ask(Observe(variant, file), time_limit_s, of=variant)
        return file

    def _pair_across(self, before: str, after: str, swapped: bool, block_ms: float, end_s: float) -> Pair:
        names = (after, before) if swapped else (before, after)
        found = {name: self._ask(TimeBlock(name, block_ms), end_s - time.monotonic(), of=name) for name in names}
        first, second = found[before], found[after]
        return Pair(first.wall_ns, second.wall_ns, first.cpu_ns, second.cpu_ns)

    def drop(self, variant: str) -> None:
        """Forget a variant; a child that is gone has forgotten it already."""
        if variant == self._in_second:
            self._end_second()
        elif self._child is not None:
            self._ask(Drop(variant), _DROP_LIMIT_S)

    def write(self, edits: Mapping[str, Edits], directory: Path, time_limit_s: float) -> tuple[str, ...]:
        """Write the target as a SavedModel with ``edits`` by signature; return notes for its user."""
        self.start()
        by_signature = {name: tuple(group) for name, group in edits.items()}
        written: Written = self._ask(Write(self._request, by_signature, str(directory)), time_limit_s)
        return written.notes

    def load(self, variant: str, target: Path, time_limit_s: float) -> None:
        """Open the SavedModel at ``target`` as a variant of what is open."""
        request = replace(self._request, target=str(target), kind="saved_model", tag=None)
        self._ask(Load(variant, request), time_limit_s)

    def turn_to(self, signature: str, time_limit_s: float) -> None:
        """Open another signature of the target, on inputs of its own; all variants are forgotten."""
        self._request = replace(self._request, signature=signature, inputs=None, shapes={}, warm_up_request=None)
        self.open(time_limit_s)

    def close(self) -> None:
        """End the children."""
        self._end_second()
        if self._child is not None:
            self._child.cancel()
            self._child = None

    def _end_second(self) -> None:
        if self._second is not None:
            self._second.cancel()
            self._second = self._in_second = None

    def _ask(self, request: Any, time_limit_s: float, of: str = ORIGINAL) -> Any:
        """Ask the child in which the variant ``of`` lives."""
        second = of == self._in_second
        child = self._second if second else self._child
        if child is None:
            raise GoneError("its process is gone")
        try:
            answer = child.ask(request, time_limit_s)
        except ChildGone as error:
            if second:
                self._end_second()
            else:
                self.close()
            raise GoneError(str(error)) from error
        return told(answer)


def _answer(child: Child, request: Any, time_limit_s: float) -> Any:
    return told(child.ask(request, time_limit_s))


def told(answer: Any) -> Any:
    """Return an answer that is none of the two bad ones."""
    if isinstance(answer, Refusal):
        raise RefusedError(answer.why, answer.edit)
    if isinstance(answer, Failure):
        raise FailedError(answer.why)
    return answer


def _all_threads(threads: Mapping[str, int]) -> int:
    """Return how many threads an op may use; 0 stands for as many as there are cores."""
    return threads.get(INTRA_OP, 0) or os.cpu_count() or 1


def _settings(fixes: Sequence[Edits]) -> Settings | None:
    try:
        return settings_of(edit for edits in fixes for edit in edits)
    except RewriteError as error:
        raise RefusedError(str(error)) from error


def check_effect(settings: Settings, opened: OpenedTarget) -> None:
    """Raise if the process does not run as it was told to: the user's own program may set the same."""
    wanted = settings.environment.get(ONEDNN)
    if wanted is not None and opened.onednn not in (None, wanted == "1"):
        raise FailedError(f"{ONEDNN}={wanted} has no effect on this build of TensorFlow")
    if any(opened.threads[pool] != size for pool, size in settings.threads.items()):
        raise FailedError(f"the program sets its threads itself: {dict(opened.threads)}")


def _found(opened: OpenedTarget) -> str:
    return f"oneDNN {'on' if opened.onednn else 'off'}, threads {dict(opened.threads)}"


_DROP_LIMIT_S: Final = 10.0
# Shorter blocks drown in what it takes to wake the other process, whose caches are cold.
_BLOCK_ACROSS_MS: Final = 60.0
