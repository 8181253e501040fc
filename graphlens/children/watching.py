"""How a module of ``tf.watch`` is started, which runs a script.

It is all that stands between the command and the start of the script, so nothing is imported that this does not need.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# What runs a script first: the package is found without a variable or an entry of the path that the script could see.
_FIRST = (
    "import sys; sys.path[:] = filter(None, sys.path); sys.path.insert(0, sys.argv.pop(1)); "
    "from graphlens.tf.watch import {0}; del sys.path[0]; {0}.main(sys.argv[1:])"
)


def watching(module: str, words: Sequence[str]) -> list[str]:
    """Return how a module of ``tf.watch`` is started with arguments, as the script that it runs would be started."""
    home = str(Path(__file__).resolve().parents[2])
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing starts its own
    return [sys.executable, *flags, "-c", _FIRST.format(module), home, *words]
