"""Say in words that a model author can act on what keeps a chain of ops from being fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from graphlens.facts.patterns.fusion import Unfused
from graphlens.ir.fusion import CHANGES_THE_MODEL, FusionAnswer, Obstacle

NOT_PROBED: Final = (
    "why Grappler left them apart was not probed: that takes an experiment with TensorFlow, which was not run"
)
NOTHING_HELPS: Final = (
    "this build of TensorFlow has no kernel for the combination: none of the changes that were tried made Grappler "
    "fuse it (type, data format, activation, form of the sums, ops in between, oneDNN)"
)

ONEDNN_ADVICE: Final = "Switch oneDNN on: export TF_ENABLE_ONEDNN_OPTS=1"


class Words(NamedTuple):
    """What one kind of obstacle is, with what change Grappler fuses the chain, and what to do about it."""

    cause: str
    cure: str
    advice: str


_WORDS: Final[Mapping[str, Words]] = {
    "dtype": Words("the chain computes in {found}", "in float32", "Compute in float32"),
    "activation": Words(
        "the kernel cannot take in {found} ('{op}')", "with Relu in its place", "Use Relu where the model allows it"
    ),
    "name": Words(
        "Grappler sorts the inputs of a product by name, and does not recognize the {found} because '{op}' comes first",
        "with the names in the other order",
        "Give the activation's layer a name that sorts behind that of the layer before it",
    ),
    "layout": Words("the data format is {found}", "in channels-last order", "Use channels-last order"),
    "bridge": Words(
        "{found} ('{op}') stands between the parts", "without the {found}", "Move {found} behind the chain"
    ),
    "addition": Words("the bias is added by {found} ('{op}')", "with BiasAdd", "Add the bias by tf.nn.bias_add"),
    "residual": Words("the other branch is added by {found} ('{op}')", "with AddN", "Add the branches by tf.add_n"),
    "training": Words(
        "'{op}' normalizes with the statistics of the batch",
        "in inference mode",
        "Call the layer with training=False",
    ),
    "device": Words("the ops have no device", "with a device", "Place the ops on a device"),
    "rank": Words(
        "'{op}' is a {found}",
        "as a MatMul of two-dimensional tensors",
        "Flatten the leading axes before the product, and restore them at the end",
    ),
    "einsum": Words(
        "the scores come from Einsum ('{found}')",
        "from BatchMatMul",
        "Write the scores as tf.matmul(query, key, transpose_b=True) of [batch, heads, length, size]",
    ),
    "no-mask": Words(
        "no mask is added to the scaled scores",
        "with a sum behind the scaling",
        "Mask the scores, if they are masked, by adding to them after the scaling",
    ),
    "onednn": Words("its kernels are oneDNN's, which is off here", "with oneDNN on", ONEDNN_ADVICE),
    "consumer": Words(
        "{found} '{op}' reads an inner result too", "without that reader", "Let '{op}' read the end of the chain"
    ),
    "fetched": Words(
        "an inner result is an output of the function ('{op}')", "without that output", "Do not return the inner result"
    ),
    "control-out": Words(
        "{found} '{op}' waits for an inner op", "without that edge", "Remove the control dependency of '{op}'"
    ),
    "control-in": Words(
        "an inner op waits for {found} '{op}'", "without that edge", "Remove the control dependency on '{op}'"
    ),
}
SEGMENTS_SHOWN: Final = 3  # of an op's name, from its end; the evidence has it in full


def signature(answer: FusionAnswer | None) -> tuple[object, ...]:
    """Return what two chains must have in common to be told in one finding."""
    if answer is None:
        return ("not probed",)
    return (answer.verdict, *(tuple(item.kind for item in some) for some in answer.changes))


def cause(item: Unfused) -> str:
    """Say why ``item`` is not fused: every alternative that an experiment found, or that there is none."""
    answer = item.answer
    if answer is None:
        return NOT_PROBED if item.chain is not None else NOTHING_HELPS
    if answer.verdict == "failed":
        return f"the experiment that would tell why failed: {answer.why}"
    if answer.verdict == "fuses":
        return "cut out of the model, with all that surrounds it, it is fused; why it was not here is not known"
    if not answer.changes:
        return NOTHING_HELPS
    return "; or: ".join(_sentence(some) for some in answer.changes)


def advice(item: Unfused) -> str | None:
    """Say what to change, by the first alternative; ``None`` where nothing is known to help."""
    if item.answer is None or not item.answer.changes:
        return None
    first, *others = _said(item.answer.changes[0], "advice")
    return "; ".join((first, *(text[:1].lower() + text[1:] for text in others)))


def keeps_the_model(item: Unfused) -> bool:
    """Tell whether a change is known with which Grappler fuses ``item`` and the model computes the same."""
    changes = item.answer.changes if item.answer is not None else ()
    return any(not CHANGES_THE_MODEL & {obstacle.kind for obstacle in some} for some in changes)


def _sentence(obstacles: Sequence[Obstacle]) -> str:
    cures = ", ".join(dict.fromkeys(_said(obstacles, "cure")))
    return f"{', and '.join(_said(obstacles, 'cause'))}; {cures}, Grappler fuses it"


def _said(obstacles: Sequence[Obstacle], part: str) -> list[str]:
    return [
        getattr(_WORDS[item.kind], part).format(op=_short(item.op), found=item.found or item.kind)
        for item in obstacles
        if item.kind in _WORDS
    ]


def _short(name: str) -> str:
    segments = name.split("/")
    return name if len(segments) <= SEGMENTS_SHOWN else "…/" + "/".join(segments[-SEGMENTS_SHOWN:])
