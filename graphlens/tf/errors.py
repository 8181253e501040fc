"""Condense TensorFlow's many-line errors to the one line that tells."""

from __future__ import annotations

MOST_LETTERS = 300
# Headings and repetitions that TensorFlow puts around the message proper.
_EMPTY_WORDS = (
    "Graph execution error:",
    "<stack traces unavailable>",
    "Node:",
    "Detected at node",
    "Original stack trace",
    "Errors may have originated",
)
_TRACES = ("File ", "[[", "{{", "Traceback", "node ", "in user code:")


def first_line(error: BaseException) -> str:
    """Return the first line of ``error`` that is neither a heading nor a stack trace."""
    if str(error).startswith("in user code:"):  # AutoGraph puts the trace first and the error last
        return _shortened(str(error).strip().splitlines()[-1].strip())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_EMPTY_WORDS + _TRACES)]
    return _shortened((telling or lines or [type(error).__name__])[0])


def _shortened(chosen: str) -> str:
    chosen = chosen.removesuffix(":")  # an exception without a message is its name and a colon
    return chosen if len(chosen) <= MOST_LETTERS else chosen[: MOST_LETTERS - 1] + "…"
