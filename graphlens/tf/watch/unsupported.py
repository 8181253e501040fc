"""Errors that say nothing of their cause, which is that a library does not support what the script does."""

from __future__ import annotations

from typing import Final

_REPLICAS: Final = "PerReplica"

MULTI_WORKER: Final = (
    "Keras 3 does not support fit, evaluate and predict under a strategy of several workers: its own code makes one "
    "tensor of the values of all replicas, which raises this ValueError about PerReplica. Write the loop with "
    "strategy.run (custom loops work), or train on one machine with MirroredStrategy"
)


def explanation(error: BaseException) -> str:
    """Return what is not supported; empty for an error that is the script's own."""
    if isinstance(error, ValueError) and _REPLICAS in str(error) and "Tensor" in str(error) and _through_keras(error):
        return MULTI_WORKER
    return ""


def _through_keras(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("keras."):
            return True
        trace = trace.tb_next
    return False
