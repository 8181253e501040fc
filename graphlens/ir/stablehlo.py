"""What an ``XlaCallModule`` holds: a program of StableHLO.  Who wrote it, and whether a TensorFlow reads it.

The bytes begin as MLIR's bytecode does: ``ML\\xefR``, a version, and the name of the producer.  Op names stand in them
as they are, each between zero bytes (seen with JAX 0.10.2 and TensorFlow 2.21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

MODULE_OP: Final = "XlaCallModule"
MODULE: Final = "module"

_PRODUCER: Final = re.compile(rb"^ML\xefR.{1,9}?StableHLO_v(\d{1,4}(?:\.\d{1,4}){1,3})\x00", re.DOTALL)
# Ops of StableHLO 1.14 and later that programs were seen to fail for; what a program does not use, it may be newer for.
_NEWER_OPS: Final = ("composite_v2", "custom_call_v2")
_NEWER_FROM: Final = (1, 14)
# TensorFlow -> the newest StableHLO that it reads, as its own message says.
_READS: Final[Mapping[str, str]] = {"2.21": "1.13.7"}
_NEWEST: Final = "2.21"


@dataclass(frozen=True, slots=True)
class Program:
    """One program in an op: the version of its writer (``None`` where its bytes do not say), its size, its devices.

    ``newer`` names ops in it that an older StableHLO does not have.
    """

    version: str | None
    nbytes: int
    platforms: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()


def summary(module: bytes) -> dict[str, Any]:
    """Return what is kept of a program in place of its bytes, as values of JSON."""
    found = _PRODUCER.match(module)
    newer = [name for name in _NEWER_OPS if b"\x00" + name.encode() + b"\x00" in module]
    return {
        "stablehlo": found[1].decode() if found else None,
        "bytes": len(module),
        "newer": tuple(newer),
        "digest": sha256(module).hexdigest()[:16],
    }


def program_of(attrs: Mapping[str, Any]) -> Program | None:
    """Return the program in an op with these attributes; ``None`` where a damaged file holds none."""
    told = attrs.get(MODULE)
    if not isinstance(told, Mapping):
        return None
    platforms = attrs.get("platforms")
    names = tuple(name for name in platforms if isinstance(name, str)) if isinstance(platforms, tuple) else ()
    return Program(told.get("stablehlo"), told.get("bytes", 0), names, tuple(told.get("newer", ())))


def why_unreadable(program: Program, tensorflow: str | None) -> str | None:
    """Say why a TensorFlow fails at the program's first call; ``None`` where nothing speaks against it.

    Parameters
    ----------
    tensorflow
        Its version; by default the newest one of which it is known what it reads.
    """
    minor = ".".join((tensorflow or _NEWEST).split(".")[:2])
    reads = _READS.get(minor)
    if reads is None or program.version is None or not program.newer or _numbers(program.version) < _NEWER_FROM:
        return None
    return unreadable(program.version, f"TensorFlow {minor}", reads, ", ".join(program.newer))


def unreadable(written: str, reader: str, reads: str, ops: str) -> str:
    """Say that a program cannot be read, and what to do."""
    needs = f" and holds {ops}" if ops else ""
    todo = "export with an older JAX or run a newer TensorFlow"
    return f"written by StableHLO {written}{needs}; {reader} reads {reads}: {todo}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def refuses(attrs: Mapping[str, Any], platform: str) -> bool:
    """Whether a program was compiled for other platforms (``CPU``, ``CUDA``, ``ROCM``, ``TPU``) alone.

    >>> refuses({"module": {}, "platforms": ("CPU",)}, "CUDA"), refuses({"module": {}, "platforms": ()}, "CUDA")
    (True, False)
    """
    program = program_of(attrs)
    return program is not None and bool(program.platforms) and platform not in program.platforms
