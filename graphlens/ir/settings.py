"""Settings of a TensorFlow process, as edits: they change how a graph is run, and no graph.

They take effect when a process starts, so they cannot be applied to a program that runs already:

``{"edit": "session-setting", "environment": {"TF_ENABLE_ONEDNN_OPTS": "1"}}``
    Environment variables, set before TensorFlow is imported.
``{"edit": "session-setting", "threads": {"intra_op": 1, "inter_op": 1}}``
    Sizes of TensorFlow's thread pools, set before it runs anything; 0 leaves the choice to TensorFlow.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphlens.errors import RewriteError

SETTING: Final = "session-setting"
ONEDNN: Final = "TF_ENABLE_ONEDNN_OPTS"
POOLS: Final = ("intra_op", "inter_op")

Edit = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What several edits set together; an edit without anything to set asks for a process of its own alone."""

    environment: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> tuple[str, ...]:
        """Return what to type: for the shell that starts the program, or at the program's beginning."""
        exports = (f"export {name}={shlex.quote(value)}" for name, value in self.environment.items())
        calls = (f"tf.config.threading.set_{pool}_parallelism_threads({count})" for pool, count in self.threads.items())
        return (*exports, *calls)


def onednn_on() -> Edit:
    """Return the edit that has TensorFlow use oneDNN's kernels on a processor."""
    return {"edit": SETTING, "environment": {ONEDNN: "1"}}


def is_setting(edit: Edit) -> bool:
    """Whether an edit is a setting of the process, which no graph shows."""
    return edit.get("edit") == SETTING


def graph_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits that change a graph."""
    return tuple(edit for edit in edits if not is_setting(edit))


def settings_of(edits: Iterable[Edit]) -> Settings | None:
    """Return what those of ``edits`` that are settings set, ``None`` when none is.

    Raises
    ------
    RewriteError
        If two of them contradict each other, or one is no setting that could be made.
    """
    found = [edit for edit in edits if is_setting(edit)]
    if not found:
        return None
    environment: dict[str, str] = {}
    threads: dict[str, int] = {}
    for edit in found:
        _add(environment, {name: str(value) for name, value in edit.get("environment", {}).items()})
        _add(threads, {pool: _size(pool, size) for pool, size in edit.get("threads", {}).items()})
    return Settings(environment, threads)


def lines_of(edits: Iterable[Edit]) -> tuple[str, ...]:
    """Return what to type for those of ``edits`` that are settings."""
    settings = settings_of(edits)
    return () if settings is None else settings.lines()


def _add(known: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if known.setdefault(name, value) != value:
            raise RewriteError(f"{name} cannot be {known[name]} and {value}")


def _size(pool: str, size: Any) -> int:
    if pool not in POOLS or not isinstance(size, int) or size < 0:
        raise RewriteError(f"there is no thread pool '{pool}' of {size} threads; name {' or '.join(POOLS)}, and a size")
    return size
