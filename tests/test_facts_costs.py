"""FLOPs and bytes against hand counts; and what is not known stays unknown."""

from __future__ import annotations

import pytest

from graphlens.facts.work.costs import cost_of
from graphlens.ir.nodes import Edge, Op, TensorSpec
from graphlens.ir.table import Table, TableBuilder


def op_with(kind: str, inputs: list[TensorSpec], output: TensorSpec, **attrs: object) -> Table:
    graph = TableBuilder()
    graph.add_op(Op("op", kind, outputs=(output,), attrs=attrs))
    for port, spec in enumerate(inputs):
        graph.add_op(Op(f"in{port}", "Placeholder", outputs=(spec,)))
        graph.add_edge(f"in{port}", "op", Edge("data", 0, port))
    return graph.table()


def f32(*shape: int | None) -> TensorSpec:
    return TensorSpec("float32", shape)


def flops_of(graph: Table) -> int | None:
    return cost_of(graph, "op").flops


def bytes_of(graph: Table) -> int | None:
    return cost_of(graph, "op").bytes


# The counts are written out as a person would: 2 operations per multiply-add.
HAND_COUNTS = [
    ("Conv2D", [f32(1, 8, 8, 3), f32(3, 3, 3, 16)], f32(1, 8, 8, 16), {}, 2 * 8 * 8 * 16 * 3 * 3 * 3),
    ("_MklNativeConv2D", [f32(1, 8, 8, 3), f32(3, 3, 3, 16)], f32(1, 8, 8, 16), {}, 2 * 8 * 8 * 16 * 27),
    (
        "_MklNativeFusedConv2D",
        [f32(1, 8, 8, 3), f32(3, 3, 3, 16)],
        f32(1, 8, 8, 16),
        {"fused_ops": ["BiasAdd", "Relu"]},
        2 * 1024 * 27 + 2 * 1024,
    ),
    ("DepthwiseConv2dNative", [f32(1, 8, 8, 4), f32(3, 3, 4, 2)], f32(1, 8, 8, 8), {}, 2 * 8 * 8 * 8 * 9),
    ("Conv2D", [f32(1, 8, 8, 8), f32(3, 3, 2, 16)], f32(1, 8, 8, 16), {}, 2 * 1024 * 9 * 2),  # four groups
    ("MatMul", [f32(5, 7), f32(7, 11)], f32(5, 11), {}, 2 * 5 * 7 * 11),
    ("MatMul", [f32(7, 5), f32(7, 11)], f32(5, 11), {"transpose_a": True}, 2 * 5 * 7 * 11),
    ("BatchMatMulV2", [f32(4, 5, 7), f32(4, 7, 11)], f32(4, 5, 11), {}, 2 * 4 * 5 * 7 * 11),
    ("Conv2DBackpropFilter", [f32(2, 8, 8, 3), f32(4), f32(2, 8, 8, 16)], f32(3, 3, 3, 16), {}, 2 * 2048 * 27),
    ("Conv2DBackpropInput", [f32(4), f32(3, 3, 3, 16), f32(2, 8, 8, 16)], f32(2, 8, 8, 3), {}, 2 * 2048 * 27),
    # As oneDNN runs them, with its mark: of each output of the forward layer, one channel and nine taps.
    (
        "_MklNativeDepthwiseConv2dNativeBackpropFilter",
        [f32(2, 8, 8, 4), f32(4), f32(2, 8, 8, 4)],
        f32(3, 3, 4, 1),
        {},
        2 * 512 * 9,
    ),
    (
        "_MklNativeDepthwiseConv2dNativeBackpropInput",
        [f32(4), f32(3, 3, 4, 1), f32(2, 8, 8, 4)],
        f32(2, 8, 8, 4),
        {},
        2 * 512 * 9,
    ),
    ("Relu", [f32(2, 3)], f32(2, 3), {}, 6),
    ("Sum", [f32(4, 5), f32(1)], f32(4), {}, 20),
    ("Einsum", [f32(4, 5, 7), f32(7, 11)], f32(4, 5, 11), {"equation": "abc,cd->abd"}, 2 * 4 * 5 * 7 * 11),
    (
        "Einsum",
        [f32(2, 3, 8, 16), f32(2, 3, 9, 16)],
        f32(2, 3, 8, 9),
        {"equation": "BNTH,BNSH->BNTS"},
        2 * 6 * 8 * 9 * 16,
    ),
    ("Einsum", [f32(6, 4, 5), f32(5, 7)], f32(6, 4, 7), {"equation": "...x,xy->...y"}, 2 * 6 * 4 * 5 * 7),
    ("_MklSwish", [f32(2, 3)], f32(2, 3), {}, 12),
    (
        "MaxPoolGrad",
        [f32(1, 8, 8, 4), f32(1, 4, 4, 4), f32(1, 4, 4, 4)],
        f32(1, 8, 8, 4),
        {"ksize": [1, 2, 2, 1]},
        64 * 4 + 64,
    ),
    ("AvgPoolGrad", [f32(4), f32(1, 4, 4, 4)], f32(1, 8, 8, 4), {"ksize": [1, 2, 2, 1]}, 64 * 4 * 2),
    ("AddN", [f32(6), f32(6), f32(6)], f32(6), {}, 12),
    ("Transpose", [f32(2, 3), f32(2)], f32(3, 2), {}, 0),
]


@pytest.mark.parametrize(("kind", "inputs", "output", "attrs", "expected"), HAND_COUNTS)
def test_flops_are_those_of_a_hand_count(
    kind: str, inputs: list[TensorSpec], output: TensorSpec, attrs: dict[str, object], expected: int
) -> None:
    assert flops_of(op_with(kind, inputs, output, **attrs)) == expected


def test_an_unknown_shape_has_no_flops_rather_than_none_at_all() -> None:
    assert flops_of(op_with("Conv2D", [f32(None, 8, 8, 3), f32(3, 3, 3, 16)], f32(None, 8, 8, 16))) is None
    assert flops_of(op_with("MatMul", [TensorSpec("float32"), f32(None, 11)], f32(5, 11))) is None
    assert flops_of(op_with("BatchMatMulV2", [f32(3, 5, 7), f32(7, 11)], f32(None, 5, 11))) is None
    assert flops_of(op_with("MatMul", [f32(None, 7), f32(7, 11)], f32(None, 11))) is None


UNKNOWN = TensorSpec("float32")


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "attrs", "flops"),
    [
        ("MatMul", [UNKNOWN, f32(7, 11)], f32(5, 11), {}, 2 * 5 * 7 * 11),
        ("_MklMatMul", [f32(None, 7), UNKNOWN], f32(5, 11), {}, 2 * 5 * 7 * 11),
        ("MatMul", [UNKNOWN, f32(11, 7)], f32(5, 11), {"transpose_b": True}, 2 * 5 * 7 * 11),
        ("MatMul", [f32(7, None), UNKNOWN], f32(5, 11), {"transpose_a": True}, 2 * 5 * 7 * 11),
        ("BatchMatMulV2", [UNKNOWN, f32(7, 11)], f32(4, 5, 11), {}, 2 * 4 * 5 * 7 * 11),
        ("BatchMatMulV2", [UNKNOWN, f32(4, 11, 7)], f32(4, 5, 11), {"adj_y": True}, 2 * 4 * 5 * 7 * 11),
    ],
)
def test_either_operand_tells_how_much_a_product_contracts(
    kind: str, inputs: list[TensorSpec], output: TensorSpec, attrs: dict[str, object], flops: int
) -> None:
    """The state of a loop has a shape that nobody wrote down; the weights have one."""
    graph = op_with(kind, inputs, output, **attrs)
    assert flops_of(graph) == flops
    assert bytes_of(graph) is None, "how much is read is not known all the same"


IMAGE, FILTER, OUT = f32(1, 8, 8, 3), f32(3, 3, 3, 16), f32(1, 8, 8, 16)
CONVOLVED = 2 * 8 * 8 * 16 * 27
FUSED: list[tuple[str, list[TensorSpec], TensorSpec, dict[str, object], int]] = [
    ("_FusedMatMul", [f32(5, 7), f32(7, 11), f32(11)], UNKNOWN, {"fused_ops": ("BiasAdd", "Relu")}, 770 + 110),
    ("_MklNativeFusedMatMul", [f32(5, 7), f32(11, 7)], UNKNOWN, {"transpose_b": True, "fused_ops": ()}, 770),
    ("_MklFusedMatMul", [f32(7, 5), f32(7, 11)], UNKNOWN, {"transpose_a": True, "fused_ops": ("BiasAdd",)}, 770 + 55),
    ("_MklFusedBatchMatMulV2", [f32(4, 5, 7), f32(4, 7, 11)], f32(4, 5, 11), {"fused_ops": ("Mul", "Add")}, 3080 + 440),
    ("_QuantizedMatMul", [f32(5, 7), f32(7, 11)], f32(5, 11), {"fused_ops": ("BiasAdd", "Dequantize")}, 770 + 110),
    ("QuantizedMatMulWithBiasAndRelu", [f32(5, 7), f32(7, 11)], f32(5, 11), {}, 770 + 110),
    ("_MklQuantizedConv2DWithBiasSumAndRelu", [IMAGE, FILTER], OUT, {}, CONVOLVED + 3 * 1024),
    ("_FusedQuantizedConv2D", [IMAGE, FILTER], OUT, {"fused_ops": ("BiasAdd",)}, CONVOLVED + 1024),
    ("QuantizedDepthwiseConv2D", [f32(1, 8, 8, 4), f32(3, 3, 4, 2)], f32(1, 8, 8, 8), {}, 2 * 512 * 9),
    ("FusedPadConv2D", [IMAGE, f32(4, 2), FILTER], OUT, {}, CONVOLVED),
    ("FusedResizeAndPadConv2D", [IMAGE, f32(2), f32(4, 2), FILTER], OUT, {}, CONVOLVED),
    ("_MklNativePadWithFusedConv2D", [IMAGE, FILTER, f32(16)], OUT, {"fused_ops": ("BiasAdd",)}, CONVOLVED + 1024),
    ("_MklNativeConv2DBackpropFilterWithBias", [IMAGE, f32(4), OUT], FILTER, {}, CONVOLVED),
    ("_MklFusedInstanceNorm", [IMAGE, f32(3), f32(3)], IMAGE, {}, 7 * 192),
    ("_MklFusedMish", [f32(2, 3)], f32(2, 3), {}, 18),
    ("MaxPool3DGrad", [f32(1, 4, 4, 4, 2), f32(1, 2, 2, 2, 2)], f32(1, 4, 4, 4, 2), {"ksize": (1, 2, 2, 2, 1)}, 144),
    ("_MklQuantizedConcatV2", [f32(2, 3)], f32(2, 3), {}, 0),
    ("XlaEinsum", [f32(5, 7), f32(7, 11)], f32(5, 11), {"equation": "ab,bc->ac"}, 770),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inputs", "output", "attrs", "flops"), FUSED, ids=[item[0] for item in FUSED])
def test_fused_ops_as_they_stand_in_a_file_have_operations(
    kind: str, inputs: list[TensorSpec], output: TensorSpec, attrs: dict[str, object], flops: int
) -> None:
    """Grappler and oneDNN write them, often without a shape of what they give."""
    assert flops_of(op_with(kind, inputs, output, **attrs)) == flops


def test_a_recurrent_layer_of_cudnn_has_the_operations_of_its_products() -> None:
    """Two layers of 64 units over 20 steps of 8 values, a batch of 4: gates times (inputs + units) in each."""
    sequence, state = f32(20, 4, 8), f32(2, 4, 64)
    lstm = op_with("CudnnRNNV3", [sequence, state], f32(20, 4, 64), rnn_mode="lstm")
    assert flops_of(lstm) == 2 * 20 * 4 * 4 * 64 * ((8 + 64) + (64 + 64))
    gru = op_with("CudnnRNN", [sequence, f32(4, 4, 64)], f32(20, 4, 128), rnn_mode="gru", direction="bidirectional")
    assert flops_of(gru) == 2 * 2 * 20 * 4 * 3 * 64 * ((8 + 64) + (128 + 64))
    gradient = op_with("CudnnRNNBackpropV3", [sequence, state], f32(20, 4, 8), rnn_mode="lstm")
    assert flops_of(gradient) == 2 * (flops_of(lstm) or 0)


def test_what_a_list_of_tensors_hands_on_is_not_moved_and_what_is_stacked_is() -> None:
    """``list_kernels.cc``: reading and writing an element keep its buffer; stacking copies all of them."""
    handle = TensorSpec("variant", ())
    for kind, output in (("TensorListGetItem", f32(4, 8)), ("TensorListSetItem", handle)):
        graph = op_with(kind, [handle, TensorSpec("int32", ()), f32(4, 8)], output)
        assert (flops_of(graph), bytes_of(graph)) == (0, 0)
    stacked = op_with("TensorListStack", [handle, TensorSpec("int32", (2,))], f32(20, 4, 8))
    assert (flops_of(stacked), bytes_of(stacked)) == (0, 2 * 20 * 4 * 8 * 4)


@pytest.mark.parametrize("equation", ["abc->ac", "ab,bc,cd->ad", "abcd,de->abce", ""])
def test_an_einsum_of_another_form_has_no_flops(equation: str) -> None:
    assert flops_of(op_with("Einsum", [f32(4, 5, 7), f32(7, 11)], f32(4, 11), equation=equation)) is None


@pytest.mark.parametrize("window", ["2,2", -1, 0.5, ("2", "2"), (), {"dtype": "int32"}])
def test_a_pooling_whose_window_is_no_list_of_sizes_has_no_flops(window: object) -> None:
    assert flops_of(op_with("MaxPool", [f32(1, 8, 8, 3)], f32(1, 4, 4, 3), ksize=window)) is None


def test_what_is_fused_counts_nothing_where_it_is_no_list_of_names() -> None:
    assert flops_of(op_with("_FusedMatMul", [f32(5, 7), f32(7, 11)], f32(5, 11), fused_ops=0.5)) == 2 * 5 * 7 * 11


def test_an_op_without_a_formula_has_no_flops() -> None:
    assert flops_of(op_with("MyCustomOp", [f32(2)], f32(2))) is None


def test_a_gather_reads_what_it_returns_and_not_the_whole_table() -> None:
    table, ids = f32(30_000, 768), TensorSpec("int32", (128,))
    assert bytes_of(op_with("GatherV2", [table, ids, TensorSpec("int32", ())], f32(128, 768))) == (
        128 * 4 + 4 + 2 * 128 * 768 * 4
    )
    assert bytes_of(op_with("ResourceGather", [TensorSpec("resource", ()), ids], f32(128, 768))) == (
        128 * 4 + 2 * 128 * 768 * 4
    )


def test_a_view_moves_nothing() -> None:
    assert bytes_of(op_with("Reshape", [f32(4, 5), TensorSpec("int32", (1,))], f32(20))) == 0


def test_bytes_are_read_and_written_once() -> None:
    assert bytes_of(op_with("AddV2", [f32(4), f32(4)], f32(4))) == 3 * 16
    assert bytes_of(op_with("AssignVariableOp", [TensorSpec("resource", ()), f32(4)], f32(4))) == 32
    assert bytes_of(op_with("AddV2", [f32(None), f32(4)], f32(4))) is None
    assert bytes_of(op_with("StringLower", [TensorSpec("string", (4,))], TensorSpec("string", (4,)))) is None


LONGEST = 2**63 - 1


@pytest.mark.parametrize("rank", [1, 2, 20, 254, 255])
def test_what_no_tensor_can_hold_is_not_known(rank: int) -> None:
    spec = TensorSpec("int4", (LONGEST,) * rank)
    assert spec.elements == (LONGEST if rank == 1 else None)
    assert spec.nbytes is None or rank == 1
    assert flops_of(op_with("Relu", [spec], spec)) == (LONGEST if rank == 1 else None)


def test_a_number_of_operations_that_no_profiler_could_count_is_not_known() -> None:
    window = (LONGEST,) * 300
    assert flops_of(op_with("MaxPool", [f32(2)], f32(2), ksize=window)) is None
    assert flops_of(op_with("MatMul", [f32(LONGEST, 1), f32(1, LONGEST)], f32(1, LONGEST))) is None
