"""The parent's side of a script: start it as it would start by itself, and wait for it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphlens.children.watching import watching


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
    with _handed_on() as ends:
        process = ends.to(subprocess.Popen(watching("script", [str(folder), str(steps), then, *words])))
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class _Ends:
    """What this process is told to end by: the script is told it, too, even if it is being started just then."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def hand_on(self, number: int, _frame: object) -> None:
        """Tell it to the script as soon as there is one."""
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def to(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Tell it to this process from now on; what was told before as well."""
        self._process = process
        for number in self._early:
            process.send_signal(number)
        return process


@contextmanager
def _handed_on() -> Iterator[_Ends]:
    """Leave an interrupt from the keyboard to the script, which gets it too, and hand on being told to end."""
    handed = _Ends()
    ends = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in (*ends, signal.SIGINT)}
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the script would inherit
    for number in ends:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, handed.hand_on)
    try:
        yield handed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
