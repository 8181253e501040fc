"""Read files and parse protobuf messages, turning every failure into one clear line."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final, TypeVar

from graphlens.errors import TargetError
from graphlens.units import format_bytes

MESSAGE_LIMIT_BYTES = (1 << 31) - 1  # protobuf refuses larger messages

HEAD_BYTES = 1 << 16  # enough of a file to tell what it is

Message = TypeVar("Message")

# What Python's reader of zip archives raises: a damaged one may name a version, a compression method or an encryption
# that the reader does not know, offsets beyond its end, or names in no encoding.
ARCHIVE_ERRORS: Final = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
    struct.error,
)  # fmt: skip

_POINTER: Final = re.compile(rb"version https://git-lfs\.github\.com/spec/\S+\n(?:.*\n)*?size (\d{1,18})\b")


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``.

    Raises
    ------
    TargetError
        When it cannot be read, is empty, or is larger than a protobuf message can be.
    """
    try:
        if path.stat().st_size > MESSAGE_LIMIT_BYTES:
            raise TargetError(
                f"'{path}' is larger than 2 GiB, which protobuf cannot read; keep weights out of the graph"
            )
        data = path.read_bytes()
    except OSError as error:
        raise TargetError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not data:
        raise TargetError(f"'{path}' is empty; was it copied completely?")
    refuse_pointer(path, data[:HEAD_BYTES])
    return data


def refuse_pointer(path: Path, head: bytes) -> None:
    """Refuse what Git LFS leaves in place of a file that was not fetched; ``head`` is how the file begins.

    Raises
    ------
    TargetError
        When it is such a pointer, whatever the file is called.
    """
    said = pointer_in_words(head)
    if said:
        raise TargetError(f"'{path}' is {said}")


def pointer_in_words(head: bytes) -> str | None:
    """Say what a file that begins with ``head`` is and how to get it if it is a pointer of Git LFS, else ``None``.

    >>> pointer_in_words(b"version https://git-lfs.github.com/spec/v1\\noid sha256:ab\\nsize 2500000\\n")
    'a Git LFS pointer, not the file (2.38 MiB) that it stands for; fetch that with: git lfs pull'
    """
    found = _POINTER.match(head)
    if not found:
        return None
    size = format_bytes(int(found[1]))
    return f"a Git LFS pointer, not the file ({size}) that it stands for; fetch that with: git lfs pull"


def looks_like_text(data: bytes) -> bool:
    """Tell text from protobuf bytes, which hold control characters as tags from the start.

    >>> looks_like_text(b'node { name: "a" }'), looks_like_text(bytes.fromhex("0a410a03612f62"))
    (True, False)
    """
    head = data[:HEAD_BYTES]
    cut = head if len(head) < HEAD_BYTES else head[:-3]  # the last character may be incomplete
    try:
        cut.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(head.strip()) and not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)


def parse_message(message_class: type[Message], data: bytes, path: Path | str, what: str) -> Message:
    """Parse binary ``data`` as ``message_class``; ``path`` and ``what`` (as in ``a GraphDef``) name it in errors."""
    from google.protobuf.message import DecodeError

    message: Any = message_class()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise TargetError(
            f"'{path}' is damaged: its bytes are not {what} ({_line(error)}); copy or export it again"
        ) from error
    return message  # type: ignore[no-any-return]


def parse_text(message_class: type[Message], data: bytes, path: Path | str, what: str) -> Message:
    """Parse protobuf text; fields that this schema does not know are skipped, as newer TensorFlow may write them."""
    from google.protobuf import text_format

    message: Any = message_class()
    try:
        text_format.Parse(data.decode("utf-8"), message, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise TargetError(f"'{path}' is not {what} in text form: {_line(error)}") from error
    return message  # type: ignore[no-any-return]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
