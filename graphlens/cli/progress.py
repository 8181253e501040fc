"""One line of progress on standard error, for whoever waits at a terminal."""

from __future__ import annotations

import sys
import threading
import time

from graphlens.cli.outcome import one_line
from graphlens.config import Progress, no_progress

_TICK_S = 1.0
_SHOWN_FROM_S = 2  # seconds: a stage that is over at once needs no clock


class shown:
    """Show one line of progress on standard error when it is a terminal, and wipe it afterwards.

    The line counts the seconds of its stage by itself, so that a long stage is not taken for a hang.
    """

    def __init__(self) -> None:
        self._stage, self._line, self._since_s = "", "", 0.0
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if not sys.stderr.isatty():
            return no_progress
        self._ticker.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._ticker.is_alive():
            self._ticker.join()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self, what: str, done: int, of: int) -> None:
        if what != self._stage:
            self._stage, self._since_s = what, time.monotonic()
        self._line = f"{one_line(what)}{f' {done}/{of}' if of else ''} …"
        self._print()

    def _print(self) -> None:
        passed_s = int(time.monotonic() - self._since_s)
        sys.stderr.write(f"\r\x1b[K{self._line}{f' {passed_s} s' if passed_s >= _SHOWN_FROM_S else ''}")
        sys.stderr.flush()

    def _tick(self) -> None:
        while not self._done.wait(_TICK_S):
            if self._line:
                self._print()
