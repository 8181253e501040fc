"""Being told to end: what is half written goes, and the child ends, before the program does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# Asked to end, and its terminal was closed; `nohup` has the second one ignored, and so it stays.
_ENDS = ("SIGTERM", "SIGHUP")


class Terminated(BaseException):
    """The program is to end; raised wherever the program is, so that what is half written goes and the child ends."""


@contextmanager
def cleaning_up_when_terminated() -> Iterator[None]:
    """Raise ``Terminated`` in here when the program is told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def terminate(_number: int, _frame: object) -> NoReturn:
        for number in before:  # cleaning up is not to be interrupted by the same again
            signal.signal(number, signal.SIG_IGN)
        raise Terminated

    ends = [number for name in _ENDS if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in ends if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
