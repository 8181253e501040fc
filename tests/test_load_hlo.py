"""HLO text: instructions are ops, fusions call their computation, and odd lines cost a note."""

from __future__ import annotations

import pytest
from load_helpers import edges, run_tensorflow

from graphlens.errors import TargetError
from graphlens.ir.nodes import Call, TensorSpec
from graphlens.loaders.hlo import read_hlo

TEXT = """HloModule cluster_0, is_scheduled=true, entry_computation_layout={(f32[2,3]{1,0})->(f32[2,3]{1,0}, s32[])}

%fused (p.0: f32[2,3]) -> f32[2,3] {
  %p.0 = f32[2,3]{1,0} parameter(0)
  ROOT %mul.1 = f32[2,3]{1,0} multiply(%p.0, %p.0), metadata={op_name="net/mul" source_file="/me/net.py" source_line=12}
}

ENTRY %main.9 (x: f32[2,3]) -> (f32[2,3], s32[]) {
  %x = f32[2,3]{1,0} parameter(0)
  c = s32[] constant(5)
  %fusion = f32[2,3]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_type="Mul" op_name="net/mul"}
  what is this line
  %w = (s32[], bf16[2]{0}) while((s32[], bf16[2]{0}) %c), condition=%cond, body=%body
  ROOT %out = (f32[2,3]{1,0}, /*index=1*/s32[]) tuple(f32[2,3]{1,0} %fusion, s32[] %c)
}
"""


def test_instructions_become_ops():
    name, graph = read_hlo(TEXT)
    main = graph.main
    assert (name, graph.root, main.inputs, main.outputs) == ("cluster_0", "main.9", ("x",), ("out",))
    assert [(op.name, op.type) for op in main.graph.ops()] == [
        ("x", "parameter"),
        ("c", "constant"),
        ("fusion", "fusion"),
        ("w", "while"),
        ("out", "tuple"),
    ]
    assert edges(main.graph) == {
        ("x", "fusion", "data"),
        ("fusion", "out", "data"),
        ("c", "out", "data"),
        ("c", "w", "data"),
    }


def test_shapes_names_sources_and_calls():
    _, graph = read_hlo(TEXT)
    fusion = graph.main.graph.op("fusion")
    assert fusion.outputs == (TensorSpec("float32", (2, 3)),)
    assert fusion.calls == (Call("fusion", "fused"),)
    assert fusion.attrs == {"op_type": "Mul", "op_name": "net/mul"}
    assert graph.functions["fused"].graph.op("mul.1").source == "/me/net.py:12"
    loop = graph.main.graph.op("w")
    assert loop.outputs == (TensorSpec("int32", ()), TensorSpec("bfloat16", (2,)))
    assert loop.calls == (Call("cond", "cond"), Call("body", "body"))


def test_lines_that_are_not_understood_are_noted():
    assert read_hlo(TEXT)[1].notes == ("computation 'main.9': 1 lines were not understood",)


def test_text_without_an_entry_is_refused():
    with pytest.raises(TargetError, match="no ENTRY computation"):
        read_hlo("HloModule empty\n")


COMPILE = """
import sys, pathlib, tensorflow as tf

@tf.function(jit_compile=True)
def step(x):
    return tf.reduce_mean(tf.nn.relu(tf.matmul(x, x) + 1.0))

text = step.experimental_get_compiler_ir(tf.ones((32, 32)))(stage="optimized_hlo")
pathlib.Path(sys.argv[1], "hlo.txt").write_text(text)
"""


@pytest.mark.tf
def test_what_xla_writes_today_is_understood(tmp_path):
    run_tensorflow(COMPILE, tmp_path)
    _, graph = read_hlo((tmp_path / "hlo.txt").read_text())
    assert graph.notes == ()
    names = {op.attrs.get("op_name") for function in graph.functions.values() for op in function.graph.ops()}
    assert {"MatMul", "Relu", "Mean"} <= names
    called = {
        call.function for function in graph.functions.values() for op in function.graph.ops() for call in op.calls
    }
    assert called <= set(graph.functions)
