"""``capture.json``: read and brought to the current version, written, and refused where a value is a wrong one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir import codec
from graphlens.ir.capture import CAPTURE_VERSION, Manifest
from graphlens.ir.codec import MismatchError, Upgrade
from graphlens.loaders.capture.parts import MANIFEST

SCHEMA_ID: Final = f"graphlens/capture.v{CAPTURE_VERSION}.json"


def _with_programs(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew one program, whose fields stay where they are; a field could be null for being absent."""
    known = {name: value for name, value in data.items() if value is not None}
    return {**known, "schema_version": 2}


# version -> what turns a manifest of that version into one of the next.
UPGRADES: Final[Mapping[int, Upgrade]] = {1: _with_programs}


def read_manifest(raw: bytes, path: Path) -> Manifest:
    """Return the manifest in ``raw``; ``path`` names the capture in errors.

    Raises
    ------
    TargetError
        When it is damaged, was written by a newer GraphLens, or has a field of another kind than recorders write.
    """
    try:
        return codec.decode(Manifest, upgraded(raw, path))
    except MismatchError as error:
        where = f"'{error.place}' in its {MANIFEST}" if error.place else f"its {MANIFEST}"
        raise TargetError(f"'{path}' is damaged: {where} {error}; record it again") from error


def upgraded(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the manifest in ``raw`` as data of the current version; its values are not looked at.

    Raises
    ------
    TargetError
        When it is no manifest, or was written by a newer GraphLens.
    """
    try:
        data = json.loads(raw)
        version = data["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TargetError(f"'{path}' is no capture: its {MANIFEST} cannot be read ({error})") from error
    if type(version) is not int or version < 1:
        raise TargetError(f"'{path}' is no capture: its schema_version is {codec.briefly(version)}")
    if version > CAPTURE_VERSION:
        raise TargetError(
            f"'{path}' was written by a newer GraphLens (schema {version}, this one reads {CAPTURE_VERSION}); "
            "update graphlens-tf"
        )
    for old in range(version, CAPTURE_VERSION):
        data = UPGRADES[old](data)
    return data  # type: ignore[no-any-return]


def to_bytes(manifest: Manifest) -> bytes:
    """Return ``manifest`` as the content of ``capture.json``.

    Raises
    ------
    TypeError
        When it holds a value that no reader would take.
    """
    try:
        data = codec.encode(manifest)
        codec.decode(Manifest, data)
    except MismatchError as error:
        raise TypeError(f"a capture's manifest: {error.place} {error}") from error
    return json.dumps(data, indent=1).encode()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the manifest, derived from its dataclasses."""
    return codec.schema(Manifest, SCHEMA_ID, "GraphLens capture", CAPTURE_VERSION)
