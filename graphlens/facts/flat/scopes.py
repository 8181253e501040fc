"""What the names and shapes of a flat graph say: layers, lowered loops, and whether it trains."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from graphlens.facts.flat.renames import as_written
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import is_variable_write
from graphlens.ir.run import ReplayRecord
from graphlens.ir.table import Table

_COUNTER_SEGMENT = re.compile(r"/_\d+(?=/)")

# Scopes that TensorFlow's own ops open inside a layer; they do not name a layer.
_OP_SCOPE = re.compile(
    r"^(batchnorm|BatchNorm|moments|[Tt]ensordot|FusedBatchNormV3|softmax_cross_entropy|dropout|Cast)(_\d+)?$"
)
# What TensorFlow puts before the names of gradients, after which the name of the op follows.
GRADIENT_SCOPES = frozenset({"gradient_tape", "gradients"})
_CALL_SEGMENT = re.compile(r"^(Stateful)?PartitionedCall(_\d+)?$|^_\d+$")


def canonical_name(name: str) -> str:
    """Drop the counters that lowering puts into names: ``while/body/_1/add`` becomes ``while/body/add``.

    >>> canonical_name("while/body/_1/cell/MatMul"), canonical_name("a/_12")
    ('while/body/cell/MatMul', 'a/_12')
    """
    return _COUNTER_SEGMENT.sub("", name)


def layer_of(name: str, ops: Container[str] = ()) -> str | None:
    """Return the scope that names the layer of a flat op name, without call sites and scopes of single ops.

    ``ops`` are the names of all ops of the graph: a scope that is an op's name holds parts of that op.

    >>> layer_of("StatefulPartitionedCall/StatefulPartitionedCall/net/bn_1/batchnorm/mul_1")
    'net/bn_1'
    >>> layer_of("net/conv/convolution/ReadVariableOp", ops={"net/conv/convolution"})
    'net/conv'
    >>> layer_of("Relu") is None
    True
    """
    segments = name.split("/")[:-1]
    while segments and (_OP_SCOPE.match(segments[-1]) or "/".join(segments) in ops):
        segments.pop()
    return "/".join(part for part in segments if not _CALL_SEGMENT.match(part)) or None


def layers_of(names: Sequence[str], ops: Container[str]) -> list[str | None]:
    """Return what :func:`layer_of` does for each of many names: those of one scope are of one layer."""
    scopes = [name.rpartition("/")[0] for name in names]
    layers = {scope: layer_of(f"{scope}/", ops) for scope in set(scopes)}
    return [layers[scope] for scope in scopes]


def with_shapes(
    executed: Table,
    traced: Table | None,
    replay: Mapping[str, ReplayRecord],
    renamed: Mapping[str, str | None] = MappingProxyType({}),
) -> Table:
    """Give ``executed`` its output shapes: observed by the replay first, else as far as traced."""
    observed = {canonical_name(name): record for name, record in replay.items()}
    static = {canonical_name(name): op for name, op in traced.items()} if traced is not None else {}
    shaped: dict[str, Op] = {}
    for name, op in executed.items():
        outputs = _known_outputs(canonical_name(name), observed, static, renamed)
        if outputs and not _complete(op.outputs):
            shaped[name] = replace(op, outputs=outputs)
    return executed.with_ops(shaped)


def _known_outputs(
    name: str, observed: Mapping[str, ReplayRecord], static: Mapping[str, Op], renamed: Mapping[str, str | None]
) -> tuple[TensorSpec, ...]:
    record = observed.get(name)
    if record and record.outputs:
        return tuple(TensorSpec(dtype, shape) for dtype, shape in record.outputs)
    return next((static[written].outputs for written in as_written(name, renamed) if written in static), ())


def _complete(outputs: tuple[TensorSpec, ...]) -> bool:
    return bool(outputs) and all(spec.elements is not None for spec in outputs)


def is_training(graph: Table, declared: bool | None) -> bool:
    """Tell whether the flat graph trains; ``declared`` (from the recorder) wins where it is known.

    An optimizer has ops of its own, or writes variables with those that anybody does, as Keras 3 has it; then there are
    gradients.
    """
    if declared is not None:
        return declared
    writes = graph.where(is_variable_write)
    if not writes:
        return False
    return bool(graph.where(lambda kind: "Apply" in kind and is_variable_write(kind))) or any(
        map(is_gradient, graph.names)
    )


def is_gradient(name: str) -> bool:
    """Tell whether TensorFlow named an op as part of a gradient.

    >>> is_gradient("StatefulPartitionedCall/gradient_tape/net/MatMul"), is_gradient("net/gradients_of_mine")
    (True, False)
    """
    return not GRADIENT_SCOPES.isdisjoint(name.split("/")[:-1])


def is_compiled(op: Op) -> bool:
    """XLA runs such a call as a whole; the ops of its body never run one by one."""
    return bool(op.attrs.get("_XlaMustCompile"))
