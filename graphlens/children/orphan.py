"""End this process when its parent is gone: a parent that is killed cannot do it, and nobody would wait for the child.

Standard library only: this runs before everything else.
"""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_S = 1.0  # seldom enough to be lost in any measurement


def watch() -> None:
    """Start watching the process that started this one."""
    if hasattr(os, "killpg"):  # Windows keeps saying the first parent, and has no process groups
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True, name="orphan").start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if os.getpgrp() == os.getpid():  # as the launcher started it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
