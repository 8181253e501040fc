"""What a script writes through TensorFlow and h5py: files that these open themselves, and Python never hears of."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from graphlens.tf.watch import outside
from graphlens.tf.watch.hooks import Finder

_IN_MEMORY: Final = "ram://"  # a file system of TensorFlow that ends with the process
_UNNAMED: Final = "a file whose name a graph computes"


@dataclass(frozen=True, slots=True)
class _Writer:
    """A function or method that writes: what it does, and which of its arguments is the path.

    ``position`` counts without ``self``, and ``keyword`` names it; ``mode`` is that of the argument that says whether a
    file is written at all.  ``owner`` is the class, empty for a function of the module.
    """

    module: str
    owner: str
    name: str
    verb: str
    position: int
    keyword: str
    mode: tuple[int, str] | None = None


_FILES: Final = "tensorflow.python.lib.io._pywrap_file_io"
_DATA: Final = "tensorflow.python.data.ops."
_WRITERS: Final = (
    _Writer(_FILES, "", "WritableFile", "writes the file", 0, "filename"),
    _Writer(_FILES, "", "WriteStringToFile", "writes the file", 0, "filename"),
    _Writer(_FILES, "", "CopyFile", "writes the file", 1, "target"),
    _Writer(_FILES, "", "RenameFile", "renames", 0, "src"),
    _Writer(_FILES, "", "DeleteFile", "removes", 0, "filename"),
    _Writer(_FILES, "", "DeleteRecursively", "removes", 0, "dirname"),
    _Writer(_FILES, "", "CreateDir", "makes the folder", 0, "dirname"),
    _Writer(_FILES, "", "RecursivelyCreateDir", "makes the folder", 0, "dirname"),
    _Writer("tensorflow.python.lib.io.tf_record", "TFRecordWriter", "__init__", "writes the file", 0, "path"),
    _Writer("tensorflow.python.ops.gen_io_ops", "", "write_file", "writes the file", 0, "filename"),
    _Writer(
        "tensorflow.python.checkpoint.checkpoint", "TrackableSaver", "save", "saves a checkpoint", 0, "file_prefix"
    ),
    _Writer("tensorflow.python.training.saver", "Saver", "save", "saves a checkpoint", 1, "save_path"),
    _Writer("tensorflow.python.ops.summary_ops_v2", "", "create_file_writer_v2", "writes summaries to", 0, "logdir"),
    _Writer("tensorflow.python.summary.writer.writer", "FileWriter", "__init__", "writes summaries to", 0, "logdir"),
    _Writer("tensorflow.python.profiler.profiler_v2", "", "start", "writes a profile to", 0, "logdir"),
    _Writer(f"{_DATA}cache_op", "CacheDataset", "__init__", "caches a dataset in", 1, "filename"),
    _Writer(f"{_DATA}snapshot_op", "_SnapshotDataset", "__init__", "keeps a dataset in", 1, "path"),
    _Writer(f"{_DATA}save_op", "_SaveDataset", "__init__", "saves a dataset to", 1, "path"),
    _Writer("h5py._hl.files", "File", "__init__", "writes the file", 0, "name", (1, "mode")),
)


def watch(tell: outside.Tell, *, own: str, caches: bool) -> None:
    """Tell of what is about to be written so, in words; the parameters are those of ``outside.watch``.

    It is for the process of a script, which ends with it: nothing is taken back.
    """
    homes = outside.homes(own, caches=caches)
    Finder({module: functools.partial(_wrap, tell, homes) for module in {one.module for one in _WRITERS}}).install()


def _wrap(tell: outside.Tell, homes: outside.Homes, module: ModuleType) -> None:
    for writer in _WRITERS:
        owner: Any = getattr(module, writer.owner, None) if writer.owner else module
        if writer.module == module.__name__ and owner is not None and hasattr(owner, writer.name):
            _put(owner, writer, lambda words: tell(words) if words else None, homes)


def _put(owner: Any, writer: _Writer, tell: outside.Tell, homes: outside.Homes) -> None:
    before: Callable[..., Any] = getattr(owner, writer.name)
    skipped = 1 if writer.owner else 0

    @functools.wraps(before, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def written(*args: Any, **kwargs: Any) -> Any:
        tell(deed(writer, args[skipped:], kwargs, homes))
        return before(*args, **kwargs)

    setattr(owner, writer.name, written)


def deed(writer: _Writer, args: tuple[Any, ...], kwargs: Mapping[str, Any], homes: outside.Homes) -> str:
    """Return what a call is about to do outside of the process, empty where it is nothing."""
    if writer.mode is not None and _argument(args, kwargs, *writer.mode) in {None, "r"}:
        return ""
    value = _argument(args, kwargs, writer.position, writer.keyword)
    path = _path(value)
    if path is None:
        # What is no path at all is a file that Python has open, or nothing.
        return f"{writer.verb} {_UNNAMED}" if hasattr(value, "dtype") else ""
    is_there_already = writer.verb == "makes the folder" and os.path.isdir(path)
    if not path or path.startswith(_IN_MEMORY) or is_there_already or not outside.is_outside(path, homes):
        return ""
    return f"{writer.verb} '{path}'"


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, keyword: str) -> Any:
    return kwargs[keyword] if keyword in kwargs else next(iter(args[position:]), None)


def _path(value: Any) -> str | None:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else None
