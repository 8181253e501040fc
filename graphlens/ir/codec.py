"""Frozen dataclasses as JSON and back, and their JSON Schema, all derived from the classes.

Arrays are read back as tuples, objects without a class of their own as dictionaries.  A class guards its own values by
raising ``ValueError``.  What is written to be read some day by another version leaves out fields that the class does
not know, because fields are added without a new version, and numbers that are not finite, for which JSON has no word.
Between two processes of one version both ends are ``exact``: every field is known to both, and every number arrives.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, partial
from inspect import getdoc
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Codec = Callable[[Any], Any]
# Version n -> the function that turns a document of version n into one of version n + 1.
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

Record = TypeVar("Record")

# Values within values where a record leaves open what they are.  What rules tell has three or four; whoever shows them
# goes down one call at a time.
DEEPEST: Final = 50

_JSON_NAMES: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Coded:
    """How values say themselves that are no plain records: the field's type is ``Annotated[Type, Coded(…)]``.

    Attributes
    ----------
    encode, decode
        To JSON data, and back; the latter raises a ``MismatchError``.
    schema
        Returns the JSON Schema, and adds to the definitions what that refers to.
    """

    encode: Codec
    decode: Codec
    schema: Callable[[dict[str, Any]], dict[str, Any]]


def at_least(kind: type[int] | type[float], least: float, *, above: bool = False) -> Coded:
    """Return how numbers say themselves that are ``least`` or more, or ``above`` it."""
    key, words = ("exclusiveMinimum", f"above {least:g}") if above else ("minimum", f"{least:g} or more")

    def decode_bounded(value: Any) -> Any:
        number = _decode_scalar(kind, False, value)
        if number < least or (above and number == least):
            raise MismatchError(f"is {briefly(value)}, expected {words}")
        return number

    encode_number = _encode_int if kind is int else float
    return Coded(encode_number, decode_bounded, lambda _: {"type": _JSON_NAMES[kind], key: least})


BEYOND_FLOATS = 1 << 1000  # whoever shows a number divides it by its unit, and adds up thousands of them


class MismatchError(Exception):
    """A value does not fit its field; ``path`` grows while the error climbs out of the document."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def inside(self, key: str | int) -> MismatchError:
        """Return the error as seen from the record, array or mapping around it."""
        part = f"[{key}]" if isinstance(key, int) else f".{key}"
        return MismatchError(str(self), part + self.path)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def place(self) -> str:
        """Where it is, as ``findings[1].severity``; empty for the document as a whole."""
        return self.path.lstrip(".")


# -- the three public verbs ----------------------------------------------------------------------------------


def encode(record: Any, hint: Any = None, *, exact: bool = False) -> Any:
    """Return a dataclass as JSON data, in the order of its fields; with a ``hint``, a value of that type.

    A number that is not finite becomes ``None`` where the field allows it: it is not known, and JSON has no word for
    it.  An ``exact`` one stays, and Python's ``json`` has words of its own.

    Raises
    ------
    MismatchError
        If a value cannot be said in JSON.
    """
    kind: Any = type(record) if hint is None else hint  # any class is hashable, which mypy does not know
    return _encoder(kind, exact)(record)


def decode(kind: type[Record], data: Any, *, exact: bool = False) -> Record:
    """Return JSON data as the dataclass ``kind``, or as a value of that type.

    Raises
    ------
    MismatchError
        If a value does not fit its field, a field without a default is missing, or, of ``exact`` data, there are fields
        that the class does not know.
    """
    hint: Any = kind
    record: Record = _decoder(hint, exact)(data)
    return record


def schema(kind: type, identity: str, title: str, version: int) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of documents whose root is ``kind``, in one version."""
    definitions: dict[str, Any] = {}
    described(kind, definitions)
    root = definitions.pop(kind.__name__)
    root["properties"]["schema_version"] = {"const": version}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identity,
        "title": title,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


# -- types ---------------------------------------------------------------------------------------------------

_Shape = tuple[
    Literal["free", "scalar", "record", "optional", "choice", "mapping", "sequence", "fixed", "coded"], tuple[Any, ...]
]


def _shape(hint: Any) -> _Shape:
    """Say what kind of type ``hint`` is, and of which types it is made."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return "coded", (args[1],)
    if origin in (UnionType, Union):
        return "optional", tuple(part for part in args if part is not NoneType)
    if origin is tuple:
        return ("sequence", args[:1]) if args[-1] is Ellipsis else ("fixed", args)
    simple: Mapping[Any, _Shape] = {
        Literal: ("choice", args),
        Mapping: ("mapping", args[1:]),
        Sequence: ("sequence", args[:1]),
    }
    if origin in simple:
        return simple[origin]
    if hint is Any:
        return "free", ()
    return ("record" if is_dataclass(hint) else "scalar"), (hint,)


def _plain(hint: Any) -> frozenset[type]:
    """Return the types whose values are the same in JSON and in Python, of a scalar or one that may be ``None``.

    Not those of numbers with a fraction: they are turned into such, and may be none.
    """
    shape, inner = _shape(hint)
    if shape == "optional":
        plain = _plain(inner[0])
        return plain | {NoneType} if plain else plain
    return frozenset({hint}) if shape == "scalar" and hint is not float else frozenset()


@cache
def _typed_fields(kind: type) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _each(codec: Codec, items: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Apply ``codec`` to the values of ``(key, value)`` pairs; an error learns the key it happened under."""
    result = []
    for key, value in items:
        try:
            result.append(codec(value))
        except MismatchError as error:
            raise error.inside(key) from None
    return result


# -- writing -------------------------------------------------------------------------------------------------


@cache
def _encoder(hint: Any, exact: bool) -> Codec:
    shape, inner = _shape(hint)
    codec: Codec = _same
    if shape == "coded":
        codec = inner[0].encode
    elif shape == "free":
        codec = partial(_encode_free, exact)
    elif shape == "record":
        codec = partial(_encode_record, [(f.name, _encoder(part, exact)) for f, part in _typed_fields(inner[0])])
    elif shape == "optional":
        codec = partial(_encode_optional, _encoder(inner[0], exact), exact)
    elif shape == "sequence":
        codec = partial(_encode_sequence, _encoder(inner[0], exact), _plain(inner[0]))
    elif shape == "fixed":
        codec = partial(_encode_fixed, [_encoder(part, exact) for part in inner])
    elif shape == "mapping":
        codec = partial(_encode_mapping, _encoder(inner[0], exact))
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
        raise MismatchError(f"is {value!r}, expected a whole number") from None


def _encode_record(parts: list[tuple[str, Codec]], record: Any) -> dict[str, Any]:
    result = {}
    for name, encode in parts:
        try:
            result[name] = encode(getattr(record, name))
        except MismatchError as error:
            raise error.inside(name) from None
    return result


def _encode_optional(encode: Codec, exact: bool, value: Any) -> Any:
    return None if value is None or (not exact and _holds_no_number(value)) else encode(value)


def _holds_no_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_holds_no_number(item) for item in value)
    return isinstance(value, float) and not math.isfinite(value)


def _encode_sequence(encode: Codec, plain: frozenset[type], values: Any) -> list[Any]:
    items = list(values)
    if set(map(type, items)) <= plain:  # a column of a large graph: it is JSON already
        return items
    return _each(encode, enumerate(items))


def _encode_fixed(encoders: list[Codec], values: Any) -> list[Any]:
    return [encode(value) for encode, value in zip(encoders, values, strict=True)]


def _encode_mapping(encode: Codec, mapping: Mapping[Any, Any]) -> dict[str, Any]:
    for key in mapping:
        if not isinstance(key, str):
            raise MismatchError(f"has the key {key!r}, and JSON has no other keys than text")
    return dict(zip(mapping, _each(encode, mapping.items()), strict=True))


def _encode_free(exact: bool, value: Any) -> Any:
    result = value
    if isinstance(value, (list, tuple)):
        result = _each(partial(_encode_free, exact), enumerate(value))
    elif isinstance(value, Mapping):
        result = _encode_mapping(partial(_encode_free, exact), value)
    elif isinstance(value, Integral) and not isinstance(value, bool):
        result = int(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        result = float(value) if exact or math.isfinite(value) else None
    elif not (value is None or isinstance(value, (str, bool))):
        raise MismatchError(f"is a {type(value).__name__}, which JSON cannot say")
    return result


# -- reading -------------------------------------------------------------------------------------------------


@cache
def _decoder(hint: Any, exact: bool) -> Codec:
    shape, inner = _shape(hint)
    codec: Codec = _decode_free
    if shape == "coded":
        codec = inner[0].decode
    elif shape == "scalar":
        codec = partial(_decode_scalar, hint, exact)
    elif shape == "record":
        parts = [(f.name, _decoder(part, exact), _is_required(f)) for f, part in _typed_fields(inner[0])]
        codec = partial(_decode_record, inner[0], parts, exact)
    elif shape == "optional":
        codec = partial(_decode_optional, _decoder(inner[0], exact))
    elif shape == "choice":
        codec = partial(_decode_choice, inner)
    elif shape == "mapping":
        codec = partial(_decode_mapping, _decoder(inner[0], exact))
    elif shape == "sequence":
        codec = partial(_decode_sequence, _decoder(inner[0], exact), _plain(inner[0]))
    elif shape == "fixed":
        codec = partial(_decode_fixed, [_decoder(part, exact) for part in inner])
    return codec


def _decode_scalar(kind: Any, exact: bool, value: Any) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise MismatchError(f"is {briefly(value)}, expected {_JSON_NAMES[kind]}")
    if kind is int and abs(value) >= BEYOND_FLOATS:
        raise MismatchError(f"is {briefly(value)}, expected a number that a float can hold")
    return _decode_float(value) if kind is float and not exact else value


def _decode_float(value: float) -> float:
    """Refuse ``NaN``, which is no JSON, and numbers beyond all floats (``1e999``), which Python reads as infinity."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MismatchError(f"is {briefly(value)}, expected a finite number")
    return number


def _decode_choice(choices: tuple[str, ...], value: Any) -> Any:
    if value not in choices:
        raise MismatchError(f"is {briefly(value)}, expected one of {', '.join(choices)}")
    return value


def _decode_optional(decode: Codec, value: Any) -> Any:
    return None if value is None else decode(value)


def _decode_record(kind: type, parts: list[tuple[str, Codec, bool]], exact: bool, value: Any) -> Any:
    _expect(dict, "object", value)
    if exact:
        _refuse_unknown(value, [name for name, _, _ in parts])
    known = {}
    for name, decode, required in parts:
        if name in value:
            try:
                known[name] = decode(value[name])
            except MismatchError as error:
                raise error.inside(name) from None
        elif required:
            raise MismatchError("is missing").inside(name)
    try:
        return kind(**known)
    except ValueError as error:
        raise MismatchError(str(error)) from None


def _refuse_unknown(value: Mapping[str, Any], names: Iterable[str]) -> None:
    unknown = next((key for key in value if key not in names), None)
    if unknown is not None:
        raise MismatchError("is not known").inside(unknown)


def _decode_sequence(decode: Codec, plain: frozenset[type], value: Any) -> tuple[Any, ...]:
    _expect(list, "array", value)
    if set(map(type, value)) <= plain:
        return tuple(value)
    return tuple(_each(decode, enumerate(value)))


def _decode_fixed(decoders: list[Codec], value: Any) -> tuple[Any, ...]:
    _expect(list, "array", value)
    if len(value) != len(decoders):
        raise MismatchError(f"has {len(value)} items, expected {len(decoders)}")
    return tuple(_each(lambda pair: pair[0](pair[1]), enumerate(zip(decoders, value, strict=True))))


def _decode_mapping(decode: Codec, value: Any) -> dict[str, Any]:
    _expect(dict, "object", value)
    return dict(zip(value, _each(decode, value.items()), strict=True))


def _decode_free(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise MismatchError(f"is nested more than {DEEPEST} times")
    if isinstance(value, list):
        return tuple([_decode_free(item, depth + 1) for item in value])
    if isinstance(value, dict):
        return {key: _decode_free(item, depth + 1) for key, item in value.items()}
    return value


def _expect(kind: type, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise MismatchError(f"is {briefly(value)}, expected {name}")


def briefly(value: Any) -> str:
    """Return a JSON value for a message in one line."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested without end"
    return text if len(text) <= 40 else text[:37] + "..."


# -- schema --------------------------------------------------------------------------------------------------


def described(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of values of one type; ``definitions`` takes those of the records that it refers to."""
    shape, inner = _shape(hint)
    if shape == "record":
        return _record_schema(inner[0], definitions)
    if shape == "coded":
        said: dict[str, Any] = inner[0].schema(definitions)
        return said
    if shape == "scalar":
        return {"type": _JSON_NAMES[hint]}
    if shape == "choice":
        return {"enum": list(inner)}
    parts = [described(part, definitions) for part in inner]
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
            "description": description(kind),
            "type": "object",
            "properties": {f.name: described(hint, definitions) for f, hint in _typed_fields(kind)},
            "required": [f.name for f, _ in _typed_fields(kind) if _is_required(f)],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def description(kind: type) -> str:
    """Return the first paragraph of a class's docstring as one line."""
    return " ".join((getdoc(kind) or "").split("\n\n")[0].split()).replace("``", "`")
