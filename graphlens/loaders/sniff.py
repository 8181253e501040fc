"""Tell what a target is by its content, and refuse with one clear line what GraphLens does not read."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from graphlens.errors import TargetError
from graphlens.loaders import savedmodel
from graphlens.loaders.capture.parts import MANIFEST
from graphlens.loaders.files import ARCHIVE_ERRORS, HEAD_BYTES, looks_like_text, read_bytes, refuse_pointer
from graphlens.loaders.hosts import PROFILE_SUFFIX
from graphlens.loaders.profile_files import profile_files
from graphlens.loaders.wire import BYTES, FIXED32, FIXED64, VARINT, WireError, read_varint

Kind = Literal[
    "saved_model", "graph_def", "meta_graph", "keras", "capture", "xplane", "run_metadata", "timeline", "analysis",
    "callable", "script",
]  # fmt: skip

READS: Final = "a model, a capture or a profile; see `graphlens analyze --help`"

_CALLABLE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")

# First bytes -> kind, or for formats that are not read, what they are.
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"
_GZIP: Final = b"\x1f\x8b"
_FOREIGN: Final = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x80\x04\x95", "a Python pickle"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x7fELF", "a program"),
)


_URL: Final = re.compile(r"^([A-Za-z][\w+.-]*)://")
# Scheme -> what copies a folder from there.
_FETCHING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gs": "gcloud storage cp --recursive {url} .",
        "s3": "aws s3 cp --recursive {url} DIR",
        "hdfs": "hdfs dfs -get {url}",
    }
)


def _fetching(scheme: str, url: str) -> str:
    known = _FETCHING.get(scheme.lower())
    return f"copy it here (`{known.format(url=shlex.quote(url))}`)" if known else "download it"


class Identified(NamedTuple):
    """What a target is, and where exactly (the folder of a SavedModel, for instance)."""

    kind: Kind
    path: Path


def identify(target: str | os.PathLike[str]) -> Identified:
    """Tell what ``target`` is.

    Raises
    ------
    TargetError
        When it does not exist, or is nothing that GraphLens reads; the message says what it reads.
    """
    text = os.fspath(target)
    path = Path(text)
    if not text:
        raise TargetError(f"no target was given; GraphLens reads {READS}")
    if path.is_dir():
        return _identify_folder(path)
    if path.is_file():
        return _identify_file(path)
    if _CALLABLE.match(text):
        return Identified("callable", path)
    elsewhere = _URL.match(text)
    if elsewhere:
        raise TargetError(f"'{text}' is not on this machine: {_fetching(elsewhere[1], text)}, and name the copy")
    if path.exists():
        raise TargetError(f"'{text}' is neither a file nor a folder; GraphLens reads {READS}")
    raise TargetError(f"'{text}' does not exist; GraphLens reads {READS}")


# -- folders ------------------------------------------------------------------------------------------------------

_MODEL_FILES: Final = (savedmodel.BINARY, savedmodel.TEXT, savedmodel.SPLIT)


def _identify_folder(path: Path) -> Identified:
    if any((path / name).is_file() for name in _MODEL_FILES):
        return Identified("saved_model", path)
    if (path / MANIFEST).is_file():
        return Identified("capture", path)
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise TargetError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return _inside(path, entries)


def _inside(path: Path, entries: list[Path]) -> Identified:
    """Look one level down, as TensorFlow Serving keeps versions; a profile's folder is deeper."""
    models = [entry for entry in entries if entry.is_dir() and any((entry / name).is_file() for name in _MODEL_FILES)]
    if len(models) == 1:
        return Identified("saved_model", models[0])
    if models:
        names = ", ".join(entry.name for entry in models)
        raise TargetError(f"'{path}' holds several SavedModels ({names}); name the folder of one")
    profiles = profile_files(path)
    if profiles:
        return Identified("xplane" if profiles[0].name.endswith(PROFILE_SUFFIX) else "timeline", path)
    raise TargetError(_why_no_model(path, entries))


def _why_no_model(path: Path, entries: list[Path]) -> str:
    names = {entry.name for entry in entries}
    if not entries:
        return f"'{path}' is an empty folder; GraphLens reads {READS}"
    if "variables" in names or "keras_metadata.pb" in names:
        return f"'{path}' looks like a SavedModel without its {savedmodel.BINARY}; copy or export it completely"
    if any(name.endswith(".index") for name in names) or "checkpoint" in names:
        return f"'{path}' holds a checkpoint, which has no graph; save the model as a SavedModel"
    readable = _readable(entries)
    if readable:
        return f"'{path}' holds no {savedmodel.BINARY}; name a file in it: {', '.join(readable)}"
    return f"'{path}' holds no {savedmodel.BINARY} and no profile (*{PROFILE_SUFFIX}); GraphLens reads {READS}"


_FILES_TRIED: Final = 20  # a hint is not worth a look into each of thousands of files
_NO_TARGETS: Final = frozenset({"analysis", "script"})  # told apart, but not to be analyzed


def _readable(entries: list[Path]) -> list[str]:
    """Return the names of the files of a folder that could be targets themselves."""
    names = []
    for entry in [entry for entry in entries if entry.is_file()][:_FILES_TRIED]:
        try:
            kind = _identify_file(entry).kind
        except TargetError:
            continue
        names += [entry.name] if kind not in _NO_TARGETS else []
    return names


# -- files --------------------------------------------------------------------------------------------------------


def _identify_file(path: Path) -> Identified:
    head = _head(path)
    if path.name in (savedmodel.BINARY, savedmodel.TEXT):
        return Identified("saved_model", path.parent)
    if head.startswith(_HDF5):
        return Identified("keras", path)
    if head.startswith(_ZIP):
        return _identify_zip(path)
    if head.startswith(_GZIP):
        return _identify_gzip(path)
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise TargetError(f"'{path}' is {what}; GraphLens reads {READS}")
    return _identify_text(path, head) if looks_like_text(head) else _identify_message(path)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise TargetError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not head:
        raise TargetError(f"'{path}' is empty; was it copied completely?")
    refuse_pointer(path, head)
    return head


def _identify_zip(path: Path) -> Identified:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except ARCHIVE_ERRORS as error:
        raise TargetError(f"'{path}' is a damaged archive ({error}); copy it again") from error
    if MANIFEST in names:
        return Identified("capture", path)
    if {"config.json", "model.weights.h5"} & names:
        return Identified("keras", path)
    raise TargetError(f"'{path}' is an archive but neither a capture nor a .keras model; GraphLens reads {READS}")


def _identify_gzip(path: Path) -> Identified:
    try:
        with gzip.open(path) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise TargetError(f"'{path}' is damaged ({error}); copy it again") from error
    if _TRACE in head:
        return Identified("timeline", path)
    raise TargetError(f"'{path}' is compressed with gzip; unpack it first; GraphLens reads {READS}")


_TRACE: Final = b'"traceEvents"'
_GRAPH_TEXT = re.compile(rb"^\s*(#[^\n]*\n\s*)*(node|versions|library|version)\s*[:{]")
_META_TEXT = re.compile(rb"^\s*(#[^\n]*\n\s*)*(meta_info_def|graph_def|saver_def|collection_def|signature_def)\s*[:{]")
_MODEL_TEXT = re.compile(rb"^\s*(#[^\n]*\n\s*)*(saved_model_schema_version|meta_graphs)\s*[:{]")


def _identify_text(path: Path, head: bytes) -> Identified:
    if _GRAPH_TEXT.match(head):
        return Identified("graph_def", path)
    if _META_TEXT.match(head):
        return Identified("meta_graph", path)
    if _MODEL_TEXT.match(head):
        raise TargetError(f"'{path}' is the text of a SavedModel; name it {savedmodel.TEXT} in a folder of its own")
    if head.lstrip().startswith(b"{"):
        return _identify_json(path, head)
    if path.suffix == ".py":
        return Identified("script", path)
    raise TargetError(f"'{path}' is a text file, but no graph; GraphLens reads {READS}")


def _identify_json(path: Path, head: bytes) -> Identified:
    if path.name == MANIFEST:
        return Identified("capture", path.parent)
    if _TRACE in head and b'"graphlens_version"' not in head:
        return Identified("timeline", path)
    if b'"schema_version"' in head or b'"graphlens_version"' in read_bytes(path):
        return Identified("analysis", path)
    raise TargetError(f"'{path}' is JSON, but no GraphLens analysis; GraphLens reads {READS}")


# -- protobuf messages --------------------------------------------------------------------------------------------


def _identify_message(path: Path) -> Identified:
    """Tell messages apart by the numbers and kinds of their first fields."""
    try:
        outline = list(_outline(path))
    except WireError as error:
        raise TargetError(f"'{path}' is damaged or no TensorFlow file ({error}); GraphLens reads {READS}") from error
    kind = _kind_of(outline)
    if kind is None and _TOOL_FILE.search(path.name):
        raise TargetError(f"'{path}' is what a tool made of a profile; pass the *{PROFILE_SUFFIX} that lies beside it")
    if kind is None:
        raise TargetError(f"'{path}' is neither a TensorFlow graph nor a profile; GraphLens reads {READS}")
    if kind == "saved_model":
        raise TargetError(f"'{path}' is a SavedModel's file; name it {savedmodel.BINARY} and pass its folder")
    return Identified(kind, path)


# What XProf and TensorBoard leave beside a profile; protobufs as well, but of their tools.
_TOOL_FILE = re.compile(
    r"(op_stats(_v2)?|overview_page|input_pipeline(_analyzer)?|kernel_stats|tensorflow_stats|tf_stats|memory_profile|"
    r"memory_viewer|pod_viewer|op_profile|hlo_stats|roofline_model|dcn_collective_stats|tf_data_bottleneck_analysis)"
    r"(\.pb)?$"
)


class _Outline(NamedTuple):
    """One top-level field: number, kind, and its first bytes."""

    number: int
    kind: int
    head: bytes


_FIELD_HEAD_BYTES: Final = 64
_FIRST_PRINTABLE: Final = 0x20
_TAG_BYTES: Final = 20  # a tag and a length, ten bytes each at most


def _outline(path: Path) -> Iterator[_Outline]:
    """Yield the top-level fields, seeking over their content."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            file.seek(position)
            chunk = file.read(_TAG_BYTES + _FIELD_HEAD_BYTES)
            tag, at = read_varint(chunk, 0)
            number, kind = tag >> 3, tag & 7
            if not number or kind not in _SKIPS:
                raise WireError("it is no protobuf message")
            length, at = _SKIPS[kind](chunk, at)
            if position + at + length > size:
                raise WireError("it is cut off")
            yield _Outline(number, kind, chunk[at : at + min(length, _FIELD_HEAD_BYTES)])
            position += at + length


def _skip_varint(chunk: bytes, at: int) -> tuple[int, int]:
    return 0, read_varint(chunk, at)[1]


def _skip_fixed64(_chunk: bytes, at: int) -> tuple[int, int]:
    return 8, at


def _skip_fixed32(_chunk: bytes, at: int) -> tuple[int, int]:
    return 4, at


# Wire type -> how long the content is and where it starts.
_SKIPS: Final[Mapping[int, Callable[[bytes, int], tuple[int, int]]]] = MappingProxyType(
    {VARINT: _skip_varint, BYTES: read_varint, FIXED64: _skip_fixed64, FIXED32: _skip_fixed32}
)


def _kind_of(outline: list[_Outline]) -> Kind | None:
    """GraphDef: 1 nodes, 2 library.  MetaGraph: 1 info, 2 graph.  SavedModel: 1 a number, 2.  XSpace: 1 planes.

    RunMetadata: 1 step statistics of devices, whose names begin with a slash, as no node's does.
    """
    first = {field.number: field for field in reversed(outline)}
    lead = first.get(1)
    if lead is not None and lead.kind == VARINT:
        return "saved_model" if 2 in first and first[2].kind == BYTES else None
    if lead is not None and _is_plane(lead.head):
        return "xplane"
    if lead is not None and (_is_device(lead.head) or _is_device(_inner(lead.head))):
        return "run_metadata"
    if lead is not None and _is_node(lead.head):
        return "graph_def"
    if 2 in first and _is_node(_inner(first[2].head)):
        return "meta_graph"
    return "graph_def" if 2 in first and set(first) <= _GRAPH_FIELDS and _is_version(first.get(4)) else None


_GRAPH_FIELDS: Final = frozenset({1, 2, 3, 4, 5})


def _is_version(field: _Outline | None) -> bool:
    """A graph without nodes still says its version: a short message that starts with a number."""
    return field is not None and field.kind == BYTES and field.head[:1] == b"\x08"


def _inner(message: bytes) -> bytes:
    """Return the content of a message's first field, as far as it is there."""
    if not message or message[0] != 0x0A:
        return b""
    try:
        return message[read_varint(message, 1)[1] :]
    except WireError:
        return b""


def _is_plane(head: bytes) -> bool:
    """An XPlane starts with a small number (its id, left out when it is 0) and its name, a printable text."""
    try:
        at = read_varint(head, 1)[1] if head[:1] == b"\x08" else 0
        text_at = read_varint(head, at + 1)[1] if head[at : at + 1] == b"\x12" else len(head)
    except WireError:
        return False
    return min(head[text_at : text_at + 1], default=0) >= _FIRST_PRINTABLE


def _is_device(head: bytes) -> bool:
    """A DeviceStepStats starts with the name of a device, as in ``/job:localhost/…``."""
    return head[:1] == b"\x0a" and _inner(head)[:1] == b"/"


def _is_node(head: bytes) -> bool:
    """A NodeDef starts with its name (1) followed by its op (2), both short texts."""
    name_tag, op_tag = b"\x0a", b"\x12"
    if not head.startswith(name_tag):
        return False
    try:
        length, at = read_varint(head, 1)
    except WireError:
        return False
    name, follower = head[at : at + length], head[at + length : at + length + 1]
    return length > 0 and follower in (op_tag, b"") and min(name, default=0) >= _FIRST_PRINTABLE
