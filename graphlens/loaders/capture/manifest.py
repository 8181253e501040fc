"""``capture.json``: read, brought to the current version, and refused where a field is not what it has to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.loaders.capture.parts import MANIFEST, SCHEMA_VERSION

# version -> what turns a manifest of that version into one of the next.  None is needed yet.
UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def read_manifest(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the manifest in ``raw``; ``path`` names the capture in errors.

    Raises
    ------
    TargetError
        When it is damaged, was written by a newer GraphLens, or has a field of another kind than recorders write.
    """
    try:
        manifest = json.loads(raw)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TargetError(f"'{path}' is no capture: its {MANIFEST} cannot be read ({error})") from error
    if not _is_integer(version) or version < 1:
        raise TargetError(f"'{path}' is no capture: its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise TargetError(
            f"'{path}' was written by a newer GraphLens (schema {version}, this one reads {SCHEMA_VERSION}); "
            "update graphlens-tf"
        )
    for old in range(version, SCHEMA_VERSION):
        manifest = UPGRADES[old](manifest)
    _refuse_odd_fields(manifest, path)
    return manifest  # type: ignore[no-any-return]


def _refuse_odd_fields(manifest: Mapping[str, Any], path: Path) -> None:
    for name, fits in _FIELDS.items():
        value = manifest.get(name)
        if value is not None and not fits(value):
            raise TargetError(f"'{path}' is damaged: '{name}' in its {MANIFEST} is not what a recording leaves")


# -- kinds of fields ----------------------------------------------------------------------------------------------

Check = Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _list_of(fits: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _mapping_of(fits: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _is_target(value: Any) -> bool:
    return _is_mapping(value) and all(item is None or _is_text(item) for item in value.values())


def _is_variable(value: Any) -> bool:
    shape = value.get("shape") if _is_mapping(value) else ()
    return shape is None or (isinstance(shape, list) and all(size is None or _is_integer(size) for size in shape))


def _is_roof(value: Any) -> bool:
    return (
        _is_mapping(value)
        and all(_is_rate(value.get(name)) for name in ("flops_per_s", "bytes_per_s"))
        and all(_is_text(value.get(name, "")) for name in ("dtype", "device"))
        and (value.get("threads") is None or _is_integer(value["threads"]))
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_duration(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


_FIELDS: Final[Mapping[str, Check]] = {
    "target": _is_target,
    "environment": _is_mapping,
    "traced_root": _is_text,
    "variables": _mapping_of(_is_variable),
    "inputs": _list_of(_is_mapping),
    "hosts": _list_of(_is_mapping),
    "unprofiled_ns": _list_of(_is_integer),
    "empty_call_ns": _is_integer,
    "profiled_s": _is_duration,
    "stage_seconds": _mapping_of(_is_duration),
    "profiled_steps": _is_integer,
    "roof": _is_roof,
    "executed": _list_of(_is_text),
    "executed_root_arguments": _mapping_of(_is_variable),
    "static_reason": _is_text,
    "training": _is_truth,
    "trust": _is_truth,
    "notes": _list_of(_is_text),
    "errors": _list_of(_is_mapping),
    "stages_done": _list_of(_is_text),
}
