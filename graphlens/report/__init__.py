"""Turn an analysis document into bytes: one reporter per file suffix, and one way to write a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from graphlens.errors import UsageError
from graphlens.ir.analysis import Document

Reporter = Callable[[Document], bytes]


def reporter_for(path: str | os.PathLike[str]) -> Reporter:
    """Return the reporter for the suffix of ``path``, which may be the suffix alone.

    Raises
    ------
    UsageError
        If no report has this suffix.
    """
    name = Path(path).name
    suffix = Path(f"report{name}" if name.startswith(".") else name).suffix.lower()
    if suffix not in REPORTERS:
        raise UsageError(f"no report is written as '{name}'; end the file's name in {', '.join(REPORTERS)}")
    return REPORTERS[suffix]


def write(document: Document, path: str | os.PathLike[str]) -> None:
    """Write the report that the suffix of ``path`` asks for; the file appears whole or not at all.

    Raises
    ------
    UsageError
        If no report has this suffix, or the file cannot be written.
    """
    content = reporter_for(path)(document)
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UsageError(f"cannot write '{target}' ({error.strerror}); choose another place with -o") from None


# Each reporter imports its libraries when it is called, so that choosing one costs nothing.


def _html(document: Document) -> bytes:
    from graphlens.report.html import render

    return render(document).encode("utf-8", "replace")


def _json(document: Document) -> bytes:
    from graphlens.ir.document import to_json

    return to_json(document).encode("utf-8", "backslashreplace")


def _text(document: Document) -> bytes:
    from graphlens.report.terminal import render

    return render(document).encode("utf-8", "replace")


REPORTERS: Mapping[str, Reporter] = {".html": _html, ".json": _json, ".txt": _text}
