"""What an op is besides its type: said where the shapes say it, and true by TensorFlow's own results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.rules import find, judge
from graphlens.rules.execution.op_forms import form_of
from graphlens.testing.sketch import sketch


def words(*lines: str, trains: bool = False) -> str | None:
    """What op ``y`` of a sketch is."""
    form = form_of(Facts(sketch("\n".join(("static", *lines))))(judged_graph), "y", trains)
    return form and form.words


def conv(image: str, taps: str, output: str, attrs: str, kind: str = "Conv2D") -> str | None:
    return words(
        f"x = Placeholder() float32[{image}]",
        f"w = Const() float32[{taps}]",
        f"y = {kind}(x, w) float32[{output}] {attrs}",
    )


def backward(
    image: str, taps: str, coming: str, attrs: str, kind: str = "Conv2DBackpropInput", trains: bool = False
) -> str | None:
    return words(
        "s = Const() int32[4]",
        f"w = Const() float32[{taps}]",
        f"g = Placeholder() float32[{coming}]",
        f"y = {kind}(s, w, g) float32[{image}] {attrs}",
        trains=trains,
    )


SAME, VALID = "{strides: [1,1,1,1], padding: SAME}", "{strides: [1,1,1,1], padding: VALID}"


def test_a_convolution_of_one_by_one_or_of_one_pixel_is_a_matrix_product() -> None:
    assert conv("8,14,14,64", "1,1,64,32", "8,14,14,32", SAME) == "a 1x1 convolution is a matrix product"
    assert conv("8,1,1,64", "3,3,64,32", "8,1,1,32", SAME) == "a convolution of one pixel is a matrix product"
    assert conv("8,7,7,64", "7,7,64,32", "8,1,1,32", VALID) == (
        "a convolution with a filter as large as its image is a matrix product"
    )
    assert (
        conv("8,14,14,64", "1,1,64,32", "8,14,14,32", SAME, "_FusedConv2D") == "a 1x1 convolution is a matrix product"
    )


def test_any_other_convolution_is_what_its_type_says() -> None:
    assert conv("8,14,14,64", "3,3,64,32", "8,14,14,32", SAME) is None
    assert conv("8,7,7,64", "7,7,64,32", "8,7,7,32", SAME) is None
    assert conv("8,?,?,64", "1,1,64,32", "8,?,?,32", SAME) is None
    strided = "{strides: [1,2,2,1], padding: SAME}"
    assert conv("8,14,14,64", "1,1,64,32", "8,7,7,32", strided) is None


def test_channels_first_has_its_pixels_at_the_end() -> None:
    first = "{strides: [1,1,1,1], padding: SAME, data_format: NCHW}"
    assert conv("8,64,1,1", "3,3,64,32", "8,32,1,1", first) == "a convolution of one pixel is a matrix product"
    assert conv("8,1,1,64", "3,3,1,32", "8,32,1,64", first) is None


def test_groups_and_depthwise_layers_are_told_from_products() -> None:
    assert conv("8,14,14,64", "3,3,4,64", "8,14,14,64", SAME) == (
        "a grouped convolution: 16 groups of 4 channels, each with filters of its own"
    )
    depthwise = conv("8,14,14,64", "3,3,64,1", "8,14,14,64", SAME, "DepthwiseConv2dNative")
    assert depthwise == "a depthwise convolution: 3x3 weights for each channel by itself, which is no matrix product"


def test_what_goes_backward_through_a_convolution_is_a_layer_or_a_gradient() -> None:
    of_pixel = ("8,3,3,16", "3,3,16,64", "8,1,1,64", VALID)
    assert backward(*of_pixel) == "a transposed convolution of one pixel is a matrix product"
    assert backward(*of_pixel, trains=True) == "the gradient of a convolution to one pixel is a matrix product"
    in_space = ("2,2,2,2,16", "2,2,2,16,64", "2,1,1,1,64", "{strides: [1,2,2,2,1], padding: SAME}")
    assert backward(*in_space, "Conv3DBackpropInputV2") == (
        "a transposed 3-D convolution of one pixel is a matrix product"
    )
    assert backward("8,6,6,16", "3,3,16,64", "8,4,4,64", VALID) is None
    assert backward("8,4,4,16", "1,1,16,64", "8,4,4,64", VALID, trains=True) == (
        "the gradient of a 1x1 convolution is a matrix product"
    )


def test_products_with_a_vector_and_many_small_ones_are_told() -> None:
    def product(left: str, right: str, output: str, kind: str = "MatMul", attrs: str = "") -> str | None:
        return words(
            f"a = Placeholder() float32[{left}]",
            f"b = Const() float32[{right}]",
            f"y = {kind}(a, b) float32[{output}] {attrs}",
        )

    assert (
        product("1,512", "512,1000", "1,1000") == "a matrix times a vector: each weight is read for one multiplication"
    )
    assert product("64,512", "512,1000", "64,1000") is None
    assert product("96,4,8", "96,8,4", "96,4,4", "BatchMatMulV2") == "96 products of 4x8 by 8x4, each on its own"
    assert product("96,8,4", "96,8,4", "96,4,4", "BatchMatMulV2", "{adj_x: true}") == (
        "96 products of 4x8 by 8x4, each on its own"
    )


def test_a_lookup_of_rows_is_told_from_other_gathers() -> None:
    def gather(table: str, indices: str, output: str) -> str | None:
        return words(
            f"t = Const() float32[{table}]",
            f"i = Placeholder() int32[{indices}]",
            f"y = GatherV2(t, i) float32[{output}]",
        )

    assert gather("30000,128", "8,20", "8,20,128") == "a lookup of 160 rows of 128 numbers, as of an embedding"
    assert gather("128,30000", "20", "128,20") == "moves data and computes nothing"


def test_moves_are_moves_and_a_transpose_of_ones_is_a_reshape() -> None:
    def transpose(before: str, after: str) -> str | None:
        return words(
            f"x = Placeholder() float32[{before}]", "p = Const() int32[4]", f"y = Transpose(x, p) float32[{after}]"
        )

    assert transpose("8,1,1,64", "8,64,1,1") == "a transpose that moves only dimensions of size 1 is a reshape"
    assert transpose("8,4,5,64", "8,64,4,5") == "moves data and computes nothing"
    assert transpose("8,1,8,1", "1,8,1,8") == "moves data and computes nothing"
    assert (
        words("x = Placeholder() float32[4,4]", "y = ConcatV2(x, x) float32[8,4]") == "moves data and computes nothing"
    )


def test_a_number_that_is_stretched_along_the_last_dimension_is_told() -> None:
    lines = "x = Placeholder() float32[64,100]", "m = Const() float32[64,1]"
    assert words(*lines, "y = Sub(x, m) float32[64,100]") == (
        "elementwise, with an input that is stretched along the last dimension"
    )
    assert words(*lines, "y = Sub(x, x) float32[64,100]") == "elementwise: each number is read and written once"
    assert words(*lines, "y = Softmax(x) float32[64,100]") is None


# -- that it is true ------------------------------------------------------------------------------------------------

Numbers = np.ndarray[Any, Any]


def _values(*shape: int) -> Numbers:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def _one_by_one(tf: Any) -> tuple[Any, Any]:
    x, w = _values(2, 5, 5, 8), _values(1, 1, 8, 6)
    return tf.nn.conv2d(x, w, 1, "SAME"), x.reshape(-1, 8) @ w[0, 0]


def _of_one_pixel(tf: Any) -> tuple[Any, Any]:
    x, w = _values(4, 1, 1, 8), _values(3, 3, 8, 6)
    return tf.nn.conv2d(x, w, 1, "SAME"), x.reshape(4, 8) @ w[1, 1]


def _as_large_as_its_image(tf: Any) -> tuple[Any, Any]:
    x, w = _values(4, 3, 5, 8), _values(3, 5, 8, 6)
    return tf.nn.conv2d(x, w, 1, "VALID"), x.reshape(4, -1) @ w.reshape(-1, 6)


def _transposed_of_one_pixel(tf: Any) -> tuple[Any, Any]:
    x, w = _values(4, 1, 1, 1, 8), _values(2, 2, 2, 6, 8)
    return tf.nn.conv3d_transpose(x, w, [4, 2, 2, 2, 6], 2, "SAME"), x.reshape(4, 8) @ w.reshape(-1, 8).T


def _gradient_of_a_filter(tf: Any) -> tuple[Any, Any]:
    x, g = _values(2, 5, 5, 8), _values(2, 5, 5, 6)
    made = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=[1, 1, 8, 6], out_backprop=g, strides=[1, 1, 1, 1], padding="SAME"
    )
    return made, x.reshape(-1, 8).T @ g.reshape(-1, 6)


@pytest.mark.tf
@pytest.mark.parametrize(
    "both",
    [_one_by_one, _of_one_pixel, _as_large_as_its_image, _transposed_of_one_pixel, _gradient_of_a_filter],
    ids=lambda both: both.__name__.strip("_"),
)
def test_what_is_called_a_matrix_product_is_one(both: Callable[[Any], tuple[Any, Numbers]]) -> None:
    made, product = both(pytest.importorskip("tensorflow"))
    np.testing.assert_allclose(np.ravel(made), product.ravel(), rtol=1e-4, atol=1e-5)


# -- what is advised ------------------------------------------------------------------------------------------------

ROOF = "roof: 100 GFLOP/s 20 GB/s"


@pytest.mark.parametrize(
    ("lines", "advice"),
    [
        (("x = Placeholder() float32[1,32,32,512]", "w = Const() float32[1,1,512,512]",
          "y = Conv2D(x, w) float32[1,32,32,512] 107ms {strides: [1,1,1,1], padding: SAME}"),
          "Write what is a matrix product"),
        (("x = Placeholder() float32[100,1000]", "n = Const() int32[2] = 32,1",
          "y = Tile(x, n) float32[3200,1000] 13ms"), "Move less: "),
        (("x = Placeholder() float32[3000,1000]", "y = Relu(x) float32[3000,1000] 24ms"), "Give the kernel shapes"),
    ],
)  # fmt: skip
def test_what_is_advised_is_for_what_the_op_is(lines: tuple[str, ...], advice: str) -> None:
    (finding,), _ = judge(Facts(sketch("\n".join((ROOF, *lines)))), [find("GL505")])
    assert finding.fix.summary.startswith(advice)
    assert finding.general
    assert "0 FLOP" not in finding.reason
