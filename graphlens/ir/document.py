"""The analysis document as JSON: writing, typed reading, upgrades of old versions, and the JSON Schema.

Everything is derived from the dataclasses of :mod:`graphlens.ir.analysis`, so a new field needs no change
here.  Arrays are read back as tuples, objects without a class of their own as dictionaries.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from inspect import getdoc
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from graphlens.errors import TargetError
from graphlens.ir.analysis import SCHEMA_VERSION, Document

SCHEMA_ID = f"graphlens/analysis.v{SCHEMA_VERSION}.json"

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
Codec = Callable[[Any], Any]

# Version n -> the function that turns a document of version n into one of version n + 1.
UPGRADES: Mapping[int, Upgrade] = {}

_JSON_NAMES: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


class _MismatchError(Exception):
    """A value does not fit its field; ``path`` grows while the error climbs out of the document."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def inside(self, key: str | int) -> _MismatchError:
        part = f"[{key}]" if isinstance(key, int) else f".{key}"
        return _MismatchError(str(self), part + self.path)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def place(self) -> str:
        return self.path.lstrip(".") or "the document"


# -- the three public verbs ----------------------------------------------------------------------------------


def to_json(document: Document) -> str:
    """Write ``document`` as JSON, in the order of its fields, with a line for each op, finding, rule, ….

    A number that is not finite becomes ``null``: it is not known, and JSON has no word for it.

    Raises
    ------
    TypeError
        If a value cannot be said in JSON; the message says where it is.
    """
    try:
        data = _encoder(Document)(document)
    except _MismatchError as error:
        raise TypeError(f"{error.place} {error}") from None
    return _laid_out(data)


def _laid_out(data: dict[str, Any]) -> str:
    """Lay out lines that diff well, by the fast encoder (``indent`` would take the slow one)."""
    dump = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    lines = []
    for name, value in data.items():
        items = ",\n  ".join(map(dump, value)) if isinstance(value, list) else ""
        lines.append(f' "{name}": [\n  {items}\n ]' if items else f' "{name}": {dump(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


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
        document: Document = _decoder(Document)(data)
    except _MismatchError as error:
        raise TargetError(
            f"not a GraphLens analysis: {error.place} {error}; "
            "write it again with `graphlens analyze TARGET -o FILE.json`"
        ) from None
    return document


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document, derived from its dataclasses."""
    definitions: dict[str, Any] = {}
    _schema(Document, definitions)
    root = definitions.pop("Document")
    root["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "GraphLens analysis",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


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
        raise TargetError(f"not a GraphLens analysis: its schema_version is {_briefly(version)}")
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


# -- types ---------------------------------------------------------------------------------------------------

_Shape = tuple[
    Literal["free", "scalar", "record", "optional", "choice", "mapping", "sequence", "fixed"], tuple[Any, ...]
]


def _shape(hint: Any) -> _Shape:
    """Say what kind of type ``hint`` is, and of which types it is made."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return "optional", tuple(part for part in args if part is not NoneType)
    if origin is tuple:
        return ("sequence", args[:1]) if args[-1] is Ellipsis else ("fixed", args)
    simple: Mapping[Any, _Shape] = {Literal: ("choice", args), Mapping: ("mapping", args[1:])}
    if origin in simple:
        return simple[origin]
    if hint is Any:
        return "free", ()
    return ("record" if is_dataclass(hint) else "scalar"), (hint,)


@cache
def _typed_fields(kind: type) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _each(codec: Codec, items: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Apply ``codec`` to the values of ``(key, value)`` pairs; an error learns the key it happened under."""
    result = []
    for key, value in items:
        try:
            result.append(codec(value))
        except _MismatchError as error:
            raise error.inside(key) from None
    return result


# -- writing -------------------------------------------------------------------------------------------------


@cache
def _encoder(hint: Any) -> Codec:
    shape, inner = _shape(hint)
    codec: Codec = _same
    if shape == "free":
        codec = _encode_free
    elif shape == "record":
        codec = partial(_encode_record, [(f.name, _encoder(part)) for f, part in _typed_fields(inner[0])])
    elif shape == "optional":
        codec = partial(_encode_optional, _encoder(inner[0]))
    elif shape in ("sequence", "fixed"):
        codec = partial(_encode_sequence, _encoder(inner[0]))
    elif shape == "mapping":
        codec = partial(_encode_mapping, _encoder(inner[0]))
    elif hint is int:
        codec = _encode_int
    elif hint is float:
        codec = float
    return codec


def _same(value: Any) -> Any:
    return value


def _encode_int(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise _MismatchError(f"is {value!r}, expected a whole number") from None


def _encode_record(parts: list[tuple[str, Codec]], record: Any) -> dict[str, Any]:
    result = {}
    for name, encode in parts:
        try:
            result[name] = encode(getattr(record, name))
        except _MismatchError as error:
            raise error.inside(name) from None
    return result


def _encode_optional(encode: Codec, value: Any) -> Any:
    return None if value is None or _holds_no_number(value) else encode(value)


def _holds_no_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_holds_no_number(item) for item in value)
    return isinstance(value, float) and not math.isfinite(value)


def _encode_sequence(encode: Codec, values: Any) -> list[Any]:
    return _each(encode, enumerate(values))


def _encode_mapping(encode: Codec, mapping: Mapping[Any, Any]) -> dict[str, Any]:
    for key in mapping:
        if not isinstance(key, str):
            raise _MismatchError(f"has the key {key!r}, and JSON has no other keys than text")
    return dict(zip(mapping, _each(encode, mapping.items()), strict=True))


def _encode_free(value: Any) -> Any:
    result = value
    if isinstance(value, (list, tuple)):
        result = _encode_sequence(_encode_free, value)
    elif isinstance(value, Mapping):
        result = _encode_mapping(_encode_free, value)
    elif isinstance(value, Integral) and not isinstance(value, bool):
        result = int(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        result = float(value) if math.isfinite(value) else None
    elif not (value is None or isinstance(value, (str, bool))):
        raise _MismatchError(f"is a {type(value).__name__}, which JSON cannot say")
    return result


# -- reading -------------------------------------------------------------------------------------------------


@cache
def _decoder(hint: Any) -> Codec:
    shape, inner = _shape(hint)
    codec: Codec = _decode_free
    if shape == "scalar":
        codec = partial(_decode_scalar, hint)
    elif shape == "record":
        parts = [(f.name, _decoder(part), _is_required(f)) for f, part in _typed_fields(inner[0])]
        codec = partial(_decode_record, inner[0], parts)
    elif shape == "optional":
        codec = partial(_decode_optional, _decoder(inner[0]))
    elif shape == "choice":
        codec = partial(_decode_choice, inner)
    elif shape == "mapping":
        codec = partial(_decode_mapping, _decoder(inner[0]))
    elif shape in ("sequence", "fixed"):
        length = len(inner) if shape == "fixed" else None
        codec = partial(_decode_sequence, _decoder(inner[0]), length)
    return codec


def _decode_scalar(kind: type, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _MismatchError(f"is {_briefly(value)}, expected {_JSON_NAMES[kind]}")
    return value


def _decode_choice(choices: tuple[str, ...], value: Any) -> Any:
    if value not in choices:
        raise _MismatchError(f"is {_briefly(value)}, expected one of {', '.join(choices)}")
    return value


def _decode_optional(decode: Codec, value: Any) -> Any:
    return None if value is None else decode(value)


def _decode_record(kind: type, parts: list[tuple[str, Codec, bool]], value: Any) -> Any:
    _expect(dict, "object", value)
    known = {}
    for name, decode, required in parts:
        if name in value:
            try:
                known[name] = decode(value[name])
            except _MismatchError as error:
                raise error.inside(name) from None
        elif required:
            raise _MismatchError("is missing").inside(name)
    return kind(**known)


def _decode_sequence(decode: Codec, length: int | None, value: Any) -> tuple[Any, ...]:
    _expect(list, "array", value)
    if length is not None and len(value) != length:
        raise _MismatchError(f"has {len(value)} items, expected {length}")
    return tuple(_each(decode, enumerate(value)))


def _decode_mapping(decode: Codec, value: Any) -> dict[str, Any]:
    _expect(dict, "object", value)
    return dict(zip(value, _each(decode, value.items()), strict=True))


def _decode_free(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode_free(item) for item in value)
    if isinstance(value, dict):
        return {key: _decode_free(item) for key, item in value.items()}
    return value


def _expect(kind: type, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise _MismatchError(f"is {_briefly(value)}, expected {name}")


def _briefly(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


# -- schema --------------------------------------------------------------------------------------------------


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    shape, inner = _shape(hint)
    if shape == "record":
        return _record_schema(inner[0], definitions)
    if shape == "scalar":
        return {"type": _JSON_NAMES[hint]}
    if shape == "choice":
        return {"enum": list(inner)}
    parts = [_schema(part, definitions) for part in inner]
    made: Mapping[str, dict[str, Any]] = {
        "free": {},
        "optional": {"anyOf": [*parts, {"type": "null"}]},
        "mapping": {"type": "object", "additionalProperties": parts[0] if parts else {}},
        "sequence": {"type": "array", "items": parts[0] if parts else {}},
        "fixed": {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)},
    }
    return made[shape]


def _record_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # holds the place while the fields are described
        definitions[kind.__name__] = {
            "description": " ".join((getdoc(kind) or "").split("\n\n")[0].split()).replace("``", "`"),
            "type": "object",
            "properties": {f.name: _schema(hint, definitions) for f, hint in _typed_fields(kind)},
            "required": [f.name for f, _ in _typed_fields(kind) if _is_required(f)],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}
