"""One op of a graph, one edge, and what is known of a tensor: immutable nouns, measurements never live here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

ARGUMENT = "_Arg"
RETURN = "_Retval"

# Bytes per element of the dtypes that have a fixed size; strings, resources and variants have none.
DTYPE_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "bool": 1,
        "int8": 1,
        "uint8": 1,
        "qint8": 1,
        "quint8": 1,
        "float8_e5m2": 1,
        "float8_e4m3fn": 1,
        "int4": 0.5,
        "uint4": 0.5,
        "int16": 2,
        "uint16": 2,
        "qint16": 2,
        "quint16": 2,
        "float16": 2,
        "bfloat16": 2,
        "int32": 4,
        "uint32": 4,
        "qint32": 4,
        "float32": 4,
        "int64": 8,
        "uint64": 8,
        "float64": 8,
        "complex64": 8,
        "complex128": 16,
    }
)


# TensorFlow counts elements in 64 bits and refuses a shape of more, or of more dimensions (`tensor_shape.h`): only a
# damaged file tells of one.
MOST_ELEMENTS = 2**63 - 1
MOST_DIMENSIONS = 254


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Data type and shape of one output; ``None`` stands for a dimension or a whole shape that is not known."""

    dtype: str
    shape: tuple[int | None, ...] | None = None

    @property
    def elements(self) -> int | None:
        """Number of elements, or ``None`` when the shape is not fully known, or one that no tensor can have."""
        if self.shape is None or None in self.shape or len(self.shape) > MOST_DIMENSIONS:
            return None
        elements: int = prod(self.shape)  # type: ignore[arg-type]  # no size is None here; a filter costs half the time
        return elements if elements <= MOST_ELEMENTS else None

    @property
    def nbytes(self) -> int | None:
        """Size of the tensor's buffer, or ``None`` for unknown shapes and for dtypes without a fixed size."""
        width = DTYPE_BYTES.get(self.dtype)
        elements = self.elements
        return None if width is None or elements is None else int(elements * width)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[…]"
        return f"{self.dtype}[{','.join('?' if size is None else str(size) for size in self.shape)}]"


class Tensor(NamedTuple):
    """One output of one op."""

    op: str
    port: int


@dataclass(frozen=True, slots=True)
class Call:
    """One function that an op calls, and in which role (``call``, ``then``, ``else``, ``cond``, ``body``, …)."""

    role: str
    function: str


@dataclass(frozen=True, slots=True)
class Constant:
    """What is kept of a ``Const`` op's value: its size always, its elements only when there are few.

    ``values`` is the flattened tensor in row-major order when it has at most ``LIMIT`` elements and is numeric or
    boolean, otherwise ``None``.  ``digest`` is a short hash of the stored value, so that equal constants can be told
    from different ones without keeping them; ``None`` when the value itself was stripped.
    """

    LIMIT = 64

    nbytes: int | None
    values: tuple[float | int | bool, ...] | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """One node of a graph.

    ``device`` is the *requested* device in a traced graph and the *actual* one in an executed graph.  ``attrs`` holds
    decoded attributes (JSON values; dtypes as names, shapes as tuples, function references in ``calls`` instead).
    ``outputs`` is empty when the graph does not say the shapes.  ``source`` is ``file:line`` where the graph has it.
    """

    name: str
    type: str
    device: str = ""
    outputs: tuple[TensorSpec, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    constant: Constant | None = None
    source: str | None = None

    @property
    def scope(self) -> str:
        """The ``/``-separated prefix of the name, empty for a top-level op."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency.  ``src_port``/``dst_port`` number the tensor; ``None`` where the graph does not say it.

    ``transfer`` edges join a ``_Send`` to its ``_Recv`` on another device.
    """

    kind: Literal["data", "control", "transfer"]
    src_port: int | None = 0
    dst_port: int | None = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _edge, (self.kind, self.src_port, self.dst_port)


CONTROL = Edge("control", None, None)  # of tables the only one: they tell it by its identity


def _edge(kind: Any, src_port: int | None, dst_port: int | None) -> Edge:
    """Return an edge that was copied or pickled; a control edge is the one of this process."""
    return CONTROL if kind == "control" else Edge(kind, src_port, dst_port)


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """A function that a graph calls back: its name, and its line ``file:line`` (empty: in no file of the user)."""

    name: str
    source: str = ""
