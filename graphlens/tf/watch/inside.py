"""Watch this process itself, from one moment to another: TensorFlow may be in use already, and is left as it was."""

from __future__ import annotations

import sys
from pathlib import Path

from graphlens.tf.watch import hooks
from graphlens.tf.watch.harmless import Harmless
from graphlens.tf.watch.script import Late


def is_watched() -> bool:
    """Whether this process is watched: from within, or since it was started."""
    return hooks.are_installed()


class Inside:
    """The watch of this process; it is begun and ended once.

    Functions that ran before are instantiated anew by their next call.  TensorFlow hands out the graphs of none that
    are instantiated already, and leaves their cheap ops out of profiles.  A random op with a seed that is drawn in a
    ``tf.function`` begins its sequence again by that; what Keras draws does not.

    Parameters
    ----------
    folder
        Where the capture is left.
    name
        What the recording is called.
    steps
        How many calls of the program that takes the time are recorded.
    """

    def __init__(self, folder: Path, name: str, steps: int) -> None:
        self._watch = Late(folder, name, steps)
        self._hooks = hooks.Hooks(Harmless(self._watch))

    @property
    def has_recorded(self) -> bool:
        """Whether a recording of steady calls is complete."""
        return self._watch.has_recorded

    def begin(self) -> None:
        """Begin to watch."""
        if "tensorflow" in sys.modules:
            from graphlens.tf import private
            from graphlens.tf.record.collectors.executed import let_go_of_what_failed

            private.forget_warm_kernels()
            let_go_of_what_failed()
        self._hooks.install()

    def end(self) -> None:
        """End what is being recorded, and leave the process as it was."""
        self._hooks.remove()
        self._watch.finish()
        self._watch.leave()
