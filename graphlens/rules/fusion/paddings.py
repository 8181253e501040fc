"""Findings about zeros that are put around images by copies, before convolutions that could add them themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import executed_by, judged_graph, judged_stage, traced_graph
from graphlens.facts.patterns.padding import ZeroPadding, zero_paddings
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import FoldPadding, Ops
from graphlens.ir.ops import runtime_type
from graphlens.rules.phrases import by_cause, known_sum, with_stage
from graphlens.rules.registry import found
from graphlens.units import counted

PADS_LISTED: Final = 20
# Of the step: far below what pairs of runs can tell from nothing, so there would be a finding and never a proof.
SMALLEST_SHARE: Final = 0.001

_DEPTHWISE: Final = "DepthwiseConv2dNative"
_LAYERS: Final[Mapping[str, str]] = {"Conv2D": "Conv2D", _DEPTHWISE: "DepthwiseConv2D", "Conv3D": "Conv3D"}


def padding_findings(facts: Facts) -> Iterator[Finding]:
    """Yield one finding about all paddings that took time, or would run where nothing was executed."""
    stage, times = facts(judged_stage), facts(timings)
    pads = [item for item in facts(zero_paddings) if stage == "traced" or times.get(item.ran_as)]
    pads.sort(key=lambda item: -(_ns(facts, item) or 0))
    saving = saving_without(facts, [item.ran_as for item in pads])
    if pads and (saving.share is None or saving.share >= SMALLEST_SHARE):
        yield _finding(facts, pads, saving)


def _finding(facts: Facts, pads: Sequence[ZeroPadding], saving: Saving) -> Finding:
    return found(
        title=_title(facts, len(pads)),
        nodes=dict.fromkeys(name for item in pads for name in (item.ran_as, *_ran_behind(facts, item))),
        evidence={
            "paddings": [_evidence(facts, item) for item in pads[:PADS_LISTED]],
            "count": len(pads),
            "their_ns": known_sum([_ns(facts, item) for item in pads]),
        },
        reason=with_stage(facts, by_cause([_cause(facts, item) for item in pads])),
        saving=saving,
        removes=[item.ran_as for item in pads],
        fix=Fix(
            "Let the convolutions add the zeros as they read the image",
            "exact",
            tuple(FoldPadding(Ops((item.ran_as,), traced=(item.pad,))) for item in pads),
            "\n".join(dict.fromkeys(line for item in pads for line in _snippet(facts, item))),
        ),
        floor="low",
    )


def _title(facts: Facts, count: int) -> str:
    would = "would " if facts(judged_stage) == "traced" else ""
    if count == 1:
        runs = "would run" if would else "runs"
        return f"A padding {runs} as a copy of its own before a convolution that could add the zeros itself"
    return f"{count} paddings {would}run as copies of their own before convolutions that could add the zeros themselves"


def _evidence(facts: Facts, item: ZeroPadding) -> Mapping[str, Any]:
    return {
        "layer": layer_of_op(facts, item.ran_as) or item.ran_as,
        "zeros": str([list(pair) for pair in item.zeros]),
        "before": [layer_of_op(facts, reader, "traced") or reader for reader in item.readers],
        "kernel": "/".join(dict.fromkeys(_type(facts, reader) for reader in item.readers)),
        "becomes": "/".join(dict.fromkeys(item.forms)),
        "ns": _ns(facts, item),
    }


def _ns(facts: Facts, item: ZeroPadding) -> int | None:
    timing = facts(timings).get(item.ran_as)
    return timing.self_ns if timing else None


def _ran_behind(facts: Facts, item: ZeroPadding) -> list[str]:
    """Return the readers in the judged graph."""
    if facts(judged_stage) == "traced":
        return list(item.readers)
    runs_as = facts(executed_by)
    return [ran_as for reader in item.readers if (ran_as := runs_as.get(reader))]


def _type(facts: Facts, reader: str) -> str:
    written = facts(traced_graph)
    return written.op(reader).type if written is not None else ""


def _cause(facts: Facts, item: ZeroPadding) -> str:
    if any(_type(facts, reader) == _DEPTHWISE for reader in item.readers):
        return "no optimizer of TensorFlow takes a padding into a depthwise convolution"
    if len(item.readers) > 1:
        return f"{counted(len(item.readers), 'convolution')} read the padded tensor; oneDNN takes it into a single one"
    graph = facts(judged_graph)
    kernels = {graph.op(name).type for name in _ran_behind(facts, item)}
    if all(runtime_type(kernel) == kernel for kernel in kernels):
        return "TensorFlow takes a padding into convolutions of oneDNN only, and this one is none"
    return "why oneDNN did not take it into the convolution was not established"


def _snippet(facts: Facts, item: ZeroPadding) -> Iterator[str]:
    for reader, form in zip(item.readers, item.forms, strict=True):
        if form == "SAME":
            layer = _LAYERS[_type(facts, reader)]
            yield f'layers.{layer}(size, strides, padding="same")  # instead of zero padding and padding="valid"'
        else:
            zeros = [list(pair) for pair in item.zeros]
            yield f"tf.nn.conv2d(x, kernel, strides, padding={zeros})  # instead of tf.pad and padding='VALID'"
