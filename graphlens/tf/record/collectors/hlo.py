"""The optimized HLO of every function that XLA compiled, one text file per module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.parts import HLO_FOLDER
from graphlens.tf import private

# XLA numbers its dumps: module_0003.<module name>.cpu_after_optimizations.txt
# Most instructions name a line inside TensorFlow as their source, which tells the user nothing.
_INTERNAL_SOURCE = re.compile(r' source_file="[^"]*tensorflow/python/[^"]*"( source_(end_)?(line|column)=\d+)*')
_DUMP = re.compile(r"module_(\d+)\.(?P<module>.+)\.\w*after_optimizations\.txt$")


class Hlo:
    """Writes ``hlo/N.txt``, from XLA's own dump where there is one (its module names are those of the profile)."""

    stage = "hlo"

    def __init__(self, concrete: Any, tensors: Sequence[Any], dump: Path | None) -> None:
        self._concrete = concrete
        self._tensors = tensors
        self._dump = dump

    def start(self, context: Context) -> None:
        """XLA dumps by itself, or cannot be told to any more."""

    def stop(self, context: Context) -> bool:
        texts = dumped(self._dump) if self._dump is not None else []
        if not texts and private.is_jit_compiled(self._concrete):
            text = private.optimized_hlo(self._concrete, list(self._tensors))
            texts = [text] if text else []
        for index, text in enumerate(texts):
            context.capture.write(f"{HLO_FOLDER}{index}.txt", _INTERNAL_SOURCE.sub("", text).encode())
        return True

    def cancel(self) -> None:
        """Nothing has to be ended."""


def dumped(folder: Path) -> list[str]:
    """Return the last text of each module: a function compiled twice ran as it was compiled last."""
    last: dict[str, Path] = {}
    for path in sorted(folder.glob("module_*")):
        match = _DUMP.match(path.name)
        if match:
            last[match["module"]] = path
    return [path.read_text() for path in last.values()]
