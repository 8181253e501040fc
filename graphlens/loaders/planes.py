"""What all readers of planes share: units, and the values of statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

PS_PER_NS: Final = 1000
XLA_KERNEL: Final = "XlaKernel"  # the type of an instruction, which is called after its module


def stat_names(plane: Any) -> Mapping[int, str]:
    """Return the names of a plane's statistics by their numbers."""
    return {key: meta.name for key, meta in plane.stat_metadata.items()}


def values(stats: Iterable[Any], names: Mapping[int, str]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of statistics, bytes left out; a text may be the name of another statistic."""
    for stat in stats:
        kind = stat.WhichOneof("value")
        if kind is not None and kind != "bytes_value":
            value = getattr(stat, kind)
            yield names.get(stat.metadata_id, ""), names.get(value, "") if kind == "ref_value" else value


def bytes_of(stats: Iterable[Any], names: Mapping[int, str], name: str) -> Iterator[bytes]:
    """Yield the bytes that are the value of the statistic ``name``."""
    for stat in stats:
        if names.get(stat.metadata_id) == name and stat.bytes_value:
            yield stat.bytes_value
