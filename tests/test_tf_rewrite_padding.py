"""Zeros around an image become the padding of a convolution: the same bits, or a refusal that says why.

Everything here runs twice, with the kernels of oneDNN and without: once as TensorFlow is set up here, and once more in
a process of its own, since that is settled when TensorFlow is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edits import EVERYWHERE, FoldAffine, FoldPadding, Ops, Where

pytestmark = pytest.mark.tf
FOLD = FoldPadding(Ops(("pad",)))
NORM = FoldAffine()
KINDS = ("depthwise", "conv", "conv3d")


def convolution(lab: Any, kind: str, window: tuple[int, ...], channels: int) -> Any:
    """Return a convolution with weights of its own: ``(image, stride, padding, dilation) -> image``."""
    import tensorflow as tf

    weights = lab.variable(*window, channels, 2 if kind == "depthwise" else 5)
    if kind == "depthwise":
        return lambda x, stride, padding, _: tf.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], padding)
    if kind == "conv3d":
        return lambda x, stride, padding, _: tf.nn.conv3d(x, weights, [1, stride, stride, stride, 1], padding)
    return lambda x, stride, padding, dilation: tf.nn.conv2d(x, weights, stride, padding, dilations=dilation)


def refusal(traced: Any, where: Where = FOLD.where) -> str:
    with pytest.raises(RewriteError) as caught:
        traced.edited(FoldPadding(where))
    return str(caught.value)


def padding_of(program: Any) -> list[str]:
    """Return the padding of every convolution, in order."""
    return [node.attr["padding"].s.decode() for node in program.graph.node if "padding" in node.attr]


# -- against TensorFlow ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A convolution drawn at random, with zeros that are those of SAME or nearly so."""

    kind: str
    sizes: tuple[int, ...]
    windows: tuple[int, ...]
    zeros: tuple[tuple[int, int], ...]
    stride: int
    dilation: int

    @property
    def leaves_out(self) -> bool:
        """Whether windows of SAME end before the image does, which Conv3D without oneDNN computes wrongly."""
        ends = [
            (-(-size // self.stride) - 1) * self.stride + window
            for size, window in zip(self.sizes, self.windows, strict=True)
        ]
        return self.kind == "conv3d" and any(end < size for end, size in zip(ends, self.sizes, strict=True))


def drawn(random: np.random.Generator, kind: str) -> Drawn:
    axes = 3 if kind == "conv3d" else 2
    stride = int(random.integers(1, 4))
    dilation = int(random.integers(1, 3)) if kind == "conv" and stride == 1 else 1
    windows = tuple(int(random.integers(1, 6)) for _ in range(axes))
    sizes = tuple(int(random.integers(5, 9 if axes == 3 else 16)) for _ in range(axes))
    zeros = []
    for size, window in zip(sizes, windows, strict=True):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        shift, more = (int(random.choice([-1, 1])), int(random.integers(0, 3))) if random.random() < 0.25 else (0, 0)
        before = max(total // 2 + shift, 0)
        zeros.append((before, total - total // 2 + more + max(-shift, 0)))
    return Drawn(kind, sizes, windows, tuple(zeros), stride, dilation)


@pytest.mark.parametrize("kind", KINDS)
def test_same_is_written_exactly_where_tensorflow_computes_the_same(lab: Any, tf: Any, kind: str) -> None:
    random = np.random.default_rng(5)
    written = set()
    for _ in range(60):
        case = drawn(random, kind)
        image = lab.random(2, *case.sizes, 4)
        conv = convolution(lab, kind, case.windows, 4)
        around = [(0, 0), *case.zeros, (0, 0)]
        padded = conv(tf.pad(image, around), case.stride, "VALID", case.dilation).numpy()
        same = conv(tf.constant(image), case.stride, "SAME", case.dilation).numpy()
        expected = "SAME" if np.array_equal(padded, same) and not case.leaves_out else "EXPLICIT"
        if not any(map(any, case.zeros)):
            continue

        def function(x: Any, conv: Any = conv, case: Drawn = case, around: Any = around) -> Any:
            return conv(tf.pad(x, around, name="pad"), case.stride, "VALID", case.dilation)

        traced = lab.trace(function, image)
        if expected == "EXPLICIT" and kind != "conv":
            assert "not those of SAME" in refusal(traced), case
            written.add("refused")
            continue
        edited = traced.edited(FOLD)
        assert padding_of(edited.program) == [expected], case
        assert edited.types["Pad"] == 0
        assert edited.difference == 0, case
        written.add(expected)
    assert written == {"SAME", "EXPLICIT" if kind == "conv" else "refused"}, "both were drawn"


@pytest.mark.parametrize(("zeros", "padding"), [((1, 1), "SAME"), ((2, 1), "EXPLICIT")])
def test_channels_may_come_first(lab: Any, tf: Any, zeros: tuple[int, int], padding: str) -> None:
    weights = lab.variable(3, 3, 4, 8)
    around = [[0, 0], [0, 0], [1, 1], zeros]
    traced = lab.trace(
        lambda x: tf.nn.conv2d(tf.pad(x, around, name="pad"), weights, 1, "VALID", data_format="NCHW"),
        lab.random(2, 4, 6, 6),
    )
    assert padding_of(lab.rewrite.apply(traced.program, [FOLD])) == [padding]
    if lab.private.onednn_enabled():  # TensorFlow has such kernels for a processor in oneDNN only
        assert traced.edited(FOLD).difference == 0


# -- what is known before the call ----------------------------------------------------------------------------------


def of_any_size(lab: Any, tf: Any, kind: str, stride: int, zeros: Any = ((1, 1), (1, 1))) -> Any:
    conv = convolution(lab, kind, (3, 3), 4)
    function = lambda x: conv(tf.pad(x, [(0, 0), *zeros, (0, 0)], name="pad"), stride, "VALID", 1)  # noqa: E731
    concrete = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([None, None, None, 4]))
    return lab.Traced(concrete, [tf.constant(lab.random(2, 6, 7, 4))], lab.of_function(concrete))


@pytest.mark.parametrize("kind", ["depthwise", "conv"])
def test_with_stride_1_same_holds_for_images_of_any_size(lab: Any, tf: Any, kind: str) -> None:
    edited = of_any_size(lab, tf, kind, 1).edited(FOLD)
    assert padding_of(edited.program) == ["SAME"]
    assert edited.difference == 0


def test_with_other_strides_the_size_must_be_known(lab: Any, tf: Any) -> None:
    assert "is not known before the call" in refusal(of_any_size(lab, tf, "depthwise", 2))
    edited = of_any_size(lab, tf, "conv", 2).edited(FOLD)
    assert padding_of(edited.program) == ["EXPLICIT"]
    assert edited.difference == 0


# -- what else reads the zeros --------------------------------------------------------------------------------------


def test_all_convolutions_that_read_a_padding_take_it_in(lab: Any, tf: Any) -> None:
    one, other = convolution(lab, "depthwise", (3, 3), 4), convolution(lab, "conv", (4, 3), 4)

    def function(x: Any) -> Any:
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], name="pad")
        return one(padded, 1, "VALID", 1), other(padded, 1, "VALID", 1)

    edited = lab.trace(function, lab.random(2, 6, 6, 4)).edited(FOLD)
    assert sorted(padding_of(edited.program)) == ["EXPLICIT", "SAME"]
    assert edited.difference == 0


def test_zeros_add_to_those_of_the_convolution(lab: Any, tf: Any) -> None:
    conv = convolution(lab, "conv", (5, 5), 4)
    own, around = [[0, 0], [1, 1], [1, 0], [0, 0]], [[0, 0], [1, 1], [1, 1], [0, 0]]
    traced = lab.trace(lambda x: conv(tf.pad(x, around, name="pad"), 1, own, 1), lab.random(2, 6, 6, 4))
    edited = traced.edited(FOLD)
    (node,) = (node for node in edited.program.graph.node if node.op == "Conv2D")
    assert list(node.attr["explicit_paddings"].list.i) == [0, 0, 2, 2, 2, 1, 0, 0]
    assert edited.difference == 0


def test_a_padding_in_a_function_of_its_own(lab: Any, tf: Any) -> None:
    conv = convolution(lab, "depthwise", (3, 3), 4)
    layer = tf.function(lambda x: conv(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), 2, "VALID", 1), autograph=False)
    edited = lab.trace(lambda x: layer(layer(x)[..., :4]), lab.random(2, 8, 8, 4)).edited(FoldPadding())
    assert padding_of(edited.program) == ["SAME", "SAME"]
    assert edited.types["Pad"] == 0
    assert edited.difference == 0


REFUSALS = {
    "other numbers": "another number than 0",
    "channels": "the batch or the channels",
    "fetched": "the function returns",
    "read elsewhere": "needs the padded tensor",
    "twice": "its image alone",
    "pads itself": "pads what it reads itself",
    "computed": "is computed in the call",
    "mirrored": "(MirrorPad) is no padding",
    "in a loop": "may be inside a loop",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_padding_that_is_needed_stays(lab: Any, tf: Any, case: str) -> None:
    conv, square = convolution(lab, "conv", (3, 3), 4), lab.variable(3, 3, 4, 4)
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    pad = lambda x, **more: tf.pad(x, around, name="pad", **more)  # noqa: E731
    valid = lambda x: conv(x, 1, "VALID", 1)  # noqa: E731

    def fetched(x: Any) -> Any:
        padded = pad(x)
        return valid(padded), padded

    def read_elsewhere(x: Any) -> Any:
        padded = pad(x)
        return valid(padded), tf.nn.max_pool2d(padded, 2, 2, "VALID")

    def in_a_loop(x: Any) -> Any:
        body = lambda y: (tf.nn.conv2d(pad(y), square, 1, "VALID") * 0.01,)  # noqa: E731
        return tf.while_loop(lambda y: tf.reduce_max(y) > 9, body, (x,))[0]

    function = {
        "other numbers": lambda x: valid(pad(x, constant_values=1.0)),
        "channels": lambda x: valid(tf.pad(x[..., :3], [*around[:3], [0, 1]], name="pad")),
        "fetched": fetched,
        "read elsewhere": read_elsewhere,
        "twice": lambda x: tf.raw_ops.Conv2D(
            input=(padded := tf.pad(x[:1, :1, :1], [[0, 3], [0, 3], [0, 3], [0, 0]], name="pad")),
            filter=padded,
            strides=[1] * 4,
            padding="VALID",
        ),
        "pads itself": lambda x: conv(pad(x), 1, "SAME", 1),
        "computed": lambda x: valid(tf.pad(x, tf.cast(x[0, 0, 0, 0] * 0, tf.int32) + around, name="pad")),
        "mirrored": lambda x: valid(pad(x, mode="REFLECT")),
        "in a loop": in_a_loop,
    }[case]
    assert REFUSALS[case] in refusal(lab.trace(function, lab.random(2, 6, 6, 4)))


def test_nothing_is_padded(lab: Any, tf: Any) -> None:
    assert "nothing is padded" in refusal(lab.trace(lambda x: x + 1, lab.random(2, 4)), EVERYWHERE)


# -- with other edits -----------------------------------------------------------------------------------------------


def block(lab: Any, tf: Any) -> Any:
    """A depthwise layer as Keras writes it: padding, convolution without, normalization, activation."""
    conv = convolution(lab, "depthwise", (3, 3), 8)
    mean, variance, gamma, beta = (lab.variable(16) for _ in range(4))

    def function(x: Any) -> Any:
        layer = conv(tf.pad(tf.nn.relu6(x), [[0, 0], [0, 1], [0, 1], [0, 0]], name="pad"), 2, "VALID", 1)
        scale = tf.math.rsqrt(variance + 1e-3) * gamma
        return tf.nn.relu6(layer * scale + (beta - mean * scale))

    return lab.trace(function, lab.random(2, 8, 8, 8))


@pytest.mark.parametrize("edits", [[FOLD, NORM], [NORM, FOLD], [FOLD, NORM, FOLD], [NORM, FOLD, FOLD]])
def test_padding_and_normalization_are_folded_in_any_order(lab: Any, tf: Any, edits: Any) -> None:
    edited = block(lab, tf).edited(*edits)
    assert padding_of(edited.program) == ["SAME"]
    assert edited.difference < 2e-6
    ran = lab.ran_as(edited.built, [tf.constant(lab.random(2, 8, 8, 8))])
    assert not ran["Pad"] + ran["Mul"] + ran["AddV2"]
    if lab.private.onednn_enabled():  # nothing else takes a bias into a depthwise convolution
        assert ran["_FusedDepthwiseConv2dNative"] == 1
        assert ran["Relu6"] == 1, "the one before the layer"


def test_an_edit_applied_to_an_edited_program_is_no_error(lab: Any, tf: Any) -> None:
    once = lab.rewrite.apply(block(lab, tf).program, [FOLD])
    assert lab.types(lab.rewrite.apply(once, [FOLD, NORM])) == lab.types(lab.rewrite.apply(once, [NORM]))


# -- with the other kernels -------------------------------------------------------------------------------------------


def test_all_of_this_holds_with_the_other_kernels(lab: Any) -> None:
    lab.assert_holds_with_the_other_kernels(__file__)
