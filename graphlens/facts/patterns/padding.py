"""Zeros that ops of their own put around images, although the convolutions that read them could do it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_by, judged_graph, judged_stage, traced_graph
from graphlens.facts.patterns.dataflow import Dataflow, dataflow
from graphlens.ir.graph import data_inputs
from graphlens.ir.layouts import spatial_axes
from graphlens.ir.ops import CONSTANTS, CONVOLUTIONS, PADS, runtime_type
from graphlens.ir.padding import Axis, Form, form_of, pads_only

# oneDNN takes zeros into these as the graph is about to run, so of a graph that never ran nothing can be said.
_TAKEN_BY_ONEDNN: Final = frozenset({"Conv2D", "Conv3D"})
_GPU: Final = "GPU"


@dataclass(frozen=True, slots=True)
class ZeroPadding:
    """Zeros around an image that only convolutions read, none of which needs them to be there.

    Attributes
    ----------
    pad, readers
        The padding and the convolutions, in the graph as written.
    ran_as
        The padding in the judged graph.
    zeros
        How many are put before and after, along each axis of the tensor.
    forms
        How each of the readers is told to add them.
    """

    pad: str
    ran_as: str
    readers: tuple[str, ...]
    zeros: tuple[tuple[int, int], ...]
    forms: tuple[Form, ...]


@fact
def zero_paddings(facts: Facts) -> tuple[ZeroPadding, ...]:
    """Return the paddings that ran as ops of their own; where nothing ran, those that no optimizer takes in."""
    written = facts(traced_graph)
    if written is None or not written.of_types(PADS):
        return ()
    flow = facts(dataflow)
    if flow is None:
        return ()
    found = (_padding(facts, flow, name) for name, _ in flow.live(PADS.__contains__) if not _is_in_a_body(flow, name))
    return tuple(item for item in found if item is not None)


def _is_in_a_body(flow: Dataflow, name: str) -> bool:
    """Tell whether an op belongs to the body of a loop or conditional, which no edit reaches."""
    segments = name.split("/")
    scopes = ("/".join(segments[:end]) for end in range(1, len(segments)))
    return any(scope in flow.graph and flow.op(scope).calls for scope in scopes)


def _padding(facts: Facts, flow: Dataflow, name: str) -> ZeroPadding | None:
    stage = facts(judged_stage)
    ran_as = facts(executed_by).get(name) if stage == "executed" else name
    graph = facts(judged_graph)
    if ran_as is None or runtime_type(graph.op(ran_as).type) not in PADS:
        return None  # a kernel took it in, or it never ran
    readers = list(dict.fromkeys(reader.op for reader in flow.readers(name)))
    zeros = _zeros(flow, name)
    if zeros is None or not readers or not _is_private(flow, name, readers):
        return None
    if stage == "traced" and any(flow.op(reader).type in _TAKEN_BY_ONEDNN for reader in readers):
        return None
    axes = [_axes(flow, reader, zeros) for reader in readers]
    forms = [form_of(flow.op(reader).type, some) for reader, some in zip(readers, axes, strict=True) if some]
    if len(forms) != len(readers) or None in forms or (_GPU in graph.op(ran_as).device and _is_uneven(axes)):
        return None
    return ZeroPadding(name, ran_as, tuple(readers), tuple(zeros), tuple(form for form in forms if form))


def _is_uneven(axes: Sequence[Sequence[Axis] | None]) -> bool:
    """Tell whether more is added on one side: cuDNN cannot, and TensorFlow copies the image within the convolution."""
    return any(axis.before != axis.after for some in axes for axis in some or ())


def _is_private(flow: Dataflow, name: str, readers: Sequence[str]) -> bool:
    """Tell whether nothing but the images of convolutions hangs on a padding, with no op between."""
    directly = all(data_inputs(flow.graph, reader)[0] == name for reader in readers)
    alone = all(reader.port == 0 for reader in flow.readers(name))
    return directly and alone and name not in flow.fetched and not flow.controls(name)[1]


def _zeros(flow: Dataflow, name: str) -> list[tuple[int, int]] | None:
    """Return how many zeros are added along each axis; ``None`` where that is not fixed, or it is no zeros, or none."""
    constants = [flow.op(tensor.op) for tensor in flow.inputs[name][1:]]
    values = [op.constant.values if op.type in CONSTANTS and op.constant else None for op in constants]
    if not values or any(value is None for value in values) or any(any(value or ()) for value in values[1:]):
        return None
    amounts = [int(amount) for amount in values[0] or ()]
    if not any(amounts) or len(amounts) % 2:
        return None
    return list(zip(amounts[::2], amounts[1::2], strict=True))


def _axes(flow: Dataflow, reader: str, zeros: Sequence[tuple[int, int]]) -> list[Axis] | None:
    """Return the reader's spatial axes, with the zeros of both; ``None`` where it cannot take any in."""
    op = flow.op(reader)
    rank, attrs = len(zeros), op.attrs
    spatial = spatial_axes(str(attrs.get("data_format", "NDHWC" if op.type == "Conv3D" else "NHWC")))
    strides, dilations = attrs.get("strides", ()), attrs.get("dilations") or [1] * rank
    if op.type not in CONVOLUTIONS or spatial is None or {len(spatial) + 2, len(strides)} != {rank}:
        return None
    window, padded = flow.spec(flow.inputs[reader][1]), flow.spec(flow.inputs[reader][0])
    lengths = window.shape[: len(spatial)] if window is not None and window.shape is not None else (None,)
    sizes = padded.shape if padded is not None and padded.shape is not None else (None,) * rank
    inside = _own_zeros(attrs, rank)
    if None in lengths or inside is None or not pads_only(zeros, spatial):
        return None
    return [
        Axis(
            None if (size := sizes[axis]) is None else size - sum(zeros[axis]),
            zeros[axis][0] + inside[axis][0],
            zeros[axis][1] + inside[axis][1],
            int(length or 0),
            int(strides[axis]),
            int(dilations[axis]),
        )
        for axis, length in zip(spatial, lengths, strict=True)
    ]


def _own_zeros(attrs: Mapping[str, Any], rank: int) -> list[tuple[int, int]] | None:
    """Return what a convolution adds along each axis itself; ``None`` where that depends on the image."""
    if attrs.get("padding") == "VALID":
        return [(0, 0)] * rank
    amounts = attrs.get("explicit_paddings") if attrs.get("padding") == "EXPLICIT" else None
    return list(zip(amounts[::2], amounts[1::2], strict=True)) if amounts and len(amounts) == 2 * rank else None
