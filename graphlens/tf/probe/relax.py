"""The properties of a chain that can keep it from being fused, each with the chain as it would be without it.

Pure: from one chain of ``ir.fusion`` to others.  Nothing here knows what TensorFlow fuses; that is tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.ir.fusion import OUTSIDE, Chain, ChainOp, Obstacle
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.ops import BATCH_PRODUCTS, SUMS

Relaxed = tuple[Obstacle, Chain]

_OTHER_FLOATS: Final = frozenset({"float64", "float16", "bfloat16"})
_CHANNELS_LAST: Final[Mapping[str, str]] = {"NCHW": "NHWC", "NCDHW": "NDHWC"}
_BY_POSITION: Final = ("strides", "dilations", "ksize")  # attributes with one number per axis


def relaxations(chain: Chain) -> Iterator[Relaxed]:
    """Yield every single change that applies to ``chain``."""
    for change in _CHANGES:
        yield from change(chain)


# -- editing -------------------------------------------------------------------------------------------------------


def _mapped(chain: Chain, change: Callable[[ChainOp], ChainOp]) -> Chain:
    return replace(chain, ops=tuple(change(op) for op in chain.ops))


def _with(chain: Chain, changed: Sequence[ChainOp]) -> Chain:
    """Replace ops of ``chain`` by those of the same names."""
    new = {op.name: op for op in changed}
    return _mapped(chain, lambda op: new.get(op.name, op))


def _by_name(chain: Chain) -> Mapping[str, ChainOp]:
    return {op.name: op for op in chain.ops}


def _pruned(chain: Chain, ops: Sequence[ChainOp]) -> Chain:
    """Return a chain of ``ops`` without what nothing reads any more."""
    needed, pending = {ops[-1].name}, [ops[-1]]
    known = {op.name: op for op in ops}
    while pending:
        for src, _ in pending.pop().inputs:
            if src not in needed:
                needed.add(src)
                pending.append(known[src])
    around = tuple(item for item in chain.surroundings if item.at in needed)
    return replace(chain, ops=tuple(op for op in ops if op.name in needed), surroundings=around)


def _reads(ops: Sequence[ChainOp], old: str, new: str) -> list[ChainOp]:
    """Let every op that read ``old`` read ``new`` instead."""
    return [
        replace(op, inputs=tuple((new if src == old else src, 0 if src == old else port) for src, port in op.inputs))
        for op in ops
    ]


def _base(chain: Chain) -> ChainOp | None:
    return next((op for op in chain.ops if op.role == "base"), None)


# -- the changes ---------------------------------------------------------------------------------------------------


def _single_precision(chain: Chain) -> Iterator[Relaxed]:
    offending = next((op for op in chain.core if op.attrs.get("T") in _OTHER_FLOATS), None)
    if offending is not None:
        obstacle = Obstacle("dtype", offending.name, str(offending.attrs["T"]))
        yield obstacle, _mapped(chain, _in_single_precision)


def _in_single_precision(op: ChainOp) -> ChainOp:
    attrs = {name: "float32" if _is_other_float(value) else value for name, value in op.attrs.items()}
    spec = op.spec
    if spec is not None and spec.dtype in _OTHER_FLOATS:
        spec = TensorSpec("float32", spec.shape)
    return replace(op, attrs=attrs, spec=spec)


def _is_other_float(value: Any) -> bool:
    return isinstance(value, str) and value in _OTHER_FLOATS


def _plain_activation(chain: Chain) -> Iterator[Relaxed]:
    activation = [op for op in chain.core if op.role == "activation"]
    if not activation or chain.kind == "activation" or [op.type for op in activation] == ["Relu"]:
        return
    inside = {op.name for op in activation}
    entries = [item for op in activation for item in op.inputs if item[0] not in inside]
    entry = next((item for item in entries if _by_name(chain)[item[0]].role not in OUTSIDE), None)
    if entry is None:
        return
    last = activation[-1]
    relu = ChainOp(last.name, "Relu", "activation", (entry,), {"T": last.attrs.get("T", "float32")}, last.spec)
    ops = [op for op in chain.ops if op.name not in inside]
    yield Obstacle("activation", last.name, _activation_name(activation)), _pruned(chain, [*ops, relu])


def _activation_name(ops: Sequence[ChainOp]) -> str:
    types = {op.type for op in ops}
    if len(ops) == 1:
        return ops[0].type
    names = (("Erf", "gelu"), ("Erfc", "gelu"), ("Softplus", "mish"), ("Relu6", "hard swish"), ("Sigmoid", "swish"))
    return next(
        (name for mark, name in names if mark in types), "gelu (tanh form)" if "Tanh" in types else "activation"
    )


def _channels_last(chain: Chain) -> Iterator[Relaxed]:
    offending = next((op for op in chain.core if op.attrs.get("data_format") in _CHANNELS_LAST), None)
    if offending is None:
        return
    rank = 5 if offending.attrs["data_format"] == "NCDHW" else 4
    weights = _weights(chain)
    yield (
        Obstacle("layout", offending.name, str(offending.attrs["data_format"])),
        _mapped(chain, lambda op: _op_channels_last(op, rank, op.name in weights)),
    )


def _weights(chain: Chain) -> set[str]:
    """Return the names of the filters: input 1 of the convolution (and no other input) has no channel axis to move."""
    base = _base(chain)
    return {base.inputs[1][0]} if base is not None and len(base.inputs) > 1 else set()


def _op_channels_last(op: ChainOp, rank: int, is_weights: bool) -> ChainOp:
    if is_weights:
        return op
    if op.role in OUTSIDE:
        return replace(op, spec=_moved_spec(op.spec, rank), values=_moved_sizes(op, rank))
    attrs = dict(op.attrs)
    attrs["data_format"] = _CHANNELS_LAST.get(attrs.get("data_format", ""), attrs.get("data_format"))
    for name in _BY_POSITION:
        if isinstance(attrs.get(name), tuple) and len(attrs[name]) == rank:
            attrs[name] = _moved(attrs[name])
    if isinstance(attrs.get("explicit_paddings"), tuple) and len(attrs["explicit_paddings"]) == 2 * rank:
        paddings = attrs["explicit_paddings"]
        pairs = _moved([paddings[index : index + 2] for index in range(0, 2 * rank, 2)])
        attrs["explicit_paddings"] = tuple(size for pair in pairs for size in pair)
    attrs = {name: value for name, value in attrs.items() if value is not None}
    return replace(op, attrs=attrs, spec=_moved_spec(op.spec, rank))


def _moved(items: Sequence[Any]) -> tuple[Any, ...]:
    """Move what is second to the end: from N C H W to N H W C."""
    return (items[0], *items[2:], items[1])


def _moved_spec(spec: TensorSpec | None, rank: int) -> TensorSpec | None:
    if spec is None or spec.shape is None:
        return spec
    if len(spec.shape) == rank:
        return TensorSpec(spec.dtype, _moved(spec.shape))
    if len(spec.shape) == rank - 1 and all(size == 1 for size in spec.shape[1:]):  # [C,1,1], added to [N,C,H,W]
        return TensorSpec(spec.dtype, spec.shape[:1])
    return spec


def _moved_sizes(op: ChainOp, rank: int) -> tuple[float | int | bool, ...] | None:
    is_shape = op.spec is not None and op.spec.dtype in ("int32", "int64") and op.values and len(op.values) == rank
    return _moved(op.values) if is_shape and op.values else op.values


def _without_bridge(chain: Chain) -> Iterator[Relaxed]:
    """Leave out each run of ops that only move data between two others."""
    bridges = [op for op in chain.ops if op.role == "bridge"]
    names = {op.name for op in bridges}
    starts = [op for op in bridges if op.inputs[0][0] not in names]
    for start in starts:
        run = [start]
        while following := next((op for op in bridges if op.inputs[0][0] == run[-1].name), None):
            run.append(following)
        yield Obstacle("bridge", start.name, " and ".join(dict.fromkeys(op.type for op in run))), _spliced(chain, run)


def _spliced(chain: Chain, run: Sequence[ChainOp]) -> Chain:
    gone = {op.name for op in run}
    source = run[0].inputs[0][0]
    ops = _reads([op for op in chain.ops if op.name not in gone], run[-1].name, source)
    before = _by_name(chain)[source]
    at = next(index for index, op in enumerate(ops) if op.name == source)
    return _pruned(chain, [*ops[: at + 1], *(_like(op, before, chain) for op in ops[at + 1 :])])


def _like(op: ChainOp, before: ChainOp, chain: Chain) -> ChainOp:
    """Give an op behind a bridge the type, layout and size that its input has without the bridge."""
    if op.role == "constant":
        return op
    dtype = str(before.attrs.get("T") or (before.spec.dtype if before.spec else "float32"))
    if op.role == "boundary":
        feeds_sum = any(op.name in dict(item.inputs) and item.role == "residual" for item in chain.ops)
        return replace(op, spec=before.spec) if feeds_sum and before.spec else op
    attrs = dict(op.attrs)
    if "T" in attrs and op.role != "bridge":
        attrs["T"] = dtype
    if "data_format" in attrs:
        attrs["data_format"] = before.attrs.get("data_format", "NHWC")
    return replace(op, attrs=attrs, spec=before.spec)


def _bias_add(chain: Chain) -> Iterator[Relaxed]:
    known = _by_name(chain)
    for op in chain.core:
        if op.role == "bias" and op.type in SUMS:
            data = next(item for item in op.inputs if known[item[0]].role not in OUTSIDE)
            bias = known[next(item for item in op.inputs if item != data)[0]]
            channels = _length(bias.spec)
            vector = replace(bias, spec=TensorSpec(bias.spec.dtype if bias.spec else "float32", (channels,)))
            attrs = {"T": op.attrs.get("T", "float32"), "data_format": _data_format(chain)}
            changed = replace(op, type="BiasAdd", inputs=(data, (bias.name, 0)), attrs=attrs)
            yield Obstacle("addition", op.name, op.type), _with(chain, [vector, changed])


def _length(spec: TensorSpec | None) -> int | None:
    return next((size for size in reversed(spec.shape) if size != 1), 1) if spec and spec.shape else None


def _data_format(chain: Chain) -> str:
    base = _base(chain)
    found = base.attrs.get("data_format", "NHWC") if base is not None else "NHWC"
    return "NCHW" if found in _CHANNELS_LAST else "NHWC"


def _add_n(chain: Chain) -> Iterator[Relaxed]:
    for op in chain.core:
        if op.role == "residual" and op.type in SUMS:
            attrs = {"T": op.attrs.get("T", "float32"), "N": len(op.inputs)}
            yield Obstacle("residual", op.name, op.type), _with(chain, [replace(op, type="AddN", attrs=attrs)])


def _inference(chain: Chain) -> Iterator[Relaxed]:
    for op in chain.core:
        if op.role == "norm" and op.attrs.get("is_training", True):
            yield (
                Obstacle("training", op.name, op.type),
                _with(chain, [replace(op, attrs={**op.attrs, "is_training": False})]),
            )


def _placed(chain: Chain) -> Iterator[Relaxed]:
    offending = next((op for op in chain.core if op.device == ""), None)
    if offending is not None:
        yield Obstacle("device", offending.name), _mapped(chain, lambda op: replace(op, device=None))


def _two_dimensional(chain: Chain) -> Iterator[Relaxed]:
    """A batched product with one matrix for the whole batch is a plain product of the flattened batch."""
    base, known = _base(chain), _by_name(chain)
    if base is None or base.type not in BATCH_PRODUCTS or chain.kind == "attention":
        return
    left, right = (known[src] for src, _ in base.inputs[:2])
    if left.role != "boundary" or right.spec is None or right.spec.shape is None or len(right.spec.shape) != 2:
        return
    if left.spec is None or not left.spec.shape or base.attrs.get("adj_x"):
        return
    attrs = {"T": base.attrs.get("T", "float32"), "transpose_b": bool(base.attrs.get("adj_y"))}
    flat = TensorSpec(left.spec.dtype, (None, left.spec.shape[-1]))
    rows = None if base.spec is None or base.spec.shape is None else (None, base.spec.shape[-1])
    product = replace(base, type="MatMul", attrs=attrs, spec=TensorSpec(left.spec.dtype, rows))
    yield (
        Obstacle("rank", base.name, f"{base.type} of rank {len(left.spec.shape)}"),
        _with(chain, [replace(left, spec=flat), product]),
    )


def _batched_product(chain: Chain) -> Iterator[Relaxed]:
    """An attention score that ``Einsum`` computes, as a batched product instead."""
    base, known = _base(chain), _by_name(chain)
    if chain.kind != "attention" or base is None or base.type != "Einsum" or base.spec is None or not base.spec.shape:
        return
    left, right = (known[src] for src, _ in base.inputs[:2])
    *batch, rows, columns = base.spec.shape
    specs = [TensorSpec(base.spec.dtype, (*batch, size, None)) for size in (rows, columns)]
    attrs = {"T": base.attrs.get("T", "float32"), "adj_x": False, "adj_y": True}
    yield (
        Obstacle("einsum", base.name, str(base.attrs.get("equation", ""))),
        _with(
            chain,
            [
                replace(left, role="boundary", spec=specs[0]),
                replace(right, role="boundary", spec=specs[1]),
                replace(base, type="BatchMatMulV2", attrs=attrs),
            ],
        ),
    )


def _masked(chain: Chain) -> Iterator[Relaxed]:
    """A scaled attention score without a mask, with one added."""
    last = chain.ops[-1]
    if chain.kind != "attention" or any(op.role == "bias" for op in chain.core) or last.role != "scale":
        return
    mask = ChainOp(f"{last.name}_mask", "Placeholder", "boundary", spec=_spec_of_mask(last.spec))
    total = ChainOp(f"{last.name}_masked", "AddV2", "bias", ((last.name, 0), (mask.name, 0)), last.attrs, last.spec)
    yield Obstacle("no-mask", last.name, last.type), replace(chain, ops=(*chain.ops[:-1], mask, last, total))


def _spec_of_mask(scores: TensorSpec | None) -> TensorSpec | None:
    """One mask for all heads, as models have it: the axis of the heads has one element."""
    if scores is None or scores.shape is None or len(scores.shape) != 4:
        return scores
    return TensorSpec(scores.dtype, (scores.shape[0], 1, *scores.shape[2:]))


def _names_in_other_order(chain: Chain) -> Iterator[Relaxed]:
    """Grappler sorts the inputs of a product by name: let the factor that sorts first sort behind the other one."""
    activation = {op.name: op for op in chain.core if op.role == "activation"}
    for op in activation.values():
        names = [name for name, _ in op.inputs]
        if op.type == "Mul" and len(set(names)) == 2 and min(names) in activation and max(names) in _by_name(chain):
            first, other = min(names), max(names)
            if _by_name(chain)[other].role not in OUTSIDE:
                yield Obstacle("name", first, _activation_name([*activation.values()])), _renamed(chain, first, other)


def _renamed(chain: Chain, name: str, behind: str) -> Chain:
    new = f"{behind}_{name.rpartition('/')[2]}"
    ops = [replace(op, name=new if op.name == name else op.name) for op in chain.ops]
    around = tuple(replace(item, at=new if item.at == name else item.at) for item in chain.surroundings)
    return replace(chain, ops=tuple(_reads(ops, name, new)), surroundings=around)


_CHANGES: Final[tuple[Callable[[Chain], Iterator[Relaxed]], ...]] = (
    _placed,
    _single_precision,
    _channels_last,
    _inference,
    _bias_add,
    _add_n,
    _without_bridge,
    _two_dimensional,
    _batched_product,
    _masked,
    _names_in_other_order,
    _plain_activation,
)
