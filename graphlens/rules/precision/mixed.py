"""Rules about half precision on a processor that has no use for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.facts.work.costs import cost_of
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import short_device
from graphlens.ir.edits import ScriptSetting
from graphlens.ir.nodes import Op
from graphlens.ir.ops import SUMS
from graphlens.ir.table import Table
from graphlens.rules.needs import EXECUTED, PROFILE
from graphlens.rules.phrases import known_sum
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes, format_ns, format_share

OPS_LISTED: Final = 20

_HALVES: Final = frozenset({"bfloat16", "float16"})
_FLOAT32: Final = "float32"
# What Grappler's remapper makes one op of in float32 on a processor (``remapper.cc``: `_FusedMatMul`, `_FusedConv2D`).
_PRODUCTS: Final = frozenset({"MatMul", "Conv2D"})
_ACTIVATIONS: Final = frozenset({"Relu", "Relu6", "Elu", "LeakyRelu"})
_POLICY: Final = 'keras.mixed_precision.set_global_policy("float32")'


@dataclass(frozen=True, slots=True)
class _Lost:
    """A product in half precision whose bias, and activation where there is one, are ops of their own."""

    product: int
    apart: tuple[int, ...]


@rule("GL507", "lost-fusion", needs=(EXECUTED, PROFILE))
def lost_fusion(facts: Facts) -> Iterator[Finding]:
    """Half precision on a processor whose products are no longer fused, and that casts instead.

    ## What it finds

    Products and convolutions in `bfloat16` or `float16` that ran on a processor with their bias and activation as ops
    of their own, which TensorFlow makes one op of in `float32` (`_FusedMatMul`, `_FusedConv2D`). One finding counts
    them, with the casts between `float32` and the half precision that ran for their sake.

    ## Why it costs

    A mixed policy keeps weights in `float32` and casts each kernel and each bias in every step, and their gradients
    back: four casts per Dense layer. That pays where the processor multiplies half precision faster (AMX, or
    AVX512_BF16 with oneDNN, which fuses too). Elsewhere TensorFlow multiplies it with plain Eigen kernels, which widen
    every number, and the fusion of bias and activation is lost on top of the casts.

    ## Example

    ```bad
    x  = Placeholder() bfloat16[64,512]
    v  = ReadVariableOp(kernel) float32[512,512]
    c  = ReadVariableOp(bias) float32[512]
    w  = Cast(v) bfloat16[512,512] 50us @CPU:0
    b  = Cast(c) bfloat16[512] 1us @CPU:0
    y  = MatMul(x, w) bfloat16[64,512] 300us @CPU:0 {T: bfloat16}
    z  = BiasAdd(y, b) bfloat16[64,512] 20us @CPU:0
    a  = Relu(z) bfloat16[64,512] 10us @CPU:0
    ```

    ```good
    x  = Placeholder() float32[64,512]
    w  = ReadVariableOp(kernel) float32[512,512]
    b  = ReadVariableOp(bias) float32[512]
    a  = _FusedMatMul(x, w, b) float32[64,512] 200us @CPU:0 {T: float32}
    ```

    ## Fix

    Compute in `float32` on this machine: `keras.mixed_precision.set_global_policy("float32")`, or no policy at all.
    Numbers change a little, and are more exact than before. With oneDNN switched on, a processor with AVX512_BF16 or
    AMX fuses `bfloat16` as well: try that first where it is off.

    ## When it is fine

    When half precision is what the model will run in elsewhere, or when it saves memory that there is not enough of.

    ## Source

    The executed graph: products in half precision that are unfused, and casts from and to it, each with its measured
    time. The saving is that of the casts and of the ops that would be part of the product. What the products themselves
    gain or lose is not known until it is measured, and not part of it.
    """
    graph = facts(judged_graph)
    for dtype in sorted(_HALVES):
        lost = [one for one in _lost(graph) if _dtype(graph.bodies[one.product]) == dtype]
        if lost:
            yield _finding(facts, graph, dtype, lost)


def _finding(facts: Facts, graph: Table, dtype: str, lost: Sequence[_Lost]) -> Finding:
    casts = [graph.names[position] for position in _casts(graph, dtype)]
    apart = [graph.names[position] for one in lost for position in one.apart]
    gone = [*casts, *apart]
    saving = saving_without(facts, gone)
    evidence = _evidence(facts, graph, lost, casts, apart)
    share = f", {format_share(saving.share)} of the step" if saving.share is not None else ""
    return found(
        title=f"{counted(len(lost), 'product')} in {dtype} without the fusion that float32 has, and "
        f"{counted(len(casts), 'cast')} to and from it",
        nodes=[*(graph.names[one.product] for one in lost), *gone],
        evidence={"dtype": dtype, **evidence},
        reason=f"this processor multiplies {dtype} with kernels that fuse nothing: "
        f"{counted(len(apart), 'op')} for bias and activation took {format_ns(evidence['apart_ns'])}, and the casts "
        f"{format_ns(evidence['casts_ns'])} for {format_bytes(evidence['casts_bytes'])}{share}",
        saving=saving,
        fix=Fix(
            "Compute in float32 on this machine",
            "manual",
            (ScriptSetting("mixed_precision", _FLOAT32),) if facts.evidence.script is not None else (),
            _POLICY,
        ),
    )


def _evidence(
    facts: Facts, graph: Table, lost: Sequence[_Lost], casts: Sequence[str], apart: Sequence[str]
) -> dict[str, Any]:
    seen = facts(timings)

    def took(names: Sequence[str]) -> int | None:
        return known_sum([seen[name].self_ns if name in seen else None for name in names])

    return {
        "fusions_lost": len(lost),
        "products": [graph.names[one.product] for one in lost][:OPS_LISTED],
        "products_ns": took([graph.names[one.product] for one in lost]),
        "apart": list(apart)[:OPS_LISTED],
        "apart_ns": took(apart),
        "casts": len(casts),
        "casts_ns": took(casts),
        "casts_bytes": known_sum([cost_of(graph, name).bytes for name in casts]),
        "cast_ops": list(casts)[:OPS_LISTED],
    }


# -- what ran in half precision -----------------------------------------------------------------------------------


def _lost(graph: Table) -> Iterator[_Lost]:
    """Yield the products in half precision whose bias is added by an op of its own, with what float32 would fuse."""
    for product in graph.positions_of(_PRODUCTS):
        op = graph.bodies[product]
        bias = _only_reader(graph, product) if _dtype(op) in _HALVES and _is_on_processor(op) else None
        if bias is None or not _adds_bias(graph, bias):
            continue
        activation = _only_reader(graph, bias)
        is_activated = activation is not None and graph.bodies[activation].type in _ACTIVATIONS
        yield _Lost(product, (bias, activation) if is_activated and activation is not None else (bias,))


def _only_reader(graph: Table, position: int) -> int | None:
    readers = [reader for reader in graph.following[position] if position in graph.data_before(reader)]
    return readers[0] if len(readers) == 1 else None


def _adds_bias(graph: Table, position: int) -> bool:
    kind = graph.bodies[position].type
    if kind == "BiasAdd":
        return True
    added = graph.data_before(position)[1:2]
    return kind in SUMS and any(_rank(graph.bodies[source]) == 1 for source in added)


def _rank(op: Op) -> int | None:
    return len(op.outputs[0].shape) if op.outputs and op.outputs[0].shape is not None else None


def _casts(graph: Table, dtype: str) -> Iterator[int]:
    """Yield the casts between float32 and a half precision that ran on the processor."""
    for position in graph.positions_of({"Cast"}):
        op = graph.bodies[position]
        ends = {op.attrs.get("SrcT") or _source(graph, position), op.attrs.get("DstT") or _dtype(op)}
        if ends == {_FLOAT32, dtype} and _is_on_processor(op):
            yield position


def _source(graph: Table, position: int) -> str | None:
    return next((_dtype(graph.bodies[source]) for source in graph.data_before(position)[:1]), None)


def _dtype(op: Op) -> str | None:
    return str(op.attrs["T"]) if op.attrs.get("T") else op.outputs[0].dtype if op.outputs else None


def _is_on_processor(op: Op) -> bool:
    return short_device(op.device).startswith("CPU")
