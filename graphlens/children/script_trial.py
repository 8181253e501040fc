"""The parent's side of a trial of a script: start it once more, and have it make steps when it is its turn."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from graphlens.children.gate_messages import AtGate, Over, Taken
from graphlens.children.messages import Block, Comparison, Done, Failure, MessageError, from_line, to_line
from graphlens.children.start import TEMPORARY, ChildGone, last_words, standing_still
from graphlens.children.watching import watching

LOG: Final = "stderr.txt"
_ANSWERS: Final = (AtGate, Over, Taken, Block, Comparison, Done, Failure)


@dataclass(frozen=True)
class ScriptTrial:
    """A script that runs once more, and what it answers; it and all it started end with this process."""

    process: subprocess.Popen[bytes]
    folder: Path
    requests: IO[str]
    messages: queue.SimpleQueue[Any]
    lifeline: IO[bytes]

    def ask(self, request: Any, time_limit_s: float) -> Any:
        """Send a request, and return the answer.

        Raises
        ------
        ChildGone
            If the process ends instead, or takes longer than ``time_limit_s``; it is ended then.
        """
        with suppress(OSError):  # whoever waits for the answer finds out why
            self.requests.write(to_line(request) + "\n")
            self.requests.flush()
        deadline_s = time.monotonic() + time_limit_s
        try:
            answer = self.messages.get(timeout=max(0.0, time_limit_s))
        except queue.Empty:
            answer = None
        if answer is not None:
            return answer
        timed_out = time.monotonic() >= deadline_s
        self.end()
        why = (
            f"it took longer than {time_limit_s:.0f} s"
            if timed_out
            else f"its process ended: {last_words(self.folder)}"
        )
        raise ChildGone(why, timed_out)

    def standing_still(self) -> AbstractContextManager[None]:
        """Have the script and all it started do nothing meanwhile, its threads included."""
        return standing_still(self.process.pid)

    def end(self) -> None:
        """End the script and all that it started; harmless afterwards."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(OSError):
            self.requests.close()
        self.lifeline.close()


def start(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> ScriptTrial:
    """Start a script as it would start by itself, but for its input, which is empty, and its output, which is kept.

    Parameters
    ----------
    folder
        An empty one for its log and its temporary files.
    words
        The script and its arguments, or ``-m`` and a module.
    environment
        What is set in addition.
    """
    (folder / TEMPORARY).mkdir(parents=True)
    reads, requests = os.pipe()
    answers, writes = os.pipe()
    held, lifeline = os.pipe()
    numbers = map(str, (os.getpid(), held, reads, writes))
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            watching("trial", [*numbers, *words]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_own(folder), **environment},
            start_new_session=True,
            pass_fds=(held, reads, writes),
        )
    for inherited in (held, reads, writes):
        os.close(inherited)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(os.fdopen(answers, encoding="utf-8"), messages), daemon=True).start()
    return ScriptTrial(
        process, folder, os.fdopen(requests, "w", encoding="utf-8"), messages, os.fdopen(lifeline, "wb", buffering=0)
    )


def _own(folder: Path) -> Mapping[str, str]:
    """Return what every trial runs with: alike in all of them, and leaving nothing behind."""
    seed = os.environ.get("PYTHONHASHSEED", "0")
    return {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder / TEMPORARY)}


def _read(stream: IO[str], messages: queue.SimpleQueue[Any]) -> None:
    with stream:
        for line in stream:
            with suppress(MessageError):  # a process that dies while it writes leaves half a line
                messages.put(from_line(line, _ANSWERS))
    messages.put(None)
