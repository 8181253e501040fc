"""The profile: TensorFlow's own profiler, in this process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from graphlens.errors import first_line
from graphlens.ir.run import STEP_MARKER
from graphlens.loaders.capture.collecting import Context, collecting
from graphlens.loaders.capture.parts import PROFILE

# An event is recorded when it ends, and threads end theirs a moment after the result of the last step is there; on a
# busy machine they wait for a processor first.  Threads that prepare the next data may be at work for ever.
SETTLING_S: Final = 0.05
_LOOK_S: Final = 0.001
_LOOKS: Final = 2  # one thread may be about to wake another one
_THREADS: Final = Path("/proc/self/task")


class Profile:
    """Writes the XPlane of what runs meanwhile; ``is_running`` says whether the profiler could be started."""

    stage = None

    def __init__(self) -> None:
        self.is_running = False
        self._folder = Path()

    def start(self, context: Context) -> None:
        self._folder = context.capture.path / "profile.part"
        try:
            tf.profiler.experimental.start(str(self._folder))
        except (tf.errors.OpError, ImportError, AttributeError) as error:
            context.capture.fail("profile", f"TensorFlow's profiler did not start: {first_line(error)}")
            return
        self.is_running = True

    def stop(self, context: Context) -> bool:
        if not self.is_running:
            return False
        settle()
        self.cancel()
        for found in self._folder.rglob("*.xplane.pb"):
            # The profiler writes down where it wrote; dots of the same length keep the message valid and say less.
            own_name = str(self._folder).encode()
            context.capture.write(PROFILE, found.read_bytes().replace(own_name, b"." * len(own_name)))
        self._clear()
        return True

    def drop(self) -> None:
        """Stop, and keep nothing of what was recorded."""
        self.cancel()
        self._clear()

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def cancel(self) -> None:
        if self.is_running:
            tf.profiler.experimental.stop()
        self.is_running = False


def profiled_steps(step: Callable[[], Any], count: int, context: Context) -> int:
    """Profile ``count`` steps, each marked; returns how many were, 0 where the profiler is not available."""
    profile = Profile()
    with collecting(context, [profile]):
        if not profile.is_running:
            return 0
        for number in range(count):
            with tf.profiler.experimental.Trace(STEP_MARKER, step_num=number, _r=1):
                step()
            context.progress("profiling", number + 1, count)
    return count


def settle() -> None:
    """Wait until the other threads of this process have ended what they do, for a moment at most."""
    until_s = time.monotonic() + SETTLING_S
    quiet = 0
    while quiet < _LOOKS and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        quiet = 0 if others_run() else quiet + 1


def others_run() -> bool:
    """Whether another thread runs or waits for a processor, or for a disk; so it is where the system does not say."""
    own = str(threading.get_native_id())
    try:
        return any(_state(thread) in "RD" for thread in os.listdir(_THREADS) if thread != own)
    except OSError:
        return True


def _state(thread: str) -> str:
    """Return the letter with which Linux says what a thread does; one that has just ended does nothing."""
    try:
        stat = (_THREADS / thread / "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]
