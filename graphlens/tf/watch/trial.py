"""The process of a trial: the script runs once more, changed by edits, and stands still before its steps.

Called as ``PARENT LIFELINE REQUESTS ANSWERS SCRIPT [ARGUMENTS]``, or with ``-m MODULE`` in place of the script; the
three in the midst are open pipes.
"""

from __future__ import annotations

import atexit
import os
import random
import secrets
from collections.abc import Mapping
from types import ModuleType
from typing import IO, Any, Final

from graphlens.children import orphan
from graphlens.children.gate_messages import (
    CompareValues,
    KeepValues,
    Over,
    RunBlock,
    RunSteps,
    RunToGate,
    TakeElements,
    TakeValues,
)
from graphlens.children.messages import Failure, from_line, to_line
from graphlens.errors import first_line
from graphlens.tf.watch import hooks, outside, rounds, script, variations, writes
from graphlens.tf.watch.gate import Gate

SEED: Final = 0
_REQUESTS: Final = (RunSteps, RunBlock, TakeElements, KeepValues, TakeValues, CompareValues)


class Pipes:
    """The channel to the parent; once that is closed, this process ends."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests: IO[str] = os.fdopen(requests, encoding="utf-8")
        self._answers: IO[str] = os.fdopen(answers, "w", encoding="utf-8")

    def first(self) -> RunToGate:
        """Wait for what the trial is about."""
        return from_line(self._line(), [RunToGate])

    def receive(self) -> Any:
        """Wait for the next request."""
        return from_line(self._line(), _REQUESTS)

    def send(self, message: Any) -> None:
        """Answer it."""
        self._answers.write(to_line(message) + "\n")
        self._answers.flush()

    def _line(self) -> str:
        line = self._requests.readline()
        if not line:
            os._exit(0)
        return line


def main(arguments: list[str]) -> None:
    """Run the script until its parent ends this process, or it does something that a second run must not do."""
    parent, lifeline, requests, answers = map(int, arguments[:4])
    orphan.watch(parent, lifeline)
    for inherited in (lifeline, requests, answers):
        os.set_inheritable(inherited, False)
    pipes = Pipes(requests, answers)
    request = pipes.first()
    try:
        applied = variations.install(request.edits)
    except variations.UnknownVariation as error:
        pipes.send(Failure(str(error)))
        return
    _seed(request.threads)
    gate = Gate(request, pipes, applied)
    hooks.Hooks(gate).install()
    rounds.install(gate)
    for watching in (outside.watch, writes.watch):
        watching(lambda deed: _stop(pipes, gate, deed), own="", caches=False)
    atexit.register(gate.finish)
    try:
        script.run(arguments[4:])
    except Exception as error:
        pipes.send(Over(f"the script raised {type(error).__name__}: {first_line(error)}"))
        raise


def _stop(pipes: Pipes, gate: Gate, deed: str) -> None:
    if gate.is_answering or gate.may_do_again:
        return
    pipes.send(Over(f"the script was stopped before it {deed}"))
    os._exit(0)


def _seed(threads: Mapping[str, int]) -> None:
    """Have everything random begin alike in every trial, unless the script has it begin otherwise itself."""
    random.seed(SEED)
    # NumPy takes the seeds of generators that are given none from there.
    vars(secrets)["randbits"] = random.Random(SEED).getrandbits

    def seed_tensorflow(module: ModuleType) -> None:
        module.random.set_seed(SEED)
        if threads:
            from graphlens.tf.record import environment

            environment.set_threads(threads)

    def seed_numpy(module: ModuleType) -> None:
        module.seed(SEED)

    hooks.Finder({"tensorflow": seed_tensorflow, "numpy.random": seed_numpy}).install()
