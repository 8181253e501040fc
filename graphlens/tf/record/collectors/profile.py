"""The profile: TensorFlow's own profiler, in this process."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import tensorflow as tf

from graphlens.errors import first_line
from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.parts import PROFILE

# An event is recorded when it ends, and threads end theirs a moment after the result of the last step is there; on a
# busy machine they wait for a processor first.
SETTLING_S = 0.05


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
        time.sleep(SETTLING_S)
        self.cancel()
        for found in self._folder.rglob("*.xplane.pb"):
            # The profiler writes down where it wrote; dots of the same length keep the message valid and say less.
            own_name = str(self._folder).encode()
            context.capture.write(PROFILE, found.read_bytes().replace(own_name, b"." * len(own_name)))
        shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def cancel(self) -> None:
        if self.is_running:
            tf.profiler.experimental.stop()
        self.is_running = False
