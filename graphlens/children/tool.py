"""Run a program that is no Python of ours, such as Graphviz, from its input to its output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class ToolError(Exception):
    """The program gave no output; the message says why, as the rest of a sentence."""


def run_tool(command: Sequence[str], data: bytes, time_limit_s: float) -> bytes:
    """Return what ``command`` writes when it reads ``data``; it is ended when it takes longer than ``time_limit_s``.

    It sees the end of its input at once, so that it ends by itself where this process is killed.

    Raises
    ------
    ToolError
        If it cannot be started, fails, or takes too long.
    """
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=time_limit_s, check=True).stdout
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"did not finish within {time_limit_s:.0f} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolError(f"failed with {type(error).__name__}") from error
