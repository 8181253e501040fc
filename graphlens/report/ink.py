"""What drawings and tables of one report share about devices: a tone for each, and the sizes of what crosses them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphlens.ir.analysis import Document, Figure
from graphlens.ir.devices import Copy, short_device
from graphlens.ir.op_rows import OpRows
from graphlens.units import counted, format_bytes

ON_HOST = " host memory"
# Further devices share the tones of the first ones; their names tell them apart.
TONES = 6


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """One entry of a legend: a device and its tone."""

    device: str
    tone: int


@dataclass(frozen=True, slots=True)
class Ink:
    """``tones`` number the devices by their short names; ``sizes`` are written on transfers from one op to another.

    Where the boxes of a drawing are no ops, ``lines`` are what is written in them, by their names, ``marks`` further
    classes of theirs, and ``spoken`` says to those who do not see it what is drawn.
    """

    tones: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    spoken: str = ""

    def tone(self, device: str) -> int:
        """Return the tone of a device, whichever way its name is written."""
        return self.tones.get(short_device(device), 0)

    def keys(self, figure: Figure) -> tuple[DeviceKey, ...]:
        """Return the legend of a figure; empty where all its ops are on one device, and a legend says nothing."""
        names = sorted({short_device(node.device) for node in figure.nodes if node.device}, key=_order)
        return tuple(DeviceKey(name, self.tone(name)) for name in names) if len(names) > 1 else ()


def ink_of(document: Document) -> Ink:
    """Number the devices of a document, processors of the host first: equal documents get equal tones.

    The first tone is the host's, also where the document names none of its processors.
    """
    names = sorted({short_device(name) for name in _mentioned(document) if name}, key=_order)
    first = 0 if any(_is_host(name) for name in names) else 1
    tones = {name: index % TONES for index, name in enumerate(names, first)}
    pairs: dict[tuple[str, str], list[Copy]] = {}
    for copy in document.copies:
        pairs.setdefault((copy.src, copy.dst), []).append(copy)
    return Ink(tones, {ends: crossing(copies) for ends, copies in pairs.items()})


def source_memory(copy: Copy) -> str:
    """Return whose memory the tensor comes from: ops of an accelerator have some of theirs on the host."""
    return _memory(copy.src_device, copy.kind in ("host-to-host", "host-to-device"))


def target_memory(copy: Copy) -> str:
    """Return whose memory the tensor goes to."""
    return _memory(copy.dst_device, copy.kind in ("host-to-host", "device-to-host"))


def _memory(device: str, on_host: bool) -> str:
    name = short_device(device)
    return f"{name}{ON_HOST}" if on_host and name and not _is_host(name) else name


def crossing(copies: Sequence[Copy]) -> str:
    """Write what goes over one arrow: the size of one copy, or the number of several; empty where it is not known."""
    if len(copies) > 1:
        return counted(len(copies), "copy")
    return "" if copies[0].bytes is None else format_bytes(copies[0].bytes)


def _mentioned(document: Document) -> Iterator[str | None]:
    yield from (row.name for row in document.devices)
    yield from set(OpRows.of(document.ops).column("device"))
    for copy in document.copies:
        yield from (copy.src_device, copy.dst_device)
    for finding in document.findings:
        yield from _drawn(finding.figure)
        yield from _drawn(finding.figure_after)


def _drawn(figure: Figure | None) -> Iterable[str | None]:
    return (node.device for node in figure.nodes) if figure is not None else ()


def _order(name: str) -> tuple[bool, str, int, str]:
    """Sort the host's processors first, and ``GPU:10`` after ``GPU:9``."""
    kind, _, number = name.upper().partition(":")
    return (not _is_host(name), kind, int(number) if re.fullmatch(r"[0-9]{1,9}", number) else -1, name)


def _is_host(name: str) -> bool:
    return name.upper().partition(":")[0] == "CPU"
