"""End this process when its parent is gone: a parent that is killed cannot do it, and nobody would wait for the child.

Standard library only: every child runs this before everything else.
"""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_S = 0.5  # seldom enough to be lost in any measurement; where there are signals of pipes it is the second line


def watch(parent: int, lifeline: int) -> None:
    """Start watching the process ``parent``, which holds the other end of the pipe ``lifeline``."""
    if not hasattr(os, "killpg"):  # Windows keeps saying the first parent, and has no process groups
        return
    _tie_to(lifeline)
    if os.getppid() != parent:  # it was killed before this process came to life
        _end()
    threading.Thread(target=_end_with, args=(parent,), daemon=True, name="orphan").start()


def _tie_to(lifeline: int) -> None:
    """Have the kernel end this process and all it starts as soon as the pipe's other end is closed.

    A thread cannot do it while others hold Python's lock, as the import of TensorFlow does for seconds.
    """
    import fcntl

    if not hasattr(fcntl, "F_SETSIG"):  # Linux has it
        return
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    _end()


def _end() -> None:
    if os.getpgrp() == os.getpid():  # as the launcher started it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
