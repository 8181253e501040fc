"""Compile the fake GPU with gcc and g++ into a cache folder of the user: ``python tests/fake_gpu/build.py``."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path

SOURCES = Path(__file__).parent
ROWS = SOURCES / "kernel-rows-missing-in-cpu-wheel-tf2.21.bin.gz"
TENSORFLOW = "2.21"  # the version whose CUDA wheel the rows are from
LIBRARY = "libgraphlens_fake_gpu.so"
# No optimization: the kernels that do the work are TensorFlow's own, and the time to compile is the tests'.
FLAGS = ("-O0", "-fPIC", "-Wall")
CPP_FLAGS = ("-std=c++17",)


class Unavailable(Exception):
    """The fake GPU cannot be built here; the message says what is missing."""


def library() -> Path:
    """Return the library, compiled now unless it is in the cache for these sources and this TensorFlow.

    Raises
    ------
    Unavailable
        Without gcc and g++, or with another TensorFlow than the one that the kernel rows complete.
    """
    version, tensorflow = _tensorflow()
    folder = _cache() / f"fake-gpu-{_digest(version)}"
    if not (folder / LIBRARY).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Compiled beside its place and moved there as a whole: another process may be doing the same.
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            _compile(tensorflow, Path(work))
            folder.mkdir(exist_ok=True)
            os.replace(Path(work) / LIBRARY, folder / LIBRARY)
    return folder / LIBRARY


def _tensorflow() -> tuple[str, Path]:
    """Return the version of the CPU wheel and its folder, without importing it."""
    for compiler in ("gcc", "g++"):
        if shutil.which(compiler) is None:
            raise Unavailable(f"there is no {compiler}")
    try:
        version = metadata.version("tensorflow-cpu")
    except metadata.PackageNotFoundError:
        raise Unavailable("tensorflow-cpu is not installed (the full wheel has GPU kernels of its own)") from None
    if version.split(".")[:2] != TENSORFLOW.split("."):
        raise Unavailable(f"the kernel rows are those of TensorFlow {TENSORFLOW}, installed is {version}")
    spec = util.find_spec("tensorflow")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return version, Path(spec.submodule_search_locations[0])


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphlens-tests"


def _digest(version: str) -> str:
    digest = hashlib.sha256(f"{version} {FLAGS} {CPP_FLAGS}".encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in {".c", ".cc", ".h", ".S", ".gz"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(tensorflow: Path, work: Path) -> None:
    rows = work / "kernel_rows.bin"
    rows.write_bytes(gzip.decompress(ROWS.read_bytes()))
    # The headers are TensorFlow's: as system headers their warnings are not ours.
    flags = [*FLAGS, "-isystem", str(tensorflow / "include"), f'-DKERNEL_ROWS="{rows}"', "-c"]
    commands = [
        ["gcc", *flags, str(SOURCES / "plug.c")],
        ["gcc", *flags, str(SOURCES / "kernel_rows.S")],
        ["g++", *CPP_FLAGS, *flags, str(SOURCES / "profiler.cc")],
        ["g++", *CPP_FLAGS, *flags, str(SOURCES / "delegate.cc")],
    ]
    _run_together(commands, work)
    objects = [str(work / name) for name in ("plug.o", "kernel_rows.o", "profiler.o", "delegate.o")]
    link = ["g++", "-shared", "-o", LIBRARY, *objects, f"-L{tensorflow}", "-l:libtensorflow_framework.so.2"]
    _run_together([link], work)


def _run_together(commands: list[list[str]], work: Path) -> None:
    running = [subprocess.Popen(command, cwd=work, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, errors = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the fake GPU does not compile:\n{errors}")


if __name__ == "__main__":
    try:
        print(library())
    except Unavailable as reason:
        sys.exit(f"the fake GPU cannot be built: {reason}")
