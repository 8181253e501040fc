"""What the texts on a profile's events say: node and op type, what a kernel belongs to, what a copy moves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from graphlens.ir.run import CopyDirection

# Names that look like `node:Op` and are none, or that never matter.
_NEVER_OPS = re.compile(r"::|^\$|^EagerLocalExecute: |^end: |ThreadpoolListener|KernelAndDeviceFunc|\.py\b|\s")
_OP_TYPE = re.compile(r"^[A-Za-z_][\w>.-]*$")

_LEVEL: Final = "::"  # between the annotations of a stack, the outermost first
_METADATA: Final = "#"  # around the metadata of one annotation: `node:Op#key=value,key=value#`
_EDGE = re.compile(r"^edge_\d+_(.+)$")  # the name of a tensor that crosses: it ends with the op that makes it
_NEXT_PAIR = re.compile(r",(?=\w+=)")


def split_op(name: str, display: str = "") -> tuple[str, str]:
    """Split an event's name into node and op type; two empty strings when it is no op.

    TensorFlow shows an op's event under its type, which settles types that contain a colon.

    >>> split_op("model/conv/Conv2D:Conv2D"), split_op("$file.py:12 run"), split_op("a:my>Op:v2", "my>Op:v2")
    (('model/conv/Conv2D', 'Conv2D'), ('', ''), ('a', 'my>Op:v2'))
    """
    if display and name.endswith(f":{display}") and not name.startswith("$"):
        return name[: -len(display) - 1], display
    node, _, op = name.rpartition(":")
    if not node or not _OP_TYPE.match(op) or _NEVER_OPS.search(name):
        return "", ""
    return node, op


def made_of(tf_op: str) -> str:
    """Return the type of the op that an instruction of XLA was made of; JAX leaves the type to the end of the name.

    >>> made_of("net/a:MatMul"), made_of("jit(f)/jit(main)/dot_general:"), made_of("")
    ('MatMul', 'dot_general', '')
    """
    return split_op(tf_op)[1] or tf_op.rstrip(":").rpartition("/")[2]


class Cause(NamedTuple):
    """What an annotation says: the op that was running, and where the tensor came from and went.

    ``made_of`` is the type of the op behind an instruction of XLA, where ``op`` only says that it is one.
    """

    node: str = ""
    op: str = ""
    src: str = ""
    dst: str = ""
    edge: str = ""
    hlo_op: str = ""
    hlo_module: str = ""
    made_of: str = ""


@lru_cache(maxsize=65_536)
def parse_annotation(text: str) -> Cause:
    """Read a stack of annotations: the innermost op counts, or where none is named, the innermost text.

    >>> cause = parse_annotation("n/_3:_HostRecv#from=Call,to=Identity_1#::#edge_name=memtype_41_Call#")
    >>> cause.node, cause.op, cause.src, cause.dst, cause.edge
    ('n/_3', '_HostRecv', 'Call', 'Identity_1', 'memtype_41_Call')
    >>> cause = parse_annotation("Conv2D_1/_0:_Send::edge_10_Conv2D_1::async")
    >>> cause.node, cause.op, cause.src, cause.edge
    ('Conv2D_1/_0', '_Send', 'Conv2D_1', 'edge_10_Conv2D_1')
    >>> parse_annotation("MakeTensorFromProto").op
    'MakeTensorFromProto'
    """
    levels = [level.partition(_METADATA) for level in text.split(_LEVEL)]
    metadata = {key: value for _, _, rest in levels for key, value in _pairs(rest.removesuffix(_METADATA))}
    named = [name for name, _, _ in levels if name]
    edge = next((name for name in named if _EDGE.match(name)), metadata.get("edge_name", ""))
    others = [name for name in named if name != edge]
    node, op = next((found for name in reversed(others) if (found := split_op(name))[1]), ("", ""))
    producer = _EDGE.match(edge)
    return Cause(
        node,
        op or (others[-1] if others else ""),
        metadata.get("from", producer[1] if producer else ""),
        metadata.get("to", ""),
        edge,
        metadata.get("hlo_op", ""),
        metadata.get("hlo_module", ""),
    )


def names_something(annotation: str) -> bool:
    """Tell at little cost that an annotation holds a name, and not metadata alone.

    >>> names_something("a:Relu#shape=(half[4])#"), names_something("#edge_name=ret_0#"), names_something("")
    (True, False, False)
    """
    return annotation[:1] not in ("", _METADATA)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of ``key=value,key=value``; commas inside a value stay in it."""
    for pair in _NEXT_PAIR.split(text):
        key, separator, value = pair.partition("=")
        if separator:
            yield key, value


# -- copies -------------------------------------------------------------------------------------------------------

_COPY = re.compile(r"^memcpy", re.IGNORECASE)
_BETWEEN = re.compile(r"^memcpy([hd])(?:2|to)([hd])", re.IGNORECASE)
_SPELT_OUT = re.compile(r"(host|device)_?to_?(host|device)", re.IGNORECASE)  # as AMD's runtime calls them
_PEER = re.compile(r"^memcpyp(?:2|to)p", re.IGNORECASE)
_KINDS = re.compile(r"\bkind_src:(\w+)\s+kind_dst:(\w+)")
_SIZE = re.compile(r"\b(?:size|num_bytes):\s*(\d+)")
_ON_DEVICE = frozenset({"device", "array"})
_ON_HOST = frozenset({"pageable", "pinned"})

_DIRECTIONS: Mapping[tuple[str, str], CopyDirection] = MappingProxyType(
    {("h", "d"): "host-to-device", ("d", "h"): "device-to-host", ("d", "d"): "device-to-device"}
)


def is_copy(name: str) -> bool:
    """Tell whether a device's event of that name is a transfer between memories.

    >>> is_copy("MemcpyH2D"), is_copy("MEMCPYDtoHAsync"), is_copy("Memset"), is_copy("volta_sgemm_128x64_nn")
    (True, True, False, False)
    """
    return bool(_COPY.match(name))


@lru_cache(maxsize=4096)
def copy_direction(name: str, details: str = "") -> CopyDirection | None:
    """Return which way a copy goes by its name, else by the kinds of memory in its details; ``None``: not said.

    >>> copy_direction("MemcpyH2D"), copy_direction("MEMCPYDtoHAsync"), copy_direction("MemcpyP2P")
    ('host-to-device', 'device-to-host', 'device-to-device')
    >>> copy_direction("CopyHostToDevice", "kind:Unknown size:8 dest:0 async:1")
    'host-to-device'
    >>> copy_direction("MemcpyOther", "kind_src:device kind_dst:pageable size:8 dest:0 async:1")
    'device-to-host'
    """
    match = _BETWEEN.match(name) or _SPELT_OUT.search(name)
    if match:
        return _DIRECTIONS.get((match[1][0].lower(), match[2][0].lower()))
    if _PEER.match(name):
        return "device-to-device"
    kinds = _KINDS.search(details)
    return _DIRECTIONS.get((_side(kinds[1]), _side(kinds[2]))) if kinds else None


def _side(memory: str) -> str:
    return "d" if memory in _ON_DEVICE else "h" if memory in _ON_HOST else ""


def copied_bytes(details: str) -> int | None:
    """Return the size of a copy.

    >>> copied_bytes("size:6144 dest:4 async:1"), copied_bytes("num_bytes: 384 destination: 0"), copied_bytes("")
    (6144, 384, None)
    """
    match = _SIZE.search(details)
    return int(match[1]) if match else None
