"""Edits as JSON data, and back.

An edit is an object: ``edit`` is its kind, the other keys are its fields without those that are at their default.  A
``where`` is spread out as ``ops`` and ``traced``, which are both absent where it is everywhere, and a name that Python
reserves has no underscore behind it.  Every key must be known to the kind: a misspelt one would otherwise make the
whole program of a part.

Whoever does not know a kind, which is a plug-in's or that of a newer version, keeps the edit as it is written; whoever
is to apply it reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints

from graphlens.ir import codec, edits
from graphlens.ir.codec import Coded, MismatchError, briefly
from graphlens.ir.edits import ConstantToVariable, Edit, Everywhere, Ops, OtherEdit

KIND: Final = "edit"  # the key that says what kind of edit an object is

_FREE: Any = Mapping[str, Any]

Known = TypeVar("Known", bound=Edit)


def is_edit(value: object) -> bool:
    """Whether a value is a dataclass with a kind."""
    return is_dataclass(value) and not isinstance(value, type) and isinstance(getattr(value, "kind", None), str)


@cache
def own_edits() -> Mapping[str, type[Any]]:
    """Return the edits of this package by their kinds."""
    classes: list[Any] = [one for one in vars(edits).values() if isinstance(one, type) and is_dataclass(one)]
    return {one.kind: one for one in classes if isinstance(getattr(one, "kind", None), str)}


def to_data(edit: Edit) -> dict[str, Any]:
    """Return an edit as JSON data."""
    if isinstance(edit, OtherEdit):
        return {KIND: edit.kind, **codec.encode(edit.content, _FREE)}
    data: dict[str, Any] = {KIND: edit.kind}
    for part in _parts(type(edit)):
        value = getattr(edit, part.name)
        if value is not Everywhere.EVERYWHERE and value != part.default:
            data |= _spread(value) if part.is_where else {part.key: codec.encode(value, part.hint)}
    return data


def _spread(where: Ops) -> dict[str, Any]:
    named = {"ops": where.ops or None, "traced": where.traced}
    return {key: list(names) for key, names in named.items() if names is not None}


def from_data(data: Any) -> Edit:
    """Return JSON data as an edit; one of a kind that is not known stays as it is written.

    Raises
    ------
    MismatchError
        If it is no edit, or does not fit its kind: with a key that the kind does not know, for instance.
    """
    kind = data.get(KIND) if isinstance(data, dict) else None
    if not isinstance(kind, str):
        raise MismatchError(f"is {briefly(data)}, expected an object whose '{KIND}' says what kind of edit it is")
    content = {key: value for key, value in data.items() if key != KIND}
    if kind not in own_edits():
        return OtherEdit(kind, codec.decode(_FREE, content))
    edit: Edit = _read(own_edits()[kind], content)
    return edit


def typed(edit: OtherEdit, kind: type[Known]) -> Known:
    """Return an edit that is known by what is written of it only as the dataclass ``kind``.

    Raises
    ------
    MismatchError
        If it does not fit; the message names the kind of edit and the key.
    """
    return _read(kind, codec.encode(edit.content, _FREE))


def _read(kind: type[Known], content: Mapping[str, Any]) -> Known:
    name: Any = kind.kind
    try:
        return kind(**_values(_parts(kind), _with_new_keys(name, content)))
    except (MismatchError, ValueError) as error:
        place = f"'{error.place}' " if isinstance(error, MismatchError) and error.place else ""
        raise MismatchError(f"is no '{name}': {place}{error}") from None


def _with_new_keys(kind: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys as they are called now: this one edit named its only op."""
    if kind != ConstantToVariable.kind or "op" not in content or "ops" in content:
        return content
    return {"ops": [content["op"]], **{key: value for key, value in content.items() if key != "op"}}


@dataclass(frozen=True, slots=True)
class _Part:
    """A field of an edit and its key; ``hint`` is its type where the key is there, ``default`` its value otherwise."""

    name: str
    hint: Any
    default: Any

    @property
    def key(self) -> str:
        return self.name.rstrip("_")

    @property
    def is_where(self) -> bool:
        return self.hint is Ops

    @property
    def keys(self) -> tuple[str, ...]:
        return ("ops", "traced") if self.is_where else (self.key,)


@cache
def _parts(kind: Any) -> tuple[_Part, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_part(one, hints[one.name]) for one in fields(kind))


def _part(one: Field[Any], hint: Any) -> _Part:
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    if Everywhere not in get_args(hint):
        return _Part(one.name, hint, default)
    said = reduce(or_, [part for part in get_args(hint) if part is not Everywhere])
    return _Part(one.name, said, Everywhere.EVERYWHERE if default is MISSING else default)


def _values(parts: tuple[_Part, ...], content: Mapping[str, Any]) -> dict[str, Any]:
    known = [key for part in parts for key in part.keys]
    for key in content:
        if key not in known:
            raise MismatchError(f"is no key of it{_instead(key, known)}").inside(key)
    return {part.name: _value(part, content) for part in parts}


def _instead(key: str, known: Sequence[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f", which knows {', '.join(known) or 'none'}"


def _value(part: _Part, content: Mapping[str, Any]) -> Any:
    if not any(key in content for key in part.keys):
        if part.default is MISSING:
            raise MismatchError("is missing").inside(part.keys[0])
        return part.default
    if part.is_where:
        return codec.decode(Ops, {key: content[key] for key in part.keys if key in content})
    try:
        return codec.decode(part.hint, content[part.key])
    except MismatchError as error:
        raise error.inside(part.key) from None


# -- in documents and messages -----------------------------------------------------------------------------------


def _schema(definitions: dict[str, Any]) -> dict[str, Any]:
    """Any edit: of a kind that is known here, which then has no other keys, or of another kind."""
    for kind in own_edits().values():
        definitions[kind.__name__] = _schema_of(kind, definitions)
    known = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in own_edits().values()]
    other = {"type": "string", "not": {"enum": sorted(own_edits())}}
    definitions[OtherEdit.__name__] = {
        "description": codec.description(OtherEdit),
        "type": "object",
        "properties": {KIND: other},
        "required": [KIND],
    }
    return {"anyOf": [*known, {"$ref": f"#/$defs/{OtherEdit.__name__}"}]}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    names = codec.described(tuple[str, ...], definitions)
    keys = {
        key: names if part.is_where else codec.described(part.hint, definitions)
        for part in _parts(kind)
        for key in part.keys
    }
    required = [part.key for part in _parts(kind) if part.default is MISSING and not part.is_where]
    return {
        "description": codec.description(kind),
        "type": "object",
        "properties": {KIND: {"const": kind.kind}, **keys},
        "required": [KIND, *required],
        "additionalProperties": False,
    }


AnyEdit = Annotated[Edit, Coded(to_data, from_data, _schema)]
