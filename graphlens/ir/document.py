"""The analysis document as JSON: writing, typed reading, upgrades of old versions, and the JSON Schema.

Everything is derived from the dataclasses of :mod:`graphlens.ir.analysis` by :mod:`graphlens.ir.codec`, so a new field
needs no change here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from graphlens.errors import GraphLensError, TargetError
from graphlens.ir import codec
from graphlens.ir.analysis import JUDGE, SCHEMA_VERSION, Document
from graphlens.ir.codec import MismatchError, Upgrade, briefly
from graphlens.ir.dag import Dag
from graphlens.ir.failure import AnalysisError
from graphlens.ir.op_rows import OpRows
from graphlens.ir.row_codec import row_texts, rows_of

SCHEMA_ID = f"graphlens/analysis.v{SCHEMA_VERSION}.json"

# Version n -> the function that turns a document of version n into one of version n + 1.
UPGRADES: Mapping[int, Upgrade] = {}

OPS: Final = "ops"  # the section that is written and read a column at a time
DAGS: Final = "dags"

_dump: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


# -- the public verbs ----------------------------------------------------------------------------------------


def to_json(document: Document) -> str:
    """Write ``document`` as JSON, in the order of its fields, with a line for each op, finding, rule, ….

    A number that is not finite becomes ``null``: it is not known, and JSON has no word for it.

    Raises
    ------
    TypeError
        If a value cannot be said in JSON; the message says where it is.
    """
    return "".join(json_pieces(document))


def json_pieces(document: Document) -> Iterator[str]:
    """Yield the text of :func:`to_json` piece by piece, so that a million ops are never one text in memory.

    Raises
    ------
    TypeError
        As :func:`to_json` does, before or between the pieces.
    """
    document = _with_graphs(document)
    try:
        yield from _pieces(codec.encode(replace(document, ops=(), dags=())), document)
    except MismatchError as error:
        raise TypeError(f"{error.place} {error}") from None


def _with_graphs(document: Document) -> Document:
    """Return the document with its graphs, which are made now; where that fails, with an error in their place."""
    try:
        return replace(document, dags=tuple(document.dags))
    except GraphLensError as error:
        return replace(document, dags=(), errors=(*document.errors, AnalysisError(JUDGE, str(error))))


def _pieces(data: dict[str, Any], document: Document) -> Iterator[str]:
    """Lay out lines that diff well; ``data`` is the document without its two largest sections."""
    begin = "{\n"
    for name, value in data.items():
        yield f'{begin} "{name}": '
        begin = ",\n"
        if name == OPS and document.ops:
            yield from _listed(_ops(OpRows.of(document.ops)))
        elif name == DAGS and document.dags:
            yield from _listed(_dags(document.dags))
        elif isinstance(value, list) and value:
            yield from _listed(map(_dump, value))
        else:
            yield _dump(value)
    yield "\n}\n"


def _listed(texts: Iterable[str]) -> Iterator[str]:
    begin = "[\n  "
    for text in texts:
        yield begin
        yield text
        begin = ",\n  "
    yield "\n ]"


def _ops(rows: OpRows) -> Iterator[str]:
    """Yield the rows, several in one text: one for each would cost more than to make them."""
    try:
        for texts in row_texts(rows):
            yield ",\n  ".join(texts)
    except MismatchError as error:
        raise error.inside(OPS) from None


def _dags(dags: Sequence[Dag]) -> Iterator[str]:
    """Yield the graphs one by one, each column on a line of its own."""
    for number, dag in enumerate(dags):
        try:
            columns = codec.encode(dag)
        except MismatchError as error:
            raise error.inside(number).inside(DAGS) from None
        yield "{" + ",\n   ".join(f'"{name}": {_dump(column)}' for name, column in columns.items()) + "}"


def from_json(text: str, upgrades: Mapping[int, Upgrade] = UPGRADES) -> Document:
    """Read a document that this or an earlier version of GraphLens wrote.

    Fields that this version does not know are left out, because fields are added without a new version.

    Raises
    ------
    TargetError
        If the text is no analysis, or one of a newer schema version.
    """
    data = _current(_parse(text), upgrades)
    try:
        return _document(data)
    except MismatchError as error:
        raise TargetError(
            f"not a GraphLens analysis: {error.place or 'the document'} {error}; "
            "write it again with `graphlens analyze TARGET -o FILE.json`"
        ) from None


def _document(data: dict[str, Any]) -> Document:
    ops = data.pop(OPS, [])
    document = codec.decode(Document, data)
    try:
        return replace(document, ops=rows_of(ops))
    except MismatchError as error:
        raise error.inside(OPS) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document, derived from its dataclasses."""
    return codec.schema(Document, SCHEMA_ID, "GraphLens analysis", SCHEMA_VERSION)


# -- versions ------------------------------------------------------------------------------------------------


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise TargetError(f"not a GraphLens analysis: the text is no JSON ({error})") from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise TargetError("not a GraphLens analysis: the JSON has no schema_version; give a file written by GraphLens")
    return data


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _current(data: dict[str, Any], upgrades: Mapping[int, Upgrade]) -> dict[str, Any]:
    version = data["schema_version"]
    if type(version) is not int or version < 1:
        raise TargetError(f"not a GraphLens analysis: its schema_version is {briefly(version)}")
    if version > SCHEMA_VERSION:
        raise TargetError(
            f"the analysis has schema version {version} and this GraphLens reads up to {SCHEMA_VERSION}; "
            "update GraphLens"
        )
    for old in range(version, SCHEMA_VERSION):
        if old not in upgrades:
            raise TargetError(f"schema version {old} can no longer be read; analyze the target again")
        data = upgrades[old](data)
    return data
