"""Kernels that XLA named: each gets the category of what it computes, from its compiler's word or its name."""

from __future__ import annotations

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.ledger import ledger
from graphlens.facts.time.quality import quality
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function, Graph
from graphlens.ir.instructions import COPY_DONE, ELEMENTWISE, HOST_COPY, family_of, instruction_type, is_wait
from graphlens.ir.nodes import Op
from graphlens.ir.ops import family
from graphlens.ir.table import TableBuilder
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile

STREAM = "Stream #13(Compute)"


class Gpu:
    """Writes kernels of one GPU as its profiler does: those of XLA name the module and the instruction."""

    def __init__(self):
        self.space = xspace()()
        self.plane = self.space.planes.add(name="/device:GPU:0")
        self.line = self.plane.lines.add(name=STREAM, id=13)
        self.at_ns = 0

    def kernel(self, name, duration_ns=10, **stats):
        number = len(self.plane.event_metadata) + 1
        self.plane.event_metadata[number].name = name
        event = self.line.events.add(metadata_id=number, offset_ps=self.at_ns * 1000, duration_ps=duration_ns * 1000)
        self.at_ns += duration_ns
        for key, value in stats.items():
            stat = next((k for k, meta in self.plane.stat_metadata.items() if meta.name == key), None)
            stat = stat or len(self.plane.stat_metadata) + 1
            self.plane.stat_metadata[stat].name = key
            event.stats.add(metadata_id=stat, str_value=value)
        return self

    def facts(self, **evidence):
        profile = read_profile(self.space.SerializeToString())
        return Facts(Evidence(Target("a profile", "xplane"), profile=profile, **evidence))


def categories(facts):
    return {row.category: row.ns for row in facts(ledger)}


# Instruction, kernel, and the family: names as XLA writes them (`gpu/transforms`, `gpu_compiler.cc`, `hlo_opcode.h`).
NAMED = [
    ("cudnn-conv.3", "cudnn::winograd_nonfused::winogradForwardFilter4x4", "convolution"),
    ("cudnn-conv-bw-input.1", "void dgrad2d_alg1_1", "convolution"),
    ("cudnn-conv-bw-filter.7", "cutlass_80_wgrad", "convolution"),
    ("cudnn-conv-bias-activation.2", "sm80_xmma_fprop_implicit_gemm", "convolution"),
    ("gemm_fusion_dot.5", "gemm_fusion_dot_5", "matmul"),
    ("gemm_fusion_dot_general.12", "gemm_fusion_dot_general_12", "matmul"),
    ("cublas-gemm.1", "ampere_sgemm_128x64_nn", "matmul"),
    ("cublas-batch-gemm.4", "Cijk_Ailk_Bljk_SB_MT64", "matmul"),
    ("cublas-lt-matmul.9", "nvjet_tst_128x256", "matmul"),
    ("custom-call.5", "cutlass_80_tensorop_s1688gemm_256x64_16x4_nn_align4", "matmul"),
    ("custom-call.6", "implicit_convolve_sgemm", "convolution"),
    ("custom-call.7", "my_own_kernel", "custom call"),
    ("loop_add_fusion.8", "loop_add_fusion_8", ELEMENTWISE),
    ("loop_multiply_fusion", "loop_multiply_fusion", ELEMENTWISE),
    ("wrapped_add.1", "wrapped_add", ELEMENTWISE),
    ("input_reduce_fusion.92", "input_reduce_fusion_92", "reduction"),
    ("reduce.4", "reduce_4", "reduction"),
    ("loop_transpose_fusion.1", "loop_transpose_fusion_1", "data-movement"),
    ("input_transpose_fusion", "input_transpose_fusion", "data-movement"),
    ("wrapped_convert.2", "wrapped_convert_2", "data-movement"),
    ("loop_dynamic_update_slice_fusion", "loop_dynamic_update_slice_fusion", "data-movement"),
    ("input_scatter_fusion.3", "input_scatter_fusion_3", "data-movement"),
    ("input_concatenate_fusion", "input_concatenate_fusion", "data-movement"),
    ("copy.11", "copy_11", "data-movement"),
    ("triton_softmax.2", "triton_softmax_2", "softmax"),
    ("all-reduce-start.1", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "collective"),
    ("all-gather.1", "ncclDevKernel_AllGather_RING_LL", "collective"),
    ("reduce-scatter.1", "ncclDevKernel_ReduceScatter_Sum_f32", "collective"),
    ("reduce-window.3", "reduce_window_3", "pooling"),
    ("select-and-scatter.1", "select_and_scatter_1", "pooling"),
    ("rng-bit-generator.1", "rng_bit_generator_1", "random"),
    ("fusion.31", "fusion_31", ELEMENTWISE),
]


@pytest.mark.parametrize(("instruction", "kernel", "expected"), NAMED, ids=[name for name, *_ in NAMED])
def test_an_instruction_on_a_gpu_has_the_category_of_what_it_computes(instruction, kernel, expected):
    facts = Gpu().kernel(kernel, hlo_module="cluster_0", hlo_op=instruction).facts()
    assert categories(facts) == {expected: 10}
    (row,) = facts(op_rows)
    assert (row.name, row.category) == (f"cluster_0/{instruction}", expected)


def test_a_fusion_without_a_telling_name_has_the_category_of_the_op_it_was_made_of():
    facts = (
        Gpu()
        .kernel("fusion_1", 10, hlo_module="m", hlo_op="fusion.1", tf_op="net/a/MatMul:MatMul")
        .kernel("fusion_2", 20, hlo_module="m", hlo_op="fusion.2", tf_op="jit(f)/jit(main)/dot_general:")
        .kernel("fusion_3", 40, hlo_module="m", hlo_op="fusion.3", tf_op="net/b/Relu:Relu")
        .kernel("fusion_4", 80, hlo_module="m", hlo_op="fusion.4", annotation="net/c/Conv2D:Conv2D#shape=(f[1])#")
        .facts()
    )
    assert categories(facts) == {"matmul": 30, ELEMENTWISE: 40, "convolution": 80}
    assert {row.op for row in facts(op_rows)} == {
        "fusion (MatMul)", "fusion (dot_general)", "fusion (Relu)", "fusion (Conv2D)",
    }  # fmt: skip


def test_a_kernel_of_which_nobody_says_what_launched_it_is_known_by_its_name_or_not_at_all():
    facts = (
        Gpu()
        .kernel("gemm_fusion_dot_6", 10)
        .kernel("volta_sgemm_128x64_nn", 20)
        .kernel("ncclKernel_AllReduce_RING_LL_Sum_float", 40)
        .kernel("void tensorflow::BiasNCHWKernel<float>", 80)
        .facts()
    )
    assert categories(facts) == {"matmul": 30, "collective": 40, ELEMENTWISE: 80}
    assert {row.name: row.op for row in facts(op_rows)} == {
        "gemm_fusion_dot_6": "gemm_fusion_dot",
        "volta_sgemm_128x64_nn": "Kernel (matmul)",
        "ncclKernel_AllReduce_RING_LL_Sum_float": "Kernel (collective)",
        "void tensorflow::BiasNCHWKernel<float>": "Kernel",
    }


def test_a_kernel_of_a_tensorflow_op_keeps_the_category_of_the_op():
    facts = Gpu().kernel("volta_sgemm_128x64_nn", tf_op="net/conv:Conv2D").facts()
    assert categories(facts) == {"convolution": 10}


def test_what_ran_says_more_of_an_instruction_than_the_opcode_in_its_module():
    graph = TableBuilder()
    for name, opcode in (("gemm_fusion_dot.1", "fusion"), ("custom-call.2", "custom-call")):
        graph.add_op(Op(name, opcode))
    module = Graph("main", {"main": Function("main", graph.table())})
    facts = (
        Gpu()
        .kernel("gemm_fusion_dot_1", 10, hlo_module="m", hlo_op="gemm_fusion_dot.1")
        .kernel("implicit_convolve_sgemm", 20, hlo_module="m", hlo_op="custom-call.2")
        .facts(hlo={"m": module})
    )
    assert categories(facts) == {"matmul": 10, "convolution": 20}
    assert {row.name: row.category for row in facts(op_rows)} == {
        "m/gemm_fusion_dot.1": "matmul", "m/custom-call.2": "convolution",
    }  # fmt: skip
    assert facts(quality).join_rate == 1, "instructions are joined to their module, whatever they are called"


# The categories that XLA's compilers give (`HloInstruction::ToCategory`, and those of TPUs), with what they are here.
@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("loop fusion", ELEMENTWISE), ("non-fusion elementwise", ELEMENTWISE), ("output fusion", ELEMENTWISE),
        ("custom fusion", ELEMENTWISE), ("input fusion", "reduction"), ("reduce", "reduction"),
        ("convolution", "convolution"), ("convolution fusion", "convolution"), ("dot", "matmul"),
        ("data formatting", "data-movement"), ("dynamic-update-slice", "data-movement"), ("pad", "data-movement"),
        ("broadcast", "data-movement"), ("iota", "data-movement"), ("sort", "data-movement"),
        ("gather", "data-movement"), ("scatter", "data-movement"), ("slice", "data-movement"),
        ("all-reduce", "collective"), ("all-gather", "collective"), ("all-to-all", "collective"),
        ("collective-permute-start", "collective"), ("reduce-scatter", "collective"),
        ("collective-fusion", "collective"), ("all-reduce fusion", "collective"),
        ("infeed", "input"), ("outfeed", "input"), ("host send", "copy"), ("recv-done", "copy"),
        ("rng-bit-generator", "random"), ("reduce-window", "pooling"), ("custom-call", "custom call"),
        ("while", "control-flow"), ("conditional", "control-flow"), ("copy-done", "copy"), ("copy-start", "copy"),
    ],
)  # fmt: skip
def test_a_category_of_the_compiler_has_one_family(category, expected):
    assert family_of(category) == family(category) == expected


@pytest.mark.parametrize("word", ["copy", "all-reduce-done", "send-done", "async-done", "infeed", ""])
def test_only_starting_and_awaiting_a_copy_is_waiting(word):
    assert is_wait("copy-start")
    assert is_wait("copy-done")
    assert not is_wait(word)


@pytest.mark.parametrize(("way", "expected"), [("to device", HOST_COPY), ("to host", HOST_COPY), ("", "copy")])
def test_the_way_of_a_copy_decides_whether_the_host_takes_part(way, expected):
    assert family(instruction_type("copy-done.4", "copy-done.4", COPY_DONE, way)) == expected


def test_types_of_tensorflow_are_no_words_of_xla():
    for op_type in ("AddV2", "Reduce", "BroadcastGradientArgs", "XlaKernel", "my>Op", "Kernel", "_Copy"):
        assert family(op_type) == ELEMENTWISE
