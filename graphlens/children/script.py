"""The parent's side of a script: start it as it would start by itself, and wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphlens.children.start import watching


def run(folder: Path, steps: int, words: Sequence[str], *, stops: bool = False) -> int:
    """Run a script, or ``-m`` and a module, with its arguments; it reads and writes where this process does.

    Parameters
    ----------
    stops
        Whether it ends once a window of it was recorded.

    Returns
    -------
    int
        Its exit code, negative for the signal that ended it, as ``subprocess`` has it.
    """
    then = "stop" if stops else "go-on"
    process = subprocess.Popen(watching("script", [str(folder), str(steps), then, *words]))
    with _handed_on(process):
        return process.wait()


@contextmanager
def _handed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave an interrupt from the keyboard to the script, which gets it too, and hand on being told to end."""

    def hand_on(number: int, _frame: object) -> None:
        process.send_signal(number)

    ends = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in (*ends, signal.SIGINT)}
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the script would inherit
    for number in ends:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
