"""Who times the steps of a script: the script itself, run again in processes that make steps when it is their turn.

Each variant is a process of its own, the original too.  All begin with the same values, and where they stand still
first they have made the same number of steps of the same data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from graphlens.children.gate_messages import (
    AtGate,
    CompareValues,
    KeepValues,
    Over,
    RunBlock,
    RunSteps,
    RunToGate,
    TakeElements,
    TakeValues,
    Watched,
)
from graphlens.children.messages import Block, Comparison, Difference, OpenedTarget, Pair
from graphlens.children.script_trial import ScriptTrial, start
from graphlens.children.start import ChildGone
from graphlens.ir.edits import EVERYWHERE, ChangeDtype, Edit, JitCompile, ScriptSetting, SessionSetting, is_of_input
from graphlens.ir.settings import Settings, settings_of
from graphlens.prove.experiment import GRACE_S
from graphlens.prove.floors import NOISE
from graphlens.prove.runner import (
    INTRA_OP,
    ORIGINAL,
    Applied,
    Edits,
    FailedError,
    GoneError,
    NotOpenedError,
    Opening,
    RefusedError,
    TrialError,
    check_effect,
    told,
)

# As many steps as the longest call that is tried makes: few, since what differs by rounding goes apart in training.
COMPARED_STEPS: Final = 8
DIFFERS: Final = "two runs of the script itself differ, from the same seeds and values"
ELSEWHERE: Final = "the changed script makes other steps at once, and stood still after {0} of them and not {1}"
OTHER_STEPS: Final = "its steps are of other batches, as it is meant"
SHORTEST_BLOCK_MS: Final = 4.0
# The first call of a block wakes its process and is not timed, so blocks are as short as those of a model: A against A
# beside ten busy processes gave ±4 % of wall time by 12 ms in the time in which it gave ±17 % by 60 ms.
BLOCK_MS: Final = 15.0
INPUT_BLOCK_MS: Final = 200.0  # several steps of most scripts that wait for their input
DRAIN_MS: Final = 500.0  # for what was made ahead while the script was compared
SLOWER: Final = 3.0  # than the whole script was: as much longer may it take to get to its gate on a busy machine
BLOCKS: Final = 64  # that the steps of one run are to suffice for
_ANSWER_S: Final = 60.0  # for what is done standing still
ELEMENTS_S: Final = 30.0  # beyond a block, for slow elements; a source that is used up may make one wait for good
# What Keras calls the functions that ``compile`` decides about.
KERAS: Final = frozenset({"multi_step_on_iterator", "one_step_on_iterator", "one_step_on_data", "multi_step_on_data"})
_KINDS: Final = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """A script that ran: how it was called, and what is known of its run.

    Attributes
    ----------
    words
        The script and its arguments, or ``-m`` and a module.
    watched
        The program to time.
    took_s
        How long it ran: no trial takes longer to get to its gate.
    calls
        How often it calls the program; ``None`` where nobody counted.
    does_again
        Whether it may do again what it does outside of its process before its steps.
    """

    words: tuple[str, ...]
    watched: Watched
    took_s: float
    calls: int | None = None
    does_again: bool = False


def edits_for(edits: Iterable[Edit], watched: Watched) -> tuple[Edit, ...] | None:
    """Return edits of a graph as what they are for its script, ``None`` where one of them is nothing of the kind."""
    found = [_for_script(edit, watched) for edit in edits]
    return None if None in found else tuple(edit for edit in found if edit is not None)


def _for_script(edit: Edit, watched: Watched) -> Edit | None:
    of_keras = watched.name in KERAS
    if isinstance(edit, (ScriptSetting, SessionSetting)) or is_of_input(edit):
        return edit
    if isinstance(edit, JitCompile) and edit.where is EVERYWHERE and watched.name:
        return ScriptSetting("jit_compile", function="" if of_keras else watched.name)
    if isinstance(edit, ChangeDtype) and of_keras and edit.to in _KINDS:
        return ScriptSetting("mixed_precision", _KINDS[edit.to])
    return None


@dataclass
class _Process:
    """A process with a variant, and where it stood still first."""

    trial: ScriptTrial
    gate: AtGate
    made_pairs: int = 0
    has_made_ahead: bool = True  # what its next steps would take no time to get
    over: str = ""  # why it is


class ScriptRunner:
    """The runner that measures the steps of a script (``prove.runner.Runner``).

    Parameters
    ----------
    script
        What ran.
    folder
        An empty folder for the trials' logs and values.
    rtol
        What the user allows variables to be off by; ``None``: by their types.
    of_input
        Whether the input is what is changed: its threads must not go on while it is another one's turn, and what is
        made ahead by then is used up before anything is timed.
    """

    def __init__(self, script: ScriptRun, folder: Path, rtol: float | None = None, *, of_input: bool = False) -> None:
        self._script, self._folder, self._rtol, self._of_input = script, folder, rtol, of_input
        self._processes: dict[str, _Process] = {}
        self._fixes: dict[str, Sequence[Edits]] = {}
        self._unchanged: dict[str, Difference] = {}  # of two runs of the script as it is
        self._differs = False
        self._started = 0
        self._first: AtGate | None = None
        self._start_s = 0.0  # how long the original takes to get to its gate

    # -- programs -----------------------------------------------------------------------------------------------

    def open(self, time_limit_s: float) -> Opening:
        """Run the script as it is, until it stands still; keep its values there, and some steps later."""
        begun_s = time.monotonic()
        try:
            process = self._began(ORIGINAL, (), 0, time_limit_s)
            self._first = self._first or process.gate
            self._start_s = time.monotonic() - begun_s
            self._ask(ORIGINAL, KeepValues(self._file("before")), _ANSWER_S)
            self._ask(ORIGINAL, RunSteps(self._compared_steps()), time_limit_s + self._script.took_s)
            self._ask(ORIGINAL, KeepValues(self._file("after")), _ANSWER_S)
        except TrialError as error:
            self.close()
            raise NotOpenedError(str(error)) from error
        return Opening(process.gate.accelerated, start_s=self._start_s, overlaps=self._of_input)

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        """Run the script changed by ``fixes``, from the values of the original on."""
        if ORIGINAL not in self._processes:
            self.open(time_limit_s)
        self._fixes[variant] = fixes
        assert self._first is not None
        process = self._began(variant, fixes, self._first.step, time_limit_s)
        self._ask(variant, TakeValues(self._file("before")), _ANSWER_S)
        settings = _settings(fixes)
        where = "" if settings is None else ", ".join(settings.lines())
        longer_ns = process.gate.first_ns - self._first.first_ns
        return Applied(process.gate.first_ns, process.gate.last_ns, where=where, longer_ns=longer_ns)

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        """Compare the variables of the program after some steps from the same values."""
        gate = self._processes[variant].gate
        assert self._first is not None
        if any(
            isinstance(edit, ScriptSetting) and edit.option == "served_input" for edit in _all(self._fixes[variant])
        ):
            return Comparison((), 0, uncompared=OTHER_STEPS)
        if gate.step != self._first.step:
            return Comparison((), 0, uncompared=ELSEWHERE.format(gate.step, self._first.step))
        if self._differs:
            return Comparison((), 0, uncompared=DIFFERS)
        found = self._compared(variant, computes_in, time_limit_s)
        if not any(self._fixes[variant]):
            self._unchanged = {one.output: one for one in found.differences}
            self._differs = _are_of_others(found)
            return Comparison((), 0, uncompared=DIFFERS) if self._differs else found
        return found

    def _compared(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        self._ask(variant, RunSteps(self._compared_steps()), time_limit_s + self._script.took_s)
        found: Comparison = self._ask(variant, CompareValues(self._file("after"), computes_in, self._rtol), _ANSWER_S)
        return found

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        """Run the script as it is, with other threads and from values that are off by their last bit."""
        assert self._first is not None
        threads = 1 if (self._first.threads.get(INTRA_OP, 0) or os.cpu_count() or 1) > 1 else 2
        self._began(_NUDGED, ((SessionSetting(threads={INTRA_OP: threads}),),), self._first.step, time_limit_s)
        self._ask(_NUDGED, TakeValues(self._file("before"), nudged=True), _ANSWER_S)
        found = self._compared(_NUDGED, None, time_limit_s)
        self.drop(_NUDGED)
        worst = tuple(_worse(one, self._unchanged.get(one.output)) for one in found.differences)
        words = f"{threads} thread{'s' if threads > 1 else ''} for an op and variables off by their last bit"
        return replace(found, differences=worst), words

    def drop(self, variant: str) -> None:
        """End the process of a variant."""
        process = self._processes.pop(variant, None)
        if process is not None:
            process.trial.end()

    def close(self) -> None:
        """End all of them."""
        for variant in list(self._processes):
            self.drop(variant)

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def times_calls(self) -> bool:
        """Whether a call is what is timed, whatever number of steps it makes: nobody else counts them."""
        return self._first is None or self._first.step == self._first.calls

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Let the two make steps in turns."""
        variants = (before, after)
        return self._in_turns(variants, pairs, time_limit_s, lambda one: self._block(one, block_ms), lambda _: variants)

    def time_input(
        self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float, *, edits: Edits
    ) -> list[Pair]:
        """Let the datasets of the two, which ``edits`` are a change of, give elements in turns; no step is made."""
        if not {before, after} <= self._processes.keys():
            raise GoneError("its process is gone")
        request = TakeElements(tuple(edits), block_ms)
        return self._in_turns(
            (before, after), pairs, time_limit_s, lambda one: self._taken(one, request), lambda over: (over,)
        )

    def _in_turns(
        self,
        variants: tuple[str, str],
        pairs: int,
        time_limit_s: float,
        timed_block: Callable[[str], Block],
        run_again: Callable[[str], Sequence[str]],
    ) -> list[Pair]:
        """Time blocks of the two in turns; where one of them is over, those are run again that ``run_again`` says.

        Steps are to be of the same data, so that is both of them; elements are anyway.
        """
        end_s = time.monotonic() + time_limit_s
        timed: list[Pair] = []
        while len(timed) < pairs and time.monotonic() < end_s:
            try:
                timed.append(self._pair(*variants, timed_block, swapped=len(timed) % 2 == 1))
            except _OverError as error:
                left_s = end_s - GRACE_S - time.monotonic()
                if left_s < 2 * self._start_s:  # both would just have started
                    break
                self._run_again(error, run_again(error.variant), left_s + GRACE_S)
        return timed

    def _pair(self, before: str, after: str, timed_block: Callable[[str], Block], *, swapped: bool) -> Pair:
        found = {}
        for variant in (after, before) if swapped else (before, after):
            found[variant] = timed_block(variant)
        for variant in found:
            self._processes[variant].made_pairs += 1
        first, second = found[before], found[after]
        return Pair(first.wall_ns, second.wall_ns, first.cpu_ns, second.cpu_ns)

    def _block(self, variant: str, block_ms: float) -> Block:
        fixes = _all(self._fixes.get(variant, ()))
        endless = any(isinstance(edit, ScriptSetting) and edit.value == "endless" for edit in fixes)
        request = RunBlock(block_ms if endless else self._shortened(block_ms))
        limit_s = _ANSWER_S + self._script.took_s
        if not self._of_input:
            return self._timed_block(variant, request, limit_s)
        with self._others_stand_still(variant):
            process = self._processes[variant]
            if process.has_made_ahead:
                self._timed_block(variant, RunBlock(DRAIN_MS), limit_s)
                process.has_made_ahead = False
            return self._timed_block(variant, request, limit_s)

    def _taken(self, variant: str, request: TakeElements) -> Block:
        with self._others_stand_still(variant):
            self._processes[variant].has_made_ahead = True
            return self._timed_block(variant, request, request.ms / 1e3 + ELEMENTS_S)

    @contextmanager
    def _others_stand_still(self, variant: str) -> Iterator[None]:
        with ExitStack() as others:
            for name, process in self._processes.items():
                if name != variant:
                    others.enter_context(process.trial.standing_still())
            yield

    def _timed_block(self, variant: str, request: RunBlock | TakeElements, limit_s: float) -> Block:
        block: Block = self._ask(variant, request, limit_s)
        return block

    def _shortened(self, block_ms: float) -> float:
        """Return the length of a block such that the script's steps suffice for some."""
        assert self._first is not None
        if self._script.calls is None or self._script.watched.called_again or self._first.endless:
            return block_ms
        whole_ms = max(0, self._script.calls - self._first.calls) * self._first.last_ns / 1e6
        return min(block_ms, max(SHORTEST_BLOCK_MS, whole_ms / BLOCKS))

    def _run_again(self, error: _OverError, variants: Sequence[str], time_limit_s: float) -> None:
        if self._processes[error.variant].made_pairs == 0:
            raise FailedError(f"too few steps could be timed: {error}") from error
        for variant in variants:
            at_step = 0 if variant == ORIGINAL or self._first is None else self._first.step
            self._began(variant, self._fixes.get(variant, ()), at_step, time_limit_s)

    # -- processes ----------------------------------------------------------------------------------------------

    def _began(self, variant: str, fixes: Sequence[Edits], at_step: int, time_limit_s: float) -> _Process:
        """Start a process and have it run until it stands still."""
        self.drop(variant)
        settings = _settings(fixes)
        edits = tuple(_translated(fixes, self._script.watched))
        self._started += 1
        environment = {} if settings is None else settings.environment
        trial = start(self._folder / f"trial-{self._started}", self._script.words, environment)
        threads = {} if settings is None else settings.threads
        limit_s = self._limit_s(time_limit_s)
        try:
            request = RunToGate(self._script.watched, edits, at_step, threads, self._script.does_again)
            gate = told(trial.ask(request, limit_s))
        except (ChildGone, TrialError) as error:
            trial.end()
            raise error if isinstance(error, TrialError) else GoneError(str(error)) from error
        if isinstance(gate, Over):
            trial.end()
            raise FailedError(f"{gate.why} before its steps were steady")
        unused = [option for option, count in gate.applied.items() if not count]
        if unused:
            trial.end()
            raise RefusedError(f"the script makes no call that '{unused[0]}' would change")
        process = self._processes[variant] = _Process(trial, gate)
        if settings is not None:
            check_effect(settings, OpenedTarget(gate.accelerated, gate.onednn, gate.threads))
        return process

    def _limit_s(self, time_limit_s: float) -> float:
        """Return how long a process may take to get to its gate: as long as the first one did, and what is left."""
        if not self._start_s:
            return time_limit_s + SLOWER * self._script.took_s
        return max(time_limit_s - GRACE_S, SLOWER * self._start_s)

    def _ask(self, variant: str, request: Any, time_limit_s: float) -> Any:
        process = self._processes[variant]
        if process.over:
            raise _OverError(process.over, variant)
        try:
            answer = told(process.trial.ask(request, time_limit_s))
        except ChildGone as error:
            self.drop(variant)
            raise GoneError(str(error)) from error
        if isinstance(answer, Over):
            process.over = answer.why
            raise _OverError(answer.why, variant)
        return answer

    def _compared_steps(self) -> int:
        return 1 if self._script.watched.called_again else COMPARED_STEPS

    def _file(self, name: str) -> str:
        return str(self._folder / f"{name}.npz")


class _OverError(TrialError):
    """The script of a variant is over."""

    def __init__(self, why: str, variant: str) -> None:
        super().__init__(why)
        self.variant = variant


_NUDGED: Final = "nudged"


def _settings(fixes: Sequence[Edits]) -> Settings | None:
    return settings_of(edit for edits in fixes for edit in edits)


def _translated(fixes: Sequence[Edits], watched: Watched) -> Iterable[Edit]:
    """Return what the process of the script is to change.

    Raises
    ------
    RefusedError
        If an edit changes a graph.
    """
    for number, edits in enumerate(fixes):
        of_script = edits_for(edits, watched)
        if of_script is None:
            raise RefusedError("it changes a graph, and the graphs of a script are its own", number)
        yield from (edit for edit in of_script if isinstance(edit, ScriptSetting) or is_of_input(edit))


def _all(fixes: Sequence[Edits]) -> Iterable[Edit]:
    return (edit for edits in fixes for edit in edits)


def _are_of_others(comparison: Comparison) -> bool:
    """Whether most numbers are others, and so are not those of the same steps rounded otherwise."""
    told_apart = [one for one in comparison.differences if one.tolerance]
    others = [one for one in told_apart if one.mismatch is not None or (one.max_rel or 0.0) > NOISE]
    return 2 * len(others) > len(told_apart)


def _worse(one: Difference, other: Difference | None) -> Difference:
    if other is None or (one.max_rel or 0.0) >= (other.max_rel or 0.0):
        return one
    return other
