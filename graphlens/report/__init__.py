"""Turn an analysis document into a file: one reporter per suffix, and one way to write what it yields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from graphlens.errors import UsageError
from graphlens.ir.analysis import Document

# Yields the content of a file in pieces, since that of a large graph is not to be in memory twice.
Reporter = Callable[[Document], Iterable[bytes]]


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
    pieces = reporter_for(path)(document)
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.writelines(pieces)
        os.replace(unfinished, target)
    except OSError as error:
        raise UsageError(f"cannot write '{target}' ({error.strerror}); choose another place with -o") from None
    finally:
        unfinished.unlink(missing_ok=True)  # it is there only if something went wrong


# Each reporter imports its libraries when it is called, so that choosing one costs nothing.


def _html(document: Document) -> Iterator[bytes]:
    from graphlens.report.html import render

    yield render(document).encode("utf-8", "replace")


def _json(document: Document) -> Iterator[bytes]:
    from graphlens.ir.document import json_pieces

    return (piece.encode("utf-8", "backslashreplace") for piece in json_pieces(document))


def _text(document: Document) -> Iterator[bytes]:
    from graphlens.report.terminal import render

    yield render(document).encode("utf-8", "replace")


REPORTERS: Mapping[str, Reporter] = {".html": _html, ".json": _json, ".txt": _text}
