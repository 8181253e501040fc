"""Turn an analysis document into a file: one writer per suffix, and one way to write what it yields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphlens import workplace
from graphlens.errors import UsageError

if TYPE_CHECKING:  # whoever asks what can be written imports nothing for it
    from graphlens.ir.analysis import Document
    from graphlens.ir.dag import Stage

# Yields the content of a file in pieces, since that of a large graph is not to be in memory twice.
Reporter = Callable[["Document"], Iterable[bytes]]


def reporter_for(path: str | os.PathLike[str], stage: Stage | None = None) -> Reporter:
    """Return the reporter for the suffix of ``path``, which may be the suffix alone.

    Parameters
    ----------
    stage
        Which graph is written, by a reporter that writes one; the judged one by default.

    Raises
    ------
    UsageError
        If no report has this suffix.
    """
    suffix = _suffix(path)
    if suffix in GRAPHS:
        return partial(_graph, suffix, stage)
    if suffix not in REPORTERS:
        known = ", ".join((*REPORTERS, *GRAPHS))
        raise UsageError(f"no report is written as '{Path(path).name}'; end the file's name in {known}")
    return REPORTERS[suffix]


def holds_a_graph(path: str | os.PathLike[str]) -> bool:
    """Tell whether what is written to ``path`` is one graph of the analysis rather than a report."""
    return _suffix(path) in GRAPHS


def _suffix(path: str | os.PathLike[str]) -> str:
    name = Path(path).name
    return Path(f"report{name}" if name.startswith(".") else name).suffix.lower()


def write(document: Document, path: str | os.PathLike[str], stage: Stage | None = None) -> None:
    """Write the report that the suffix of ``path`` asks for; the file appears whole or not at all.

    Parameters
    ----------
    stage
        As in :func:`reporter_for`.

    Raises
    ------
    UsageError
        If no report has this suffix, the file cannot be written, or the document has no graph of that stage.
    """
    pieces = reporter_for(path, stage)(document)
    target = Path(path)
    try:
        with workplace.whole_file(target) as file:
            file.writelines(pieces)
    except OSError as error:
        raise UsageError(f"cannot write '{target}' ({error.strerror}); choose another place with -o") from None


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


def _graph(suffix: str, stage: Stage | None, document: Document) -> Iterator[bytes]:
    from graphlens.report.graph_files import WRITERS

    pieces = WRITERS[suffix](document, stage)
    return (piece.encode("utf-8") for piece in pieces)


# The graph of one stage with what is known of each op: GraphML, GEXF and DOT.
GRAPHS: Final = (".graphml", ".gexf", ".dot")
REPORTERS: Mapping[str, Reporter] = {".html": _html, ".json": _json, ".txt": _text}
